package sip

import (
	"net/netip"
	"sync"
	"time"
)

// patience is how many complaints each source still gets. Its table is bounded: sources share places, so that a flood of
// different ones costs others their answers and nothing else.
type patience struct {
	perSecond float64
	mu        sync.Mutex
	places    [256]struct {
		left float64
		at   time.Time
	}
}

// spend reports whether the source may be answered, and counts it.
func (p *patience) spend(source netip.Addr, now time.Time) bool {
	bytes := source.As16()
	h := uint32(2166136261)
	for _, c := range bytes {
		h = (h ^ uint32(c)) * 16777619
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	place := &p.places[(h^h>>8^h>>16)&255]
	if place.at.IsZero() {
		place.left = p.perSecond
	} else {
		place.left = min(p.perSecond, place.left+now.Sub(place.at).Seconds()*p.perSecond)
	}
	place.at = now
	if place.left < 1 {
		return false
	}
	place.left--
	return true
}

// complaintLog is the rate of log lines about what peers do wrong, for each kind of it.
type complaintLog struct {
	mu   sync.Mutex
	last map[string]*complaint
}

type complaint struct {
	at         time.Time
	suppressed int
}

// complaintInterval is the time between two such lines of one kind.
const complaintInterval = 10 * time.Second

// complain logs at most one line of a kind in complaintInterval, with the number of those left out. what is one of a few
// constants.
func (s *Server) complain(what string, args ...any) {
	now := time.Now()
	l := &s.complaints
	l.mu.Lock()
	c := l.last[what]
	if c == nil {
		c = &complaint{}
		l.last[what] = c
	} else if now.Sub(c.at) < complaintInterval {
		c.suppressed++
		l.mu.Unlock()
		return
	}
	suppressed := c.suppressed
	c.at, c.suppressed = now, 0
	l.mu.Unlock()
	s.log.Warn(what, append(args, "suppressed", suppressed)...)
}
