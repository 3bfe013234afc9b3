package relaytest

import (
	"encoding/binary"
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
		{"new window", "media goes to the new address at once; the old source is a stranger", newWindow},
		{"several outputs", "one source may have several sinks", severalOutputs},
		{"no output", "without outputs packets are dropped", noOutput},
		{"generations", "a stale change is refused, an equal one harmless", generations},
		{"removal", "a session that ended forwards nothing", removal},
	}
}

// RTP makes an RTP packet of version 2 with a payload of size octets (RFC 3550 section 5.1).
func RTP(sequence uint16, size int) []byte {
	b := make([]byte, 12+size)
	b[0] = 0x80
	binary.BigEndian.PutUint16(b[2:], sequence)
	binary.BigEndian.PutUint32(b[4:], uint32(sequence)*160)
	binary.BigEndian.PutUint32(b[8:], 0x7a9de301)
	for i := range size {
		b[12+i] = byte(int(sequence) + i*7)
	}
	return b
}

// RTCP makes an empty receiver report (RFC 3550 section 6.4.2).
func RTCP() []byte { return []byte{0x80, 201, 0, 1, 0x7a, 0x9d, 0xe3, 0x01} }

// STUN makes a binding request without attributes (RFC 8489 section 5).
func STUN() []byte {
	b := make([]byte, 20)
	b[1] = 1
	binary.BigEndian.PutUint32(b[4:], 0x2112a442)
	copy(b[8:], "transactions")
	return b
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

func firstPacket(s *Stage) {
	c := newCall(s)
	nat := s.Party(Outside, 0) // the same host, another port than the signalled one
	c.install()
	c.in(1) // goes where signalling says
	s.Learnt(c.outside, netip.AddrPort{})
	nat.Send(c.outside, 0, RTP(2, 160))
	c.callee.Receive(c.inside, 0, RTP(2, 160))
	s.Learnt(c.outside, nat.Addr)
	c.callee.Send(c.inside, 0, RTP(3, 160))
	nat.Receive(c.outside, 0, RTP(3, 160)) // goes where media comes from
}

func unroutable(s *Stage) {
	c := newCall(s)
	c.fromIns.Outputs[0].To = netip.AddrPort{}
	c.install()
	for i := range uint16(3) {
		c.callee.Send(c.inside, 0, RTP(i, 160))
	}
	s.Dropped("no_destination", 3)
	s.Learnt(c.inside, c.callee.Addr)
	s.Carried(c.inside, 0, 0)
	c.out(1)
	c.in(2)
}

func otherAddress(s *Stage) {
	c := newCall(s)
	stranger := s.Party(Outside, 1)
	c.install()
	for _, moment := range []string{"before", "after"} {
		for i := range uint16(5) {
			stranger.Send(c.outside, 0, RTP(i, 160))
			stranger.Send(c.outside, 0, STUN())
		}
		s.Dropped("source_mismatch", 10)
		if f := s.Flow(c.outside); moment == "before" && (f.Learnt.IsValid() || !f.FirstSeen.IsZero()) {
			s.t.Errorf("a stranger left traces: %+v", f)
		}
		c.in(1)
		c.out(2)
	}
}

func otherPort(s *Stage) {
	c := newCall(s)
	second := s.Party(Outside, 0)
	c.install()
	c.out(1)
	for i := range uint16(5) {
		second.Send(c.outside, 0, RTP(i, 160))
		second.Send(c.outside, 0, STUN())
	}
	s.Dropped("source_mismatch", 10)
	c.out(2)
	c.in(3)
	s.Learnt(c.outside, c.caller.Addr)
}

func set(s *Stage) {
	c := newCall(s)
	member, outsider := s.Party(Outside, 1), s.Party(Outside, 2)
	c.fromOut.Accept = relay.AcceptSet{Nets: append(From(c.caller.Addr.Addr()).Nets, From(member.Addr.Addr()).Nets...)}
	c.install()
	outsider.Send(c.outside, 0, RTP(1, 160))
	s.Dropped("source_mismatch", 1)
	for i := range uint16(3) {
		c.passes(member, c.callee, i)
	}
	s.Learnt(c.outside, member.Addr)
	c.passes(c.callee, member, 1)
	c.caller.Send(c.outside, 0, RTP(1, 160))
	outsider.Send(c.outside, 0, RTP(1, 160))
	s.Dropped("source_mismatch", 2)
	c.passes(member, c.callee, 9)
}

func anyone(s *Stage) {
	c := newCall(s)
	first := s.Party(Outside, 2)
	c.fromOut.Accept = relay.AcceptSet{Any: true}
	c.install()
	for i := range uint16(3) {
		c.passes(first, c.callee, i)
	}
	s.Learnt(c.outside, first.Addr)
	c.passes(c.callee, first, 1)
	c.caller.Send(c.outside, 0, RTP(1, 160))
	s.Party(Outside, 2).Send(c.outside, 0, RTP(2, 160))
	s.Dropped("source_mismatch", 2)
	c.passes(first, c.callee, 9)
}

func acceptNothing(s *Stage) {
	c := newCall(s)
	c.fromOut.Accept = relay.AcceptSet{}
	c.install()
	c.caller.Send(c.outside, 0, RTP(1, 160))
	s.Dropped("source_mismatch", 1)
	c.in(1)
}

// notRTP is what no RTP endpoint sends (RFC 7983 section 7), with the reason.
func notRTP() map[string][]byte {
	long := make([]byte, 160)
	first := func(b byte) []byte { return append([]byte{b}, long...) }
	return map[string][]byte{
		"nothing at all":             {},
		"one octet":                  {0x80},
		"RTP cut in its header":      RTP(1, 160)[:11],
		"RTCP cut in its header":     RTCP()[:7],
		"zeros":                      long,
		"DTLS":                       first(22),
		"TURN channel":               first(64),
		"version 1":                  first(0x40),
		"version 3":                  first(0xc0),
		"old STUN without a cookie":  append([]byte{0, 1, 0, 0}, long[:16]...),
		"STUN cut in its header":     STUN()[:19],
		"RTCP types end at 223 here": {0x80, 224, 0, 1, 0, 0, 0, 0},
		"RTCP types begin at 192":    {0x80, 191, 0, 1, 0, 0, 0, 0},
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

func sameWindow(s *Stage) {
	c := newCall(s)
	nat := s.Party(Outside, 0)
	c.install()
	c.passes(nat, c.callee, 1)
	c.install()
	c.passes(c.callee, nat, 2)
	c.caller.Send(c.outside, 0, RTP(3, 160))
	s.Dropped("source_mismatch", 1)
	c.passes(nat, c.callee, 4)
	s.Carried(c.outside, 2, 2*172)
}

func newWindow(s *Stage) {
	c := newCall(s)
	c.install()
	c.out(1)
	moved := s.Party(Outside, 1)
	c.fromOut.Accept, c.fromOut.Window = From(moved.Addr.Addr()), 2
	c.fromIns.Outputs = []relay.Output{{From: c.outside, To: moved.Addr, Network: Outside}}
	c.install()
	s.Learnt(c.outside, netip.AddrPort{})
	c.passes(c.callee, moved, 2)
	c.caller.Send(c.outside, 0, RTP(3, 160))
	s.Dropped("source_mismatch", 1)
	nat := s.Party(Outside, 1)
	c.passes(nat, c.callee, 4)
	s.Learnt(c.outside, nat.Addr)
	c.passes(c.callee, nat, 5)
	moved.Send(c.outside, 0, RTP(6, 160))
	s.Dropped("source_mismatch", 1)
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
