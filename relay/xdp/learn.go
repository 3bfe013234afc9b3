package xdp

import (
	"net/netip"
	"time"

	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/relay"
)

// eventBuffer is how many events wait for their reader before further ones are lost.
const eventBuffer = 4096

// tell brings the records that send to the party behind e in line with what was learnt there. Usually the program has
// done so itself. The lock is held.
func (p *Plane) tell(e *endpoint) error {
	learnt := p.learnt(e)
	if !learnt.IsValid() {
		return nil
	}
	// What only the slow path learnt must get into the record, too.
	again := p.maps.ReadRecord(e.slot).Accept != bpf.AcceptAddr
	for _, sender := range e.session.endpoints {
		for i := range sender.record.Outputs {
			switch t := sender.targets[i]; {
			case sender.record.Outputs[i].From != e.record.Local:
			case t == nil || t.key.to != learnt.Addr():
				again = true
			case len(sender.record.Outputs) == 1 && p.maps.ReadRecord(sender.slot).To.Port() != learnt.Port():
				p.maps.SetToPort(sender.slot, learnt.Port())
			}
		}
	}
	if again {
		return p.install(&session{id: e.session.id, generation: e.session.generation}, e.session.records())
	}
	if !e.told.Swap(true) {
		delete(p.untold, e)
		p.publish(relay.Event{
			Kind: relay.EventLearnt, Session: e.session.id, Local: e.record.Local, Remote: learnt, Time: time.Now(),
		})
	}
	return nil
}

// noticed follows up what was learnt at a local endpoint.
func (p *Plane) noticed(local netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.endpoints[local]
	if p.closed || e == nil || e.session == nil || e.told.Load() {
		return
	}
	if err := p.tell(e); err != nil {
		p.logger.Error("use learnt endpoint", "session", e.session.id, "local", local, "err", err)
	}
}

// notice looks for what was learnt without an event: events are bounded and may be lost.
func (p *Plane) notice() {
	p.mu.RLock()
	var found []netip.AddrPort
	if !p.closed {
		for e := range p.untold {
			if p.learnt(e).IsValid() {
				found = append(found, e.record.Local)
			}
		}
	}
	p.mu.RUnlock()
	for _, local := range found {
		p.noticed(local)
	}
}

// claimed learns remote at e for the slow path, and reports whether remote is what is learnt there now. An endpoint that
// was replaced meanwhile is reported as not found.
func (p *Plane) claimed(e *endpoint, remote netip.AddrPort) (accepted, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.endpoints[e.record.Local] != e {
		return false, false
	}
	if learnt := p.learnt(e); learnt.IsValid() {
		return learnt == remote, true
	}
	if !p.maps.Latch(e.flow, e.record.Window, remote.Port()) {
		// The program was first.
		return p.learnt(e) == remote, true
	}
	if p.maps.ReadRecord(e.slot).Accept != bpf.AcceptAddr {
		e.claim.Store(&remote)
	}
	return true, true
}

// rewrite writes the sessions anew whose next hops are others than their records say.
func (p *Plane) rewrite() {
	p.mu.RLock()
	var sessions []*session
	if !p.closed {
		for _, s := range p.sessions {
			sessions = append(sessions, s)
		}
	}
	p.mu.RUnlock()
	for _, s := range sessions {
		p.mu.Lock()
		if !p.closed && p.sessions[s.id] == s && p.moved(s) {
			if err := p.install(&session{id: s.id, generation: s.generation}, s.records()); err != nil {
				p.logger.Error("move session to another next hop", "session", s.id, "err", err)
				p.unmoved.Store(true)
			}
		}
		p.mu.Unlock()
	}
}

func (p *Plane) moved(s *session) bool {
	for _, e := range s.endpoints {
		if len(e.targets) == 1 && p.maps.ReadRecord(e.slot).NextHop != p.hops.index(e.targets[0]) {
			return true
		}
	}
	return false
}

// publish offers an event to the reader of Events.
func (p *Plane) publish(e relay.Event) {
	select {
	case p.events <- e:
	default:
		p.eventsLost.Add(1)
	}
}
