package sip

import "time"

// expirer is what a timer wakes.
type expirer interface {
	expire(t *timer)
}

// timer is embedded in what it belongs to. It is used by the goroutine of its shard only. The zero value is idle.
type timer struct {
	at    time.Duration // since the epoch of the shard
	place int           // in the heap, from 1; 0: idle
	who   expirer
}

// timerHeap holds the running timers of a shard, the next one first.
type timerHeap struct{ all []*timer }

// next returns when the first timer is due; false if none runs.
func (h *timerHeap) next() (time.Duration, bool) {
	if len(h.all) == 0 {
		return 0, false
	}
	return h.all[0].at, true
}

// set starts a timer or moves it.
func (h *timerHeap) set(t *timer, at time.Duration) {
	if t.place == 0 {
		t.at = at
		h.all = append(h.all, t)
		t.place = len(h.all)
		h.up(t.place - 1)
		return
	}
	earlier := at < t.at
	t.at = at
	if earlier {
		h.up(t.place - 1)
	} else {
		h.down(t.place - 1)
	}
}

// stop stops a timer; an idle one is left alone.
func (h *timerHeap) stop(t *timer) {
	if t.place == 0 {
		return
	}
	i, last := t.place-1, len(h.all)-1
	h.swap(i, last)
	h.all[last] = nil
	h.all = h.all[:last]
	t.place = 0
	if i < last {
		h.down(i)
		h.up(i)
	}
}

func (h *timerHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if h.all[parent].at <= h.all[i].at {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *timerHeap) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h.all) {
			return
		}
		if right := child + 1; right < len(h.all) && h.all[right].at < h.all[child].at {
			child = right
		}
		if h.all[i].at <= h.all[child].at {
			return
		}
		h.swap(i, child)
		i = child
	}
}

func (h *timerHeap) swap(i, j int) {
	h.all[i], h.all[j] = h.all[j], h.all[i]
	h.all[i].place, h.all[j].place = i+1, j+1
}
