package xdp

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/relay"
)

// ErrFull is the relay.ErrFull of a plane whose tables hold as many records as they can.
var ErrFull = fmt.Errorf("%w: record table", relay.ErrFull)

// Apply implements relay.Dataplane. It waits for unresolved next hops for 20 ms at most by default (Config.Wait), and never
// twice for the same one: packets towards a host that is not resolved take the slow path.
func (p *Plane) Apply(ctx context.Context, id relay.SessionID, generation uint32, records []relay.Record) error {
	if err := p.apply(ctx, id, generation, records); err != nil {
		return fmt.Errorf("apply session %s: %w", id, err)
	}
	return nil
}

func (p *Plane) apply(ctx context.Context, id relay.SessionID, generation uint32, records []relay.Record) error {
	if err := p.check(records); err != nil {
		return err
	}
	waited, err := p.resolve(ctx, id, generation, records)
	if err != nil {
		return err
	}
	defer func() {
		for _, t := range waited {
			p.hops.release(t)
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	current, err := p.current(id, generation)
	switch {
	case err != nil:
		return err
	case len(records) == 0:
		if current != nil {
			p.remove(current)
		}
		return nil
	case current != nil && current.generation == generation:
		return nil
	}
	return p.install(&session{id: id, generation: generation}, records)
}

// current returns the session as the plane holds it, nil if it does not. The lock is held.
func (p *Plane) current(id relay.SessionID, generation uint32) (*session, error) {
	if p.closed {
		return nil, os.ErrClosed
	}
	s := p.sessions[id]
	if s != nil && generation < s.generation {
		return nil, fmt.Errorf("generation %d after %d: %w", generation, s.generation, relay.ErrStale)
	}
	return s, nil
}

// check looks at what does not depend on other sessions.
func (p *Plane) check(records []relay.Record) error {
	seen := make(map[netip.AddrPort]bool, len(records))
	for i := range records {
		r := &records[i]
		switch {
		case !p.isMedia(r.Local):
			return fmt.Errorf("local %s is not in the media range", r.Local)
		case seen[r.Local]:
			return fmt.Errorf("local %s stands twice", r.Local)
		case r.Action < relay.Forward || r.Action > relay.Punt:
			return fmt.Errorf("local %s: unknown action %d", r.Local, r.Action)
		}
		seen[r.Local] = true
		for _, out := range r.Outputs {
			switch {
			case !p.isMedia(out.From):
				return fmt.Errorf("local %s: output from %s, which is not in the media range", r.Local, out.From)
			case out.To.IsValid() && out.To.Addr().Unmap().Is4() != out.From.Addr().Unmap().Is4():
				return fmt.Errorf("local %s: output from %s to %s of the other family", r.Local, out.From, out.To)
			case p.hops.names[out.Network] == nil:
				return fmt.Errorf("local %s: unknown network %q", r.Local, out.Network)
			}
		}
	}
	return nil
}

// isMedia reports whether an endpoint is in the configured media range.
func (p *Plane) isMedia(local netip.AddrPort) bool {
	for _, r := range p.ranges[local.Addr()] {
		if r.Contains(local.Port()) {
			return true
		}
	}
	return false
}

// resolve finds the next hops that the records will need, before anything is locked or changed, and waits for them. The
// caller releases the targets.
func (p *Plane) resolve(ctx context.Context, id relay.SessionID, generation uint32, records []relay.Record) ([]*target, error) {
	if len(records) == 0 {
		return nil, nil
	}
	p.mu.RLock()
	if _, err := p.current(id, generation); err != nil {
		p.mu.RUnlock()
		return nil, err
	}
	list := p.drafts(&session{id: id, generation: generation}, records)
	p.mu.RUnlock()
	var targets []*target
	for i := range list {
		for _, t := range list[i].endpoint.targets {
			if t != nil {
				targets = append(targets, t)
			}
		}
	}
	p.hops.wait(ctx, targets, p.wait)
	return targets, nil
}

// install replaces the endpoints of a session: fresh records are written whole, then each index entry is stored at once.
// What was learnt stays in force as long as its window does. The lock is held; on an error nothing has changed.
func (p *Plane) install(next *session, records []relay.Record) error {
	former := p.sessions[next.id]
	list := p.drafts(next, records)
	if err := p.takeSlots(list); err != nil {
		p.discard(list)
		return err
	}
	for i := range list {
		d := &list[i]
		switch {
		case d.former == nil:
			p.maps.ClearFlow(d.endpoint.flow)
		case d.forget:
			// A latch of any other window is none.
			p.maps.SetLatch(d.endpoint.flow, d.endpoint.record.Window-1, 0)
		}
		p.maps.WriteRecord(d.endpoint.slot, p.encode(list, d))
	}
	next.endpoints = make([]*endpoint, len(list))
	for i := range list {
		e := list[i].endpoint
		next.endpoints[i] = e
		p.setIndex(e.record.Local, e.slot)
		p.endpoints[e.record.Local] = e
		if !e.told.Load() {
			p.untold[e] = struct{}{}
		}
		if e.settling && !list[i].former.settling {
			p.settle(e.record.Local)
		}
	}
	p.sessions[next.id] = next
	if former != nil {
		for _, e := range former.endpoints {
			p.retire(e, next.endpoint(e.record.Local) == nil)
		}
	}
	for i := range list {
		if f := list[i].former; f != nil && f.session == nil {
			p.retire(f, false)
		}
	}
	p.tellAll(next)
	return nil
}

// tellAll looks at the latches again after records were replaced: what was learnt under an old record in the meantime does
// not stand in the new ones. What fails here is tried again by notice.
func (p *Plane) tellAll(s *session) {
	for _, e := range s.endpoints {
		if p.sessions[s.id] != s {
			return // written anew meanwhile
		}
		if err := p.tell(e); err != nil {
			p.logger.Error("use learnt endpoint", "session", s.id, "local", e.record.Local, "err", err)
		}
	}
}

// takeSlots gives each draft a record of its own and new endpoints a flow. New endpoints leave a part of the pool to
// the replacement of records.
func (p *Plane) takeSlots(list []draft) error {
	fresh := 0
	for i := range list {
		if owner := list[i].former; owner == nil {
			fresh++
		} else if s := owner.session; s != nil && s.id != list[i].endpoint.session.id {
			return fmt.Errorf("local %s belongs to session %s", owner.record.Local, s.id)
		}
	}
	need := len(list)
	if fresh > 0 {
		need += p.reserve
	}
	if p.records.available() < need || p.flows.available() < fresh {
		return ErrFull
	}
	for i := range list {
		e := list[i].endpoint
		e.slot, _ = p.records.take()
		if list[i].former == nil {
			e.flow, _ = p.flows.take()
		}
	}
	return nil
}

// remove ends a session. The lock is held.
func (p *Plane) remove(s *session) {
	for _, e := range s.endpoints {
		p.retire(e, true)
	}
	delete(p.sessions, s.id)
}

// retire lets go of an endpoint that was replaced or, if it is gone, ended.
func (p *Plane) retire(e *endpoint, gone bool) {
	if gone {
		p.setIndex(e.record.Local, p.vacant(e.record.Local))
		delete(p.endpoints, e.record.Local)
		p.flows.retire(e.flow)
	}
	p.records.retire(e.slot)
	delete(p.untold, e)
	p.releaseTargets(e)
}

// vacant is the index entry of a local endpoint without record.
func (p *Plane) vacant(local netip.AddrPort) uint32 {
	if p.isMedia(local) {
		return bpf.IndexEmpty
	}
	return bpf.IndexOutside
}

// setIndex stores an index entry. Media addresses and slots were checked before, so that it cannot fail.
func (p *Plane) setIndex(local netip.AddrPort, value uint32) {
	if err := p.maps.SetIndex(local, value); err != nil {
		p.logger.Error("set index", "local", local, "err", err)
	}
}
