package xdp

import (
	"net/netip"
	"sync/atomic"

	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/relay"
)

// draft is one endpoint of a session that is being written.
type draft struct {
	endpoint *endpoint // the new one
	former   *endpoint // what it replaces, if anything
	learnt   netip.AddrPort
	// forget says that the flow's latch holds something that does not count under the new record although the window is
	// the same.
	forget bool
}

// drafts prepares the endpoints of a session, but for their slots. It takes references of the targets.
func (p *Plane) drafts(s *session, records []relay.Record) []draft {
	list := make([]draft, len(records))
	for i := range records {
		d := &list[i]
		d.endpoint = &endpoint{session: s, record: records[i], targets: make([]*target, len(records[i].Outputs))}
		if d.former = p.endpoints[records[i].Local]; d.former != nil {
			d.endpoint.flow = d.former.flow
			d.endpoint.slow = d.former.slow
			d.learnt, d.forget = p.carry(d.former, &records[i])
			d.endpoint.told.Store(d.learnt.IsValid() && d.former.told.Load())
			d.endpoint.settling = d.learnt.IsValid() && (d.former.settling || d.former.claim.Load() != nil)
		} else {
			d.endpoint.slow = new(atomic.Pointer[slowCounts])
		}
	}
	for i := range list {
		e := list[i].endpoint
		for j := range e.targets {
			out := &e.record.Outputs[j]
			if to := destination(list, out); to.Addr().IsValid() {
				e.targets[j] = p.hops.acquire(targetKey{out.Network, out.From.Addr(), to.Addr()}, p.formerHop(list[i].former))
			}
		}
	}
	return list
}

// formerHop is the next hop that an earlier process's record used, which is taken over if possible.
func (p *Plane) formerHop(former *endpoint) uint32 {
	if former == nil || p.adopted.Load() {
		return 0
	}
	return p.maps.ReadRecord(former.slot).NextHop
}

func (p *Plane) discard(list []draft) {
	for i := range list {
		p.releaseTargets(list[i].endpoint)
	}
}

func (p *Plane) releaseTargets(e *endpoint) {
	for _, t := range e.targets {
		if t != nil {
			p.hops.release(t)
		}
	}
}

// carry says what was learnt at an endpoint that still counts under a new record for it: in the same window, from an
// address that is still accepted.
func (p *Plane) carry(former *endpoint, record *relay.Record) (learnt netip.AddrPort, forget bool) {
	state := p.maps.Flow(former.flow)
	if !state.Learnt || state.Window != record.Window {
		return netip.AddrPort{}, false
	}
	learnt = p.learntWith(former, state)
	if !learnt.IsValid() || !record.Accept.Contains(learnt.Addr()) {
		return netip.AddrPort{}, true
	}
	return learnt, false
}

// learnt returns the endpoint that was learnt at e, zero if none was.
func (p *Plane) learnt(e *endpoint) netip.AddrPort {
	return p.learntWith(e, p.maps.Flow(e.flow))
}

// learntWith takes the port from the flow's latch and the address from the record that was in force. The maps are the
// truth, so that it outlives the process.
func (p *Plane) learntWith(e *endpoint, state bpf.FlowState) netip.AddrPort {
	record := p.maps.ReadRecord(e.slot)
	switch {
	case !state.Learnt || state.Window != record.Window:
		return netip.AddrPort{}
	case record.Accept == bpf.AcceptAddr:
		return netip.AddrPortFrom(record.Source.Unmap(), state.Port)
	}
	if claim := e.claim.Load(); claim != nil {
		return *claim
	}
	return netip.AddrPort{}
}

// destination says where an output leads now: to what was learnt at the endpoint from which it leaves, else where
// signalling said, else to the only address that may be learnt there, with a port of 0, so that learning only has to
// fill in the port.
func destination(list []draft, out *relay.Output) netip.AddrPort {
	for i := range list {
		d := &list[i]
		if d.endpoint.record.Local != out.From {
			continue
		}
		if d.learnt.IsValid() {
			return d.learnt
		}
		if single, ok := d.endpoint.record.Accept.Single(); ok && !out.To.IsValid() {
			return netip.AddrPortFrom(single.Unmap(), 0)
		}
		break
	}
	return out.To
}

// encode derives what the program reads. The slots of the whole list must be known.
func (p *Plane) encode(list []draft, d *draft) bpf.Record {
	record := &d.endpoint.record
	wire := bpf.Record{
		Generation: d.endpoint.session.generation,
		Action:     action(record),
		Window:     record.Window,
		Flow:       d.endpoint.flow,
	}
	if d.endpoint.settling && wire.Action == bpf.ActionForward {
		wire.Action = bpf.ActionPunt
	}
	if record.CheckRTP {
		wire.Flags |= bpf.FlagCheckRTP
	}
	if record.Component == relay.RTCP {
		wire.Flags |= bpf.FlagRTCP
	}
	if record.Capture {
		wire.Flags |= bpf.FlagCapture
	}
	single, isSingle := record.Accept.Single()
	switch {
	case d.learnt.IsValid():
		wire.Accept, wire.Source = bpf.AcceptAddr, d.learnt.Addr()
	case isSingle:
		wire.Accept, wire.Source = bpf.AcceptAddr, single.Unmap()
	case record.Accept.Any || len(record.Accept.Nets) > 0:
		wire.Accept = bpf.AcceptOpen
	}
	if len(record.Outputs) == 1 {
		out := &record.Outputs[0]
		wire.FromPort = out.From.Port()
		wire.To = destination(list, out)
		wire.NextHop = p.hops.index(d.endpoint.targets[0])
	}
	for i := range list {
		if e := list[i].endpoint; len(e.record.Outputs) == 1 && e.sends(record.Local) {
			wire.Peer = e.slot
			break
		}
	}
	return wire
}

// action is what the program does. It cannot send one packet to several destinations.
func action(record *relay.Record) bpf.Action {
	switch record.Action {
	case relay.Hold:
		return bpf.ActionHold
	case relay.Block:
		return bpf.ActionBlock
	case relay.Punt:
		return bpf.ActionPunt
	}
	if len(record.Outputs) > 1 {
		return bpf.ActionPunt
	}
	return bpf.ActionForward
}
