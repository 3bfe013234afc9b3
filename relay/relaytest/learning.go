package relaytest

import (
	"net/netip"

	"github.com/tandem-relay/tandem/relay"
)

// The scenarios about who may send and what is learnt.

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
	c.caller.Send(c.outside, 0, []byte{1, 2, 3}) // who it is comes before what it says
	s.Dropped("source_mismatch", 3)
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

func newPort(s *Stage) {
	c := newCall(s)
	c.install()
	c.out(1)
	moved := s.Party(Outside, 0)
	c.fromOut.Window = 2
	c.fromIns.Outputs = []relay.Output{{From: c.outside, To: moved.Addr, Network: Outside}}
	c.install()
	s.Learnt(c.outside, netip.AddrPort{})
	c.passes(c.callee, moved, 2)
	c.passes(moved, c.callee, 3)
	s.Learnt(c.outside, moved.Addr)
	c.caller.Send(c.outside, 0, RTP(4, 160))
	s.Dropped("source_mismatch", 1)
}

func windowReturns(s *Stage) {
	c := newCall(s)
	c.install()
	c.out(1)
	for _, window := range []uint16{2, 1} {
		c.fromOut.Window = window
		c.install()
		s.Learnt(c.outside, netip.AddrPort{})
	}
	accept := c.fromOut.Accept
	c.out(2)
	for _, other := range []relay.AcceptSet{From(s.Party(Outside, 1).Addr.Addr()), accept} {
		c.fromOut.Accept = other
		c.install()
		s.Learnt(c.outside, netip.AddrPort{})
	}
	c.out(3)
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
