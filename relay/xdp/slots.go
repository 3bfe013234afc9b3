package xdp

import "time"

// grace is how long a slot stays out of use after nothing points to it any more: far longer than any run of the program,
// which may still hold what it read before.
const grace = 100 * time.Millisecond

// slots hands out the positions of a table. Its caller serialises access.
type slots struct {
	free    []uint32
	retired []retiredSlot // oldest first
	next    int           // of retired
	now     func() time.Time
}

type retiredSlot struct {
	slot  uint32
	since time.Time
}

// newSlots hands out the positions from first to capacity-1 that are not used, the lowest first.
func newSlots(first, capacity uint32, used map[uint32]bool, now func() time.Time) *slots {
	s := &slots{now: now, free: make([]uint32, 0, capacity-first)}
	for i := capacity; i > first; i-- {
		if !used[i-1] {
			s.free = append(s.free, i-1)
		}
	}
	return s
}

// available is the number of slots that take can give.
func (s *slots) available() int {
	s.reclaim()
	return len(s.free)
}

// take hands out a slot.
func (s *slots) take() (uint32, bool) {
	if len(s.free) == 0 {
		s.reclaim()
	}
	if len(s.free) == 0 {
		return 0, false
	}
	i := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return i, true
}

// giveBack returns a slot that nothing ever pointed to.
func (s *slots) giveBack(i uint32) { s.free = append(s.free, i) }

// retire returns a slot that nothing points to any more.
func (s *slots) retire(i uint32) { s.retired = append(s.retired, retiredSlot{i, s.now()}) }

func (s *slots) reclaim() {
	limit := s.now().Add(-grace)
	for s.next < len(s.retired) && !s.retired[s.next].since.After(limit) {
		s.free = append(s.free, s.retired[s.next].slot)
		s.next++
	}
	if s.next > len(s.retired)/2 {
		s.retired = s.retired[:copy(s.retired, s.retired[s.next:])]
		s.next = 0
	}
}
