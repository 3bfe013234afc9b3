package xdp

import (
	"net/netip"
	"sync/atomic"

	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/slowpath"
)

// maxHairpin is how many sessions of ours a packet may pass in a row before it counts as a loop.
const maxHairpin = 3

// outcome is what became of a packet in the slow path. Of a packet with several outputs the lowest counts.
type outcome int

const (
	slowForwarded outcome = iota
	slowForeignRoute
	slowSendFailed
	slowNoDestination
	slowNoSession
	slowNoRight
	slowBlocked
	slowSourceMismatch
	slowMalformedRTP
	slowHeld
	slowLoop
	outcomes
)

type outcomeText struct{ name, verdict, help string }

func (o outcome) text() outcomeText {
	return [outcomes]outcomeText{
		slowForwarded:      {"slow_forwarded", bpf.VerdictForward, "relayed by the slow path"},
		slowNoSession:      {"slow_no_session", bpf.VerdictDrop, "reached the slow path, but no session has this port"},
		slowNoRight:        {"slow_no_right", bpf.VerdictDrop, "slow path: this box has no right to forward now"},
		slowBlocked:        {"slow_blocked", bpf.VerdictDrop, "slow path: the stream is blocked"},
		slowSourceMismatch: {"slow_source_mismatch", bpf.VerdictDrop, "slow path: not from the party's address and port"},
		slowMalformedRTP:   {"slow_malformed_rtp", bpf.VerdictDrop, "slow path: neither RTP nor RTCP on a stream that carries only these"},
		slowHeld:           {"slow_held", bpf.VerdictDrop, "slow path: the stream is on hold"},
		slowNoDestination:  {"slow_no_destination", bpf.VerdictDrop, "slow path: the other side's address is not known yet"},
		slowForeignRoute:   {"slow_foreign_route", bpf.VerdictDrop, "slow path: the route to the party leaves by an interface of another network"},
		slowLoop:           {"slow_loop", bpf.VerdictDrop, "slow path: sessions send to one another in a circle"},
		slowSendFailed:     {"slow_send_failed", bpf.VerdictDrop, "slow path: the kernel did not take the packet"},
	}[o]
}

// tally counts packets and the bytes of their frames.
type tally struct{ packets, bytes atomic.Uint64 }

// leg is one way out for a packet.
type leg struct {
	from, to netip.AddrPort
	foreign  bool
}

// handle is the slow path's handler. It may be called concurrently.
func (p *Plane) handle(packet slowpath.Packet) {
	if p.selftest.took(packet.Payload) {
		return
	}
	p.deliver(packet, 0)
}

// deliver relays a packet under the rules that the program applies, and learns where the program may not. Depth is the
// number of our records that it passed already.
func (p *Plane) deliver(packet slowpath.Packet, depth int) {
	kind := classify(packet.Payload)
	for {
		e, legs, learn, why := p.judge(packet, kind)
		if learn {
			switch accepted, found := p.claimed(e, packet.Remote); {
			case accepted:
				// The answer to this packet must find the way back.
				p.noticed(packet.Local)
				continue
			case !found:
				continue // replaced meanwhile: judge it by the new record
			}
			why = slowSourceMismatch
		}
		if why == slowForwarded {
			why = p.send(e, legs, packet, kind, depth)
		}
		p.count(why, packet)
		return
	}
}

// judge decides on a packet: whose it is, where it goes, whether its source must be learnt first, or why it is dropped.
func (p *Plane) judge(packet slowpath.Packet, kind payload) (e *endpoint, legs []leg, learn bool, why outcome) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return nil, nil, false, slowNoSession
	}
	e = p.endpoints[packet.Local]
	switch {
	case e == nil || e.session == nil:
		return nil, nil, false, slowNoSession
	case bpf.Now() >= p.maps.Role().ForwardUntil:
		return nil, nil, false, slowNoRight
	case e.record.Action == relay.Block:
		return nil, nil, false, slowBlocked
	}
	switch learnt := p.learnt(e); {
	case learnt.IsValid() && learnt.Addr() != packet.Remote.Addr(), !e.record.Accept.Contains(packet.Remote.Addr()):
		return nil, nil, false, slowSourceMismatch
	case e.record.CheckRTP && kind != payloadSTUN && !kind.isRTP(e.record.Component):
		return nil, nil, false, slowMalformedRTP
	case !learnt.IsValid():
		// STUN says who asks, not where media will come from.
		learn = kind != payloadSTUN
	case learnt != packet.Remote:
		return nil, nil, false, slowSourceMismatch
	}
	if learn || e.record.Action == relay.Hold {
		return e, nil, learn, slowForwarded
	}
	return e, p.legs(e), false, slowForwarded
}

// legs says where packets of e go now.
func (p *Plane) legs(e *endpoint) []leg {
	legs := make([]leg, 0, 1)
	for i := range e.record.Outputs {
		out := &e.record.Outputs[i]
		l := leg{from: out.From, to: out.To}
		if sink := e.session.endpoint(out.From); sink != nil {
			if learnt := p.learnt(sink); learnt.IsValid() {
				l.to = learnt
			}
		}
		if !l.to.IsValid() {
			continue
		}
		if t := e.targets[i]; t != nil {
			l.foreign = p.hops.foreign(t)
		}
		legs = append(legs, l)
	}
	return legs
}

// send sends an accepted packet on every leg. It is forwarded if any took it.
func (p *Plane) send(e *endpoint, legs []leg, packet slowpath.Packet, kind payload, depth int) outcome {
	result := slowNoDestination
	switch {
	case e.record.Action == relay.Hold:
		result = slowHeld
	case depth > maxHairpin:
		result, legs = slowLoop, nil
	}
	for _, l := range legs {
		switch {
		case p.isMedia(l.to):
			// The party is behind another record of ours: no need to go through the kernel, where a circle would turn for ever.
			onward := slowpath.Packet{Local: l.to, Remote: l.from, TOS: packet.TOS, Payload: packet.Payload}
			p.deliver(onward, depth+1)
			result = slowForwarded
		case l.foreign:
			result = min(result, slowForeignRoute)
		case p.slow.Send(l.from, l.to, packet.TOS, packet.Payload) != nil:
			result = min(result, slowSendFailed)
		default:
			result = slowForwarded
		}
	}
	e.counts().saw(bpf.Now(), p.whyPunted(e, kind), len(packet.Payload), result == slowForwarded)
	return result
}

// whyPunted names the reason for which the program most likely gave a packet to the slow path: what it noted last.
func (p *Plane) whyPunted(e *endpoint, kind payload) string {
	if kind == payloadSTUN {
		return bpf.ReasonPuntSTUN.String()
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return "other"
	}
	if why := p.maps.Flow(e.flow).PuntReason; why != bpf.ReasonNone {
		return why.String()
	}
	return "other" // it did not come through the program: from this host, or an interface of no network
}

// frameOverhead is what stands before the payload of a UDP packet over IPv4 and Ethernet.
const frameOverhead = 14 + 20 + 8

func (p *Plane) count(o outcome, packet slowpath.Packet) {
	p.tallies[o].packets.Add(1)
	p.tallies[o].bytes.Add(uint64(len(packet.Payload) + frameOverhead))
}
