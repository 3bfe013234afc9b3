// Package ports hands out pairs of an even RTP port and the odd RTCP port above it, for one media address.
package ports

import (
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Errors of a pool.
var (
	// ErrExhausted: every pair is taken or in quarantine.
	ErrExhausted = errors.New("no free port pair")
	// ErrTaken: the pair is taken or in quarantine.
	ErrTaken = errors.New("port pair is not free")
	// ErrOutside: the port is not the even port of a pair of this pool.
	ErrOutside = errors.New("not the even port of a pair of this pool")
	// ErrFree: the pair was not taken.
	ErrFree = errors.New("port pair is not taken")
)

// Drained per call from the quarantine; more than one, so that the quarantine empties faster than it fills.
const drainStep = 4

// Pool holds the pairs of one media address. Every operation takes constant time, but for Status and a growing
// quarantine. All methods may be called concurrently. Time is passed in; it need not rise strictly.
type Pool struct {
	quarantine time.Duration
	spans      []span
	total      int

	mu sync.Mutex
	// order is a permutation of the pairs: the free ones stand in front, in no order that could be guessed.
	order []uint16
	// place is the inverse of order.
	place []uint16
	free  int
	// taken has a bit for each pair that is handed out; a pair behind the free ones without it is in quarantine.
	taken   []uint64
	used    int
	waiting queue
	rand    *rand.Rand
}

// span is a run of pairs: even ports from first on, numbered from base.
type span struct {
	first uint16
	base  int
	pairs int
}

// New makes a pool of all even/odd pairs that lie wholly in the ranges, which must not overlap.
// Released pairs stay out of use for the quarantine, which may be zero.
func New(quarantine time.Duration, ranges ...Range) (*Pool, error) {
	if quarantine < 0 {
		return nil, fmt.Errorf("quarantine %v is negative", quarantine)
	}
	p := &Pool{quarantine: quarantine}
	for i, r := range ranges {
		if err := r.Check(); err != nil {
			return nil, err
		}
		for _, other := range ranges[:i] {
			if r.Overlaps(other) {
				return nil, fmt.Errorf("port ranges %v and %v overlap", other, r)
			}
		}
		p.spans = append(p.spans, span{first: r.firstEven(), base: p.total, pairs: r.Pairs()})
		p.total += r.Pairs()
	}
	if p.total == 0 {
		return nil, errors.New("port pool has no range")
	}
	p.order = make([]uint16, p.total)
	p.place = make([]uint16, p.total)
	for i := range p.order {
		p.order[i], p.place[i] = uint16(i), uint16(i)
	}
	p.free = p.total
	p.taken = make([]uint64, (p.total+63)/64)
	var seed [32]byte
	crand.Read(seed[:])
	p.rand = rand.New(rand.NewChaCha8(seed))
	return p, nil
}

// Allocate takes a pair at random and returns its even port; the RTCP port is the next one. It returns ErrExhausted
// when nothing is free at the given time.
func (p *Pool) Allocate(now time.Time) (uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drain(now, drainStep)
	if p.free == 0 {
		return 0, ErrExhausted
	}
	pair := p.order[p.rand.IntN(p.free)]
	p.take(pair)
	return p.port(pair), nil
}

// Claim takes a certain pair, named by its even port. It returns ErrTaken when the pair is not free and ErrOutside
// when it is not of this pool.
func (p *Pool) Claim(rtp uint16) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	pair, ok := p.pair(rtp)
	if !ok {
		return ErrOutside
	}
	if int(p.place[pair]) >= p.free {
		return ErrTaken
	}
	p.take(pair)
	return nil
}

// Return gives a pair back that never carried media: it is free at once. It returns ErrFree or ErrOutside when the
// pair was not taken.
func (p *Pool) Return(rtp uint16) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	pair, err := p.untake(rtp)
	if err == nil {
		p.liberate(pair)
	}
	return err
}

// Release gives a pair back that carried media: it becomes free when the quarantine is over. It returns ErrFree or
// ErrOutside when the pair was not taken.
func (p *Pool) Release(rtp uint16, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drain(now, drainStep)
	pair, err := p.untake(rtp)
	if err != nil {
		return err
	}
	if p.quarantine == 0 {
		p.liberate(pair)
		return nil
	}
	p.waiting.push(waiter{until: now.Add(p.quarantine).UnixNano(), pair: pair})
	return nil
}

// Contains reports whether rtp is the even port of a pair of this pool.
func (p *Pool) Contains(rtp uint16) bool {
	_, ok := p.pair(rtp)
	return ok
}

// Status counts pairs. Total is the sum of the others.
type Status struct{ Total, Free, Used, Quarantined int }

// Status counts the pairs at the given time.
func (p *Pool) Status(now time.Time) Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drain(now, p.waiting.len())
	return Status{Total: p.total, Free: p.free, Used: p.used, Quarantined: p.waiting.len()}
}

// take moves a free pair behind the free ones.
func (p *Pool) take(pair uint16) {
	p.free--
	p.swap(p.place[pair], uint16(p.free))
	p.taken[pair/64] |= 1 << (pair % 64)
	p.used++
}

// untake ends the use of a pair without making it free.
func (p *Pool) untake(rtp uint16) (uint16, error) {
	pair, ok := p.pair(rtp)
	if !ok {
		return 0, ErrOutside
	}
	if p.taken[pair/64]&(1<<(pair%64)) == 0 {
		return 0, ErrFree
	}
	p.taken[pair/64] &^= 1 << (pair % 64)
	p.used--
	return pair, nil
}

// liberate moves a pair to the free ones.
func (p *Pool) liberate(pair uint16) {
	p.swap(p.place[pair], uint16(p.free))
	p.free++
}

func (p *Pool) swap(i, j uint16) {
	a, b := p.order[i], p.order[j]
	p.order[i], p.order[j] = b, a
	p.place[a], p.place[b] = j, i
}

// drain frees at most n pairs whose quarantine is over.
func (p *Pool) drain(now time.Time, n int) {
	at := now.UnixNano()
	for ; n > 0 && p.waiting.len() > 0 && p.waiting.front().until <= at; n-- {
		p.liberate(p.waiting.pop().pair)
	}
}

func (p *Pool) pair(rtp uint16) (uint16, bool) {
	if rtp%2 != 0 {
		return 0, false
	}
	for _, s := range p.spans {
		if n := (int(rtp) - int(s.first)) / 2; rtp >= s.first && n < s.pairs {
			return uint16(s.base + n), true
		}
	}
	return 0, false
}

func (p *Pool) port(pair uint16) uint16 {
	for _, s := range p.spans {
		if n := int(pair) - s.base; n < s.pairs {
			return s.first + uint16(2*n)
		}
	}
	panic("ports: pair outside the pool")
}
