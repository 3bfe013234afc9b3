package xdp

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/tandem-relay/tandem/relay"
)

// session is what the plane holds of one session. Sessions and endpoints are replaced, not changed.
type session struct {
	id         relay.SessionID
	generation uint32
	endpoints  []*endpoint
}

// endpoint is one local endpoint with its record.
type endpoint struct {
	session *session
	record  relay.Record
	slot    uint32 // of the record; replaced with every change
	flow    uint32 // of the written state; stays with the endpoint
	// One for each output, to the destination of the moment; nil where there is none.
	targets []*target
	// What the slow path learnt where the program may not learn, until the record says so.
	claim atomic.Pointer[netip.AddrPort]
	// The stream still takes the slow path after such learning, so that its packets keep their order.
	settling bool
	told     atomic.Bool // what was learnt here stands in the records that send there, and was published
	// Shared by an endpoint and what replaces it: a packet may be counted after the replacement.
	slow *atomic.Pointer[slowCounts]
}

// slowCounts is what the slow path did for an endpoint. It stays with the endpoint.
type slowCounts struct {
	mu                  sync.Mutex
	packets, bytes      uint64 // forwarded
	firstSeen, lastSeen uint64 // of accepted packets; CLOCK_MONOTONIC, ns
	accepted            uint64
	punted              map[string]uint64
}

// counts returns the endpoint's counters for the slow path, which most never need.
func (e *endpoint) counts() *slowCounts {
	if c := e.slow.Load(); c != nil {
		return c
	}
	e.slow.CompareAndSwap(nil, new(slowCounts))
	return e.slow.Load()
}

// saw counts an accepted packet of a payload size, and why it took the slow path.
func (c *slowCounts) saw(now uint64, why string, size int, sent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.firstSeen == 0 {
		c.firstSeen = now
	}
	c.lastSeen = now
	c.accepted++
	if sent {
		c.packets++
		c.bytes += uint64(size)
	}
	if c.punted == nil {
		c.punted = make(map[string]uint64)
	}
	c.punted[why]++
}

func (c *slowCounts) total() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accepted
}

// sends reports whether packets of the endpoint leave from local.
func (e *endpoint) sends(local netip.AddrPort) bool {
	for i := range e.record.Outputs {
		if e.record.Outputs[i].From == local {
			return true
		}
	}
	return false
}

func (s *session) endpoint(local netip.AddrPort) *endpoint {
	for _, e := range s.endpoints {
		if e.record.Local == local {
			return e
		}
	}
	return nil
}

// records returns the logical records of the session.
func (s *session) records() []relay.Record {
	records := make([]relay.Record, len(s.endpoints))
	for i, e := range s.endpoints {
		records[i] = e.record
	}
	return records
}
