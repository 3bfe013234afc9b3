package relaytest

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/tandem-relay/tandem/relay"
)

// Scenario is one story that every data plane tells in the same way, as far as receivers, flows, events and reasons of
// drops can show.
type Scenario struct {
	Name   string
	Reason string
	Play   func(*Stage)
}

// ef is Expedited Forwarding (RFC 3246), the usual class of voice, in the upper six bits of the TOS octet.
const ef = 46 << 2

// Scenarios returns all scenarios. They take less than 32 local ports each.
func Scenarios() []Scenario {
	return []Scenario{
		{"both ways", "the plain call", bothWays},
		{"traffic class", "DSCP and ECN are the receiver's to see, all 256 values of them", trafficClass},
		{"sizes", "from an empty payload to one that comes in fragments", sizes},
		{"rtcp", "RTCP has a record, and learns a port, of its own", rtcp},
		{"hairpin", "both parties may be in one network", hairpin},
		{"order", "no packet is lost or overtaken while an endpoint is learnt", order},
		{"first packet decides", "inside the window the first valid packet decides, and media goes there from then on", firstPacket},
		{"unroutable", "nothing is sent to a party before its address was learnt", unroutable},
		{"other address", "an address outside the accept set is dropped and teaches nothing", otherAddress},
		{"other port", "after learning, another port of the same address is a stranger", otherPort},
		{"set", "of a set the first member to send is the party", set},
		{"any", "whoever is first is the party, and the only one", anyone},
		{"accept nothing", "an empty accept set accepts nothing", acceptNothing},
		{"rtp check", "what is neither RTP nor RTCP by its first octets is dropped and teaches nothing", rtpCheck},
		{"opaque", "without the check everything passes", opaque},
		{"stun", "a connectivity check from the party passes, and teaches nothing", stun},
		{"hold", "a held stream is dropped, is alive, learns, and resumes at once", hold},
		{"block", "a blocked stream is dropped, whoever sends", block},
		{"punt", "the slow path forwards as well", punt},
		{"same window", "a change that keeps the window keeps what was learnt", sameWindow},
		{"new port", "an address may stay while its port changes: media goes to the new one at once", newPort},
		{"new window", "media goes to the new address at once; the old source is a stranger", newWindow},
		{"window returns", "what was learnt is gone with its window or its address, for good", windowReturns},
		{"several outputs", "one source may have several sinks", severalOutputs},
		{"own session", "a party may be behind another record of ours", ownSession},
		{"circle", "records that send to one another in a circle do not turn for ever", circle},
		{"no output", "without outputs packets are dropped", noOutput},
		{"generations", "a stale change is refused, an equal one harmless", generations},
		{"removal", "a session that ended forwards nothing", removal},
	}
}

// From is the accept set of one address.
func From(addr netip.Addr) relay.AcceptSet {
	return relay.AcceptSet{Nets: []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}}
}

// call is a plain call: a caller outside, a callee inside, a record for each direction.
type call struct {
	*Stage
	caller, callee   *Party
	outside, inside  netip.AddrPort // local endpoints
	fromOut, fromIns relay.Record
}

func newCall(s *Stage) *call {
	c := &call{
		Stage: s, caller: s.Party(Outside, 0), callee: s.Party(Inside, 0),
		outside: s.Local(Outside, 0), inside: s.Local(Inside, 0),
	}
	c.fromOut = c.record(Outside, c.outside, c.caller, c.inside, c.callee)
	c.fromIns = c.record(Inside, c.inside, c.callee, c.outside, c.caller)
	return c
}

// record forwards what from sends to local, out of leaves, to to.
func (c *call) record(side string, local netip.AddrPort, from *Party, leaves netip.AddrPort, to *Party) relay.Record {
	other := Inside
	if side == Inside {
		other = Outside
	}
	return relay.Record{
		Local: local, Network: side, Action: relay.Forward, CheckRTP: true, Accept: From(from.Addr.Addr()), Window: 1,
		Outputs: []relay.Output{{From: leaves, To: to.Addr, Network: other}},
	}
}

// install applies the call's two records.
func (c *call) install() {
	c.t.Helper()
	c.Apply(c.fromOut, c.fromIns)
}

// out sends a packet from the caller and requires it at the callee; in, the other way.
func (c *call) out(sequence uint16) { c.t.Helper(); c.passes(c.caller, c.callee, sequence) }
func (c *call) in(sequence uint16)  { c.t.Helper(); c.passes(c.callee, c.caller, sequence) }

// passes sends a packet from a party to its local endpoint and requires it at another.
func (c *call) passes(from, to *Party, sequence uint16) {
	c.t.Helper()
	at, leaves := c.outside, c.inside
	if from.Addr.Addr() == c.callee.Addr.Addr() {
		at, leaves = leaves, at
	}
	payload := RTP(sequence, 160)
	from.Send(at, ef, payload)
	to.Receive(leaves, ef, payload)
}

func bothWays(s *Stage) {
	c := newCall(s)
	c.install()
	for i := range uint16(5) {
		c.out(i)
		c.in(100 + i)
	}
	s.Learnt(c.outside, c.caller.Addr)
	s.Learnt(c.inside, c.callee.Addr)
	s.Carried(c.outside, 5, 5*172)
	s.Carried(c.inside, 5, 5*172)
	f := s.Flow(c.outside)
	if f.FirstSeen.IsZero() || f.LastSeen.Before(f.FirstSeen) {
		s.t.Errorf("first seen %v, last seen %v", f.FirstSeen, f.LastSeen)
	}
}

func trafficClass(s *Stage) {
	c := newCall(s)
	c.install()
	for tos := range 256 {
		payload := RTP(uint16(tos), 20)
		c.caller.Send(c.outside, uint8(tos), payload)
		c.callee.Receive(c.inside, uint8(tos), payload)
	}
}

func sizes(s *Stage) {
	c := newCall(s)
	c.fromOut.CheckRTP = false
	c.install()
	octets := 0
	all := []int{12, 0, 1, 172, 1460, 1472, 1473, 4000, 60000, 172}
	for i, size := range all {
		payload := RTP(uint16(i), size)[:size]
		c.caller.Send(c.outside, ef, payload)
		c.callee.Receive(c.inside, ef, payload)
		octets += size
	}
	s.Carried(c.outside, len(all), octets)
}

func rtcp(s *Stage) {
	c := newCall(s)
	control, peer := s.Party(Outside, 0), s.Party(Inside, 0)
	outControl, inControl := s.Local(Outside, 1), s.Local(Inside, 1)
	fromOut := c.record(Outside, outControl, control, inControl, peer)
	fromIns := c.record(Inside, inControl, peer, outControl, control)
	fromOut.Component, fromIns.Component = relay.RTCP, relay.RTCP
	s.Apply(c.fromOut, fromOut, c.fromIns, fromIns)
	c.out(1)
	control.Send(outControl, 0, RTCP())
	peer.Receive(inControl, 0, RTCP())
	peer.Send(inControl, 0, RTCP())
	control.Receive(outControl, 0, RTCP())
	s.Learnt(outControl, control.Addr)
	// Whatever its packet type, 8 octets of version 2 are RTCP where only RTCP arrives.
	app := []byte{0x80, 100, 0, 1, 0, 0, 0, 0}
	control.Send(outControl, 0, app)
	peer.Receive(inControl, 0, app)
	// RTCP multiplexed with RTP (RFC 5761) is known by its packet type.
	c.caller.Send(c.outside, 0, RTCP())
	c.callee.Receive(c.inside, 0, RTCP())
}

func hairpin(s *Stage) {
	a, b := s.Party(Outside, 0), s.Party(Outside, 1)
	atA, atB := s.Local(Outside, 0), s.Local(Outside, 2)
	record := func(local netip.AddrPort, from *Party, leaves netip.AddrPort, to *Party) relay.Record {
		return relay.Record{
			Local: local, Network: Outside, Action: relay.Forward, CheckRTP: true, Accept: From(from.Addr.Addr()),
			Outputs: []relay.Output{{From: leaves, To: to.Addr, Network: Outside}},
		}
	}
	s.Apply(record(atA, a, atB, b), record(atB, b, atA, a))
	for i := range uint16(3) {
		a.Send(atA, ef, RTP(i, 160))
		b.Receive(atB, ef, RTP(i, 160))
		b.Send(atB, ef, RTP(i, 160))
		a.Receive(atA, ef, RTP(i, 160))
	}
}

func order(s *Stage) {
	c := newCall(s)
	for i, accept := range []relay.AcceptSet{From(c.caller.Addr.Addr()), {Any: true}} {
		c.fromOut.Accept, c.fromOut.Window = accept, uint16(i)
		c.install()
		const burst = 100
		for n := range uint16(burst) {
			c.caller.Send(c.outside, 0, RTP(n, 160))
		}
		for n := range uint16(burst) {
			if err := c.callee.receive(c.inside, 0, RTP(n, 160)); err != nil {
				s.t.Fatalf("accept %+v: packet %d: %v", accept, n, err)
			}
		}
	}
}

func rtpCheck(s *Stage) {
	c := newCall(s)
	nat := s.Party(Outside, 0)
	c.install()
	for name, payload := range notRTP() {
		nat.Send(c.outside, 0, payload)
		s.Dropped("malformed_rtp", 1)
		if learnt := s.Flow(c.outside).Learnt; learnt.IsValid() {
			s.t.Errorf("%s taught %s", name, learnt)
		}
	}
	c.out(1)
	for range notRTP() {
		c.caller.Send(c.outside, 0, []byte{1, 2, 3, 4})
	}
	s.Dropped("malformed_rtp", len(notRTP()))
	for _, shortest := range [][]byte{RTP(2, 0), RTCP(), {0xbf, 223, 0, 1, 0, 0, 0, 0}, {0x80, 192, 0, 1, 0, 0, 0, 0}} {
		c.caller.Send(c.outside, 0, shortest)
		c.callee.Receive(c.inside, 0, shortest)
	}
}

func opaque(s *Stage) {
	c := newCall(s)
	c.fromOut.CheckRTP = false
	c.install()
	for _, payload := range notRTP() {
		c.caller.Send(c.outside, ef, payload)
		c.callee.Receive(c.inside, ef, payload)
	}
	s.Learnt(c.outside, c.caller.Addr)
}

func stun(s *Stage) {
	c := newCall(s)
	nat := s.Party(Outside, 0)
	c.install()
	nat.Send(c.outside, ef, STUN())
	c.callee.Receive(c.inside, ef, STUN())
	s.Learnt(c.outside, netip.AddrPort{})
	c.in(1) // still where signalling says
	c.out(2)
	c.caller.Send(c.outside, 0, STUN())
	c.callee.Receive(c.inside, 0, STUN())
	nat.Send(c.outside, 0, STUN())
	s.Dropped("source_mismatch", 1)
}

func hold(s *Stage) {
	c := newCall(s)
	nat := s.Party(Outside, 0)
	c.fromOut.Action = relay.Hold
	c.install()
	nat.Send(c.outside, 0, RTP(1, 160))
	nat.Send(c.outside, 0, RTP(2, 160))
	s.Dropped("held", 2)
	s.Learnt(c.outside, nat.Addr)
	s.Carried(c.outside, 0, 0)
	if s.Flow(c.outside).LastSeen.IsZero() {
		s.t.Error("a held stream shows no life")
	}
	c.caller.Send(c.outside, 0, RTP(3, 160))
	s.Dropped("source_mismatch", 1)
	c.passes(c.callee, nat, 4) // the other direction is not held
	c.fromOut.Action = relay.Forward
	c.install()
	c.passes(nat, c.callee, 5)
}

func block(s *Stage) {
	c := newCall(s)
	c.fromOut.Action = relay.Block
	c.install()
	c.caller.Send(c.outside, 0, RTP(1, 160))
	c.caller.Send(c.outside, 0, []byte{1})
	s.Party(Outside, 1).Send(c.outside, 0, RTP(2, 160))
	s.Dropped("blocked", 3)
	if f := s.Flow(c.outside); f.Learnt.IsValid() || !f.LastSeen.IsZero() {
		s.t.Errorf("a blocked stream left traces: %+v", f)
	}
	c.in(3)
}

func punt(s *Stage) {
	c := newCall(s)
	c.fromOut.Action = relay.Punt
	stranger := s.Party(Outside, 1)
	c.install()
	c.out(1)
	c.in(2)
	s.Learnt(c.outside, c.caller.Addr)
	stranger.Send(c.outside, 0, RTP(1, 160))
	s.Dropped("source_mismatch", 1)
	c.caller.Send(c.outside, 0, []byte{1, 2, 3})
	s.Dropped("malformed_rtp", 1)
	c.out(3)
	s.Carried(c.outside, 2, 2*172)
}

func severalOutputs(s *Stage) {
	c := newCall(s)
	recorder, monitor := s.Party(Inside, 1), s.Party(Outside, 2)
	silent := s.Local(Outside, 2) // its party is not known yet
	c.fromOut.Outputs = append(c.fromOut.Outputs,
		relay.Output{From: s.Local(Inside, 2), To: recorder.Addr, Network: Inside},
		relay.Output{From: s.Local(Outside, 4), To: monitor.Addr, Network: Outside},
		relay.Output{From: silent, Network: Outside},
	)
	receiving := func(side string, local netip.AddrPort, party *Party) relay.Record {
		return relay.Record{Local: local, Network: side, Action: relay.Forward, CheckRTP: true, Accept: From(party.Addr.Addr())}
	}
	s.Apply(c.fromOut, c.fromIns,
		receiving(Inside, s.Local(Inside, 2), recorder),
		receiving(Outside, s.Local(Outside, 4), monitor),
		receiving(Outside, silent, monitor))
	for i := range uint16(3) {
		c.out(i)
		recorder.Receive(s.Local(Inside, 2), ef, RTP(i, 160))
		monitor.Receive(s.Local(Outside, 4), ef, RTP(i, 160))
	}
	c.in(5)
	s.Carried(c.outside, 3, 3*172)
}

func ownSession(s *Stage) {
	c := newCall(s)
	near, far := s.Local(Outside, 2), s.Local(Outside, 4) // between the two halves
	us := From(near.Addr())
	record := func(side string, local netip.AddrPort, accept relay.AcceptSet, leaves, to netip.AddrPort, network string) relay.Record {
		return relay.Record{
			Local: local, Network: side, Action: relay.Forward, CheckRTP: true, Accept: accept,
			Outputs: []relay.Output{{From: leaves, To: to, Network: network}},
		}
	}
	s.Apply(
		record(Outside, c.outside, From(c.caller.Addr.Addr()), near, far, Outside),
		record(Outside, far, us, c.inside, c.callee.Addr, Inside),
		record(Inside, c.inside, From(c.callee.Addr.Addr()), far, near, Outside),
		record(Outside, near, us, c.outside, c.caller.Addr, Outside),
	)
	for i := range uint16(3) {
		c.out(i)
		c.in(i)
	}
	s.Learnt(far, near)
	s.Carried(far, 3, 3*172)
}

func circle(s *Stage) {
	c := newCall(s)
	from, to := s.Local(Outside, 2), s.Local(Outside, 4)
	turning := []relay.Output{{From: from, To: to, Network: Outside}}
	c.fromOut.Outputs = turning
	s.Apply(c.fromOut, c.fromIns, relay.Record{
		Local: to, Network: Outside, Action: relay.Forward, CheckRTP: true, Accept: From(from.Addr()), Outputs: turning,
	})
	for i := range uint16(3) {
		c.caller.Send(c.outside, 0, RTP(i, 160))
	}
	s.Dropped("loop", 3)
	c.in(1)
}

func noOutput(s *Stage) {
	c := newCall(s)
	c.fromOut.Outputs = nil
	c.install()
	c.caller.Send(c.outside, 0, RTP(1, 160))
	s.Dropped("no_destination", 1)
	s.Learnt(c.outside, c.caller.Addr)
	c.in(2)
}

func generations(s *Stage) {
	c := newCall(s)
	records := []relay.Record{c.fromOut, c.fromIns}
	for _, step := range []struct {
		generation uint32
		want       error
	}{{5, nil}, {5, nil}, {4, relay.ErrStale}, {6, nil}, {5, relay.ErrStale}} {
		if err := s.ApplyAt(step.generation, records...); !errors.Is(err, step.want) {
			s.t.Errorf("generation %d: %v, want %v", step.generation, err, step.want)
		}
		c.out(uint16(step.generation))
		c.in(uint16(step.generation))
	}
	if err := s.ApplyAt(5); !errors.Is(err, relay.ErrStale) {
		s.t.Errorf("stale removal: %v", err)
	}
	c.out(9)
	s.next = 7
}

func removal(s *Stage) {
	c := newCall(s)
	c.install()
	c.out(1)
	c.in(2)
	s.Apply()
	if flows := s.world.Plane().Flows(s.session); flows != nil {
		s.t.Errorf("flows of a session that ended: %+v", flows)
	}
	for i := range uint16(10) {
		c.caller.Send(c.outside, 0, RTP(i, 160))
	}
	// The same ports, another session: nothing of the former one is left.
	former := s.session
	s.session += "-next"
	c.fromOut.Accept = relay.AcceptSet{Any: true}
	c.install()
	s.Learnt(c.outside, netip.AddrPort{})
	s.Carried(c.outside, 0, 0)
	next := s.Party(Outside, 1)
	c.passes(next, c.callee, 3)
	c.passes(c.callee, next, 4)
	if flows := s.world.Plane().Flows(former); flows != nil {
		s.t.Errorf("flows of a session that ended: %s", fmt.Sprint(flows))
	}
}
