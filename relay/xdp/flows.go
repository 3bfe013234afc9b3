package xdp

import (
	"fmt"
	"maps"
	"os"
	"time"

	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/relay"
)

// Flows implements relay.Dataplane.
func (p *Plane) Flows(id relay.SessionID) []relay.Flow {
	p.mu.RLock()
	defer p.mu.RUnlock()
	s := p.sessions[id]
	if s == nil || p.closed {
		return nil
	}
	flows := make([]relay.Flow, len(s.endpoints))
	for i, e := range s.endpoints {
		flows[i] = p.flow(e)
	}
	return flows
}

func (p *Plane) flow(e *endpoint) relay.Flow {
	state := p.maps.Flow(e.flow)
	f := relay.Flow{
		Local: e.record.Local, Component: e.record.Component, Action: e.record.Action, Learnt: p.learnt(e),
		Packets: map[relay.Path]uint64{relay.PathXDP: state.Packets},
		Bytes:   map[relay.Path]uint64{relay.PathXDP: state.Bytes},
	}
	first, last := state.FirstSeen, state.LastSeen
	if c := e.slow.Load(); c != nil {
		c.mu.Lock()
		f.Packets[relay.PathSlow], f.Bytes[relay.PathSlow] = c.packets, c.bytes
		f.Punted = maps.Clone(c.punted)
		if first == 0 || c.firstSeen != 0 && c.firstSeen < first {
			first = c.firstSeen
		}
		last = max(last, c.lastSeen)
		c.mu.Unlock()
	}
	if f.FirstSeen = bpf.Time(first); first != 0 {
		// By one reading of the clocks, so that the two keep their order.
		f.LastSeen = f.FirstSeen.Add(time.Duration(last - first))
	}
	return f
}

// Totals implements relay.Dataplane. The reasons of the slow path follow those of the program; they count from the start of
// the process.
func (p *Plane) Totals() (relay.Totals, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	totals := relay.Totals{Forwarded: make(map[relay.Path]uint64)}
	if p.closed {
		return totals, fmt.Errorf("read totals: %w", os.ErrClosed)
	}
	counts, err := p.maps.Counters()
	if err != nil {
		return totals, fmt.Errorf("read totals: %w", err)
	}
	for _, c := range counts {
		totals.Reasons = append(totals.Reasons, relay.Reason{
			Name: c.Reason.String(), Verdict: c.Reason.Verdict(), Help: c.Reason.Help(), Packets: c.Packets, Bytes: c.Bytes,
		})
		if c.Reason.Verdict() == bpf.VerdictForward {
			totals.Forwarded[relay.PathXDP] += c.Packets
		}
	}
	for o := range outcomes {
		text, t := o.text(), &p.tallies[o]
		totals.Reasons = append(totals.Reasons, relay.Reason{
			Name: text.name, Verdict: text.verdict, Help: text.help, Packets: t.packets.Load(), Bytes: t.bytes.Load(),
		})
	}
	totals.Forwarded[relay.PathSlow] = p.tallies[slowForwarded].packets.Load()
	return totals, nil
}

// Events implements relay.Dataplane.
func (p *Plane) Events() <-chan relay.Event { return p.events }

// EventsLost is the number of events that had no reader in time, in this process.
func (p *Plane) EventsLost() uint64 { return p.eventsLost.Load() }

// Name implements relay.Dataplane.
func (p *Plane) Name() string { return "xdp" }

// Sessions is the number of sessions that the plane holds.
func (p *Plane) Sessions() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.sessions)
}
