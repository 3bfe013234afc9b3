package ports

// waiter is a pair in quarantine.
type waiter struct {
	until int64 // ns since 1970
	pair  uint16
}

// queue is a first-in first-out ring that grows as needed and never beyond the number of pairs in the pool,
// rounded up to a power of two.
type queue struct {
	ring  []waiter
	head  int
	count int
}

func (q *queue) len() int      { return q.count }
func (q *queue) front() waiter { return q.ring[q.head] }

func (q *queue) push(w waiter) {
	if q.count == len(q.ring) {
		grown := make([]waiter, max(16, 2*len(q.ring)))
		n := copy(grown, q.ring[q.head:])
		copy(grown[n:], q.ring[:q.head])
		q.ring, q.head = grown, 0
	}
	q.ring[(q.head+q.count)&(len(q.ring)-1)] = w
	q.count++
}

func (q *queue) pop() waiter {
	w := q.ring[q.head]
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.count--
	return w
}
