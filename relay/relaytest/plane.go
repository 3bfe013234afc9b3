// Package relaytest is a data plane and a journal in memory, for tests of everything that uses a relay.
package relaytest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"github.com/tandem-relay/tandem/relay"
)

// Call is one call of Apply.
type Call struct {
	ID         relay.SessionID
	Generation uint32
	Records    []relay.Record
	Err        error // what Apply returned
}

// Plane is a relay.Dataplane that only remembers. All methods may be called concurrently.
type Plane struct {
	mu       sync.Mutex
	hook     func(context.Context, Call) error
	held     map[relay.SessionID]relay.Compiled
	locals   map[netip.AddrPort]relay.SessionID
	calls    []Call
	problems []string
	flows    map[relay.SessionID][]relay.Flow
	events   chan relay.Event
}

var _ relay.Dataplane = (*Plane)(nil)

// New makes an empty plane.
func New() *Plane {
	return &Plane{
		held:   make(map[relay.SessionID]relay.Compiled),
		locals: make(map[netip.AddrPort]relay.SessionID),
		flows:  make(map[relay.SessionID][]relay.Flow),
		events: make(chan relay.Event, 64),
	}
}

// Clone makes a plane that holds the same records, without hook and calls: what a crashed process leaves.
func (p *Plane) Clone() *Plane {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := New()
	c.held, c.locals = maps.Clone(p.held), maps.Clone(p.locals)
	return c
}

// Hook sets a function that runs at the start of each Apply, without a lock held. What it returns, if not nil, is
// what Apply returns, and the plane keeps what it has. It may block, to hold a commit up. Adopt calls it for each session,
// and refuses those for which it returns an error. nil removes it.
func (p *Plane) Hook(hook func(context.Context, Call) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = hook
}

// FailNext makes the next n calls of Apply return err.
func (p *Plane) FailNext(n int, err error) {
	var mu sync.Mutex
	p.Hook(func(context.Context, Call) error {
		mu.Lock()
		defer mu.Unlock()
		if n <= 0 {
			return nil
		}
		n--
		return err
	})
}

// Name is "memory".
func (p *Plane) Name() string { return "memory" }

// Apply remembers the records.
func (p *Plane) Apply(ctx context.Context, id relay.SessionID, generation uint32, records []relay.Record) error {
	call := Call{ID: id, Generation: generation, Records: slices.Clone(records)}
	p.mu.Lock()
	hook := p.hook
	p.mu.Unlock()
	if hook != nil {
		call.Err = hook(ctx, call)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if call.Err == nil {
		call.Err = p.take(relay.Compiled{ID: id, Generation: generation, Records: call.Records})
	}
	p.calls = append(p.calls, call)
	return call.Err
}

// take makes the plane hold a session as given, with the lock held.
func (p *Plane) take(c relay.Compiled) error {
	old, known := p.held[c.ID]
	if known && c.Generation < old.Generation {
		return fmt.Errorf("session %s generation %d: %w", c.ID, c.Generation, relay.ErrStale)
	}
	if known && c.Generation == old.Generation && !reflect.DeepEqual(c.Records, old.Records) {
		p.problems = append(p.problems, fmt.Sprintf("session %s: generation %d has two meanings", c.ID, c.Generation))
	}
	for _, r := range c.Records {
		if owner, ok := p.locals[r.Local]; ok && owner != c.ID {
			p.problems = append(p.problems, fmt.Sprintf("local %v is of sessions %s and %s", r.Local, owner, c.ID))
		}
	}
	for _, r := range old.Records {
		delete(p.locals, r.Local)
	}
	if len(c.Records) == 0 {
		delete(p.held, c.ID)
		return nil
	}
	for _, r := range c.Records {
		p.locals[r.Local] = c.ID
	}
	p.held[c.ID] = c
	return nil
}

// Adopt makes the plane hold exactly these sessions, without those that the hook refuses.
func (p *Plane) Adopt(ctx context.Context, sessions []relay.Compiled) (relay.Adoption, error) {
	p.mu.Lock()
	hook := p.hook
	p.mu.Unlock()
	var adoption relay.Adoption
	if hook != nil {
		sessions = slices.DeleteFunc(slices.Clone(sessions), func(c relay.Compiled) bool {
			if hook(ctx, Call{ID: c.ID, Generation: c.Generation, Records: slices.Clone(c.Records)}) == nil {
				return false
			}
			adoption.Refused = append(adoption.Refused, c.ID)
			return true
		})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before := maps.Clone(p.held)
	clear(p.held)
	clear(p.locals)
	for _, c := range sessions {
		for _, r := range c.Records {
			if slices.ContainsFunc(before[c.ID].Records, func(o relay.Record) bool { return reflect.DeepEqual(o, r) }) {
				adoption.Kept++
			} else {
				adoption.Written++
			}
		}
		if err := p.take(c); err != nil {
			return relay.Adoption{}, err
		}
	}
	for _, c := range before {
		for _, r := range c.Records {
			if _, ok := p.locals[r.Local]; !ok {
				adoption.Removed++
			}
		}
	}
	return adoption, nil
}

// SetFlows sets what Flows returns for a session.
func (p *Plane) SetFlows(id relay.SessionID, flows ...relay.Flow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flows[id] = flows
}

// Flows returns what SetFlows set, or else a flow without packets for each record.
func (p *Plane) Flows(id relay.SessionID) []relay.Flow {
	p.mu.Lock()
	defer p.mu.Unlock()
	if flows := p.flows[id]; flows != nil {
		return slices.Clone(flows)
	}
	var flows []relay.Flow
	for _, r := range p.held[id].Records {
		flows = append(flows, relay.Flow{Local: r.Local, Component: r.Component, Action: r.Action})
	}
	return flows
}

// Totals is empty.
func (p *Plane) Totals() (relay.Totals, error) { return relay.Totals{}, nil }

// Events delivers what Send was given.
func (p *Plane) Events() <-chan relay.Event { return p.events }

// Send delivers an event; it blocks when 64 are waiting.
func (p *Plane) Send(e relay.Event) { p.events <- e }

// Records returns the records held for a session and their generation; nil and 0 for an unknown one.
func (p *Plane) Records(id relay.SessionID) ([]relay.Record, uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.held[id].Records), p.held[id].Generation
}

// Held returns all sessions that have records.
func (p *Plane) Held() map[relay.SessionID]relay.Compiled {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.held)
}

// Calls returns every call of Apply so far.
func (p *Plane) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// Problems tells what no caller may do: one local endpoint in two sessions, one generation with two contents.
func (p *Plane) Problems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.problems)
}
