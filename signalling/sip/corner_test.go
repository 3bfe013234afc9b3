package sip

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestLateOfferFromCallee: the 2xx of a re-INVITE that the callee sent names the caller's tag, and is repeated like any other.
// The ACK with the answer is the callee's; we do not send one of our own before it.
func TestLateOfferFromCallee(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.b.send("INVITE", s.pbx.contactLine(), "")
		s.pbx.expect("100")
		inv := s.phone.expect("INVITE")
		again := func() {
			s.phone.answer(inv, 200, "", s.phone.contactLine(), description("198.51.100.20", 4000))
		}
		again()
		s.pbx.expect("200 INVITE")
		again()
		s.phone.silent(100 * time.Millisecond)
		s.b.send("ACK", "", description("10.9.0.2", 6000))
		ack := s.phone.expect("ACK")
		if ack.port() != s.answerA.port() {
			t.Errorf("ACK:\n%s", ack)
		}
		again()
		if m := s.phone.expect("ACK"); m != ack {
			t.Errorf("for the 2xx that came again:\n%s", m)
		}
		s.hangUp()
	})
}

// TestCopyOfAnsweredInvite: a copy of the INVITE by another path comes late, and rings nobody a second time.
func TestCopyOfAnsweredInvite(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.phone.send(s.phone.inviteText("z9hG4bKother", 1, "", description("198.51.100.20", 4000)))
		s.phone.expect("482")
		s.phone.drainFailure()
		s.pbx.silent(time.Second)
		r.wantCounter("merged_rejected", 1)
		s.hangUp()
	})
}

// TestInviteAfterFailure: the same INVITE on a new branch after a failure is another attempt, not a copy (RFC 3263 section 4.3).
func TestInviteAfterFailure(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		pbx.answer(inv, 503, "b1", "", "")
		pbx.expect("ACK")
		res := phone.expect("503")
		phone.send(phone.requestVia(res.branch(), "ACK", "sip:1000@198.51.100.1:5060", res.get("From"), res.get("To"), callID, 1, "", ""))
		phone.send(phone.inviteText("z9hG4bKother", 1, "", description("198.51.100.20", 4000)))
		phone.expect("100")
		pbx.answer(pbx.expect("INVITE"), 486, "b2", "", "")
		pbx.expect("ACK")
		phone.expect("486")
		phone.drainFailure()
		r.wantCounter("merged_rejected", 0)
	})
}

// TestNATWithWideSources: a trunk whose sources are the whole Internet does not make every private address reachable.
func TestNATWithWideSources(t *testing.T) {
	source := ap("198.51.100.20:31234")
	for _, c := range []struct{ name, prefix, uri, want string }{
		{"private Contact", "0.0.0.0/0", "sip:x@192.168.7.2", "198.51.100.20:31234"},
		{"Contact behind a carrier's NAT", "0.0.0.0/0", "sip:x@100.64.7.2", "198.51.100.20:31234"},
		{"loopback", "0.0.0.0/0", "sip:x@127.0.0.1", "198.51.100.20:31234"},
		{"public Contact", "0.0.0.0/0", "sip:x@203.0.113.9", "203.0.113.9:5060"},
		{"private sources", "192.168.7.0/24", "sip:x@192.168.7.2", "192.168.7.2:5060"},
	} {
		tr := &trunk{Trunk: Trunk{NAT: NATAuto, Peer: phoneAddr, Sources: []netip.Prefix{netip.MustParsePrefix(c.prefix)}}}
		if got := tr.hop(c.uri, source).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestUnaskedDescriptionInACK: offer and answer are done, and what an ACK brings besides cannot end the call.
func TestUnaskedDescriptionInACK(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		a := phone.uac(phone.expect("200"))
		a.send("ACK", "", description("198.51.100.20", 4000, "m=video 5000 RTP/AVP 96"))
		if ack := pbx.expect("ACK"); ack.body() != "" {
			t.Errorf("ACK:\n%s", ack)
		}
		phone.silent(time.Second)
		if calls := r.srv.Calls(); len(calls) != 1 || calls[0].State != StateTalking {
			t.Errorf("calls: %+v", calls)
		}
		r.restart()
		a.send("BYE", "", "")
		pbx.answer(pbx.expect("BYE"), 200, "", "", "")
		phone.expect("200 BYE")
	})
}

// TestTimestamp: 100 repeats the header, other responses of ours do not (RFC 3261 section 8.2.6.1).
func TestTimestamp(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		phone.send(phone.inviteText("z9hG4bKx", 1, "tImEsTaMp:  54.2\n", description("198.51.100.20", 4000)))
		if m := phone.expect("100"); !strings.Contains(string(m), "\r\ntImEsTaMp:  54.2\r\n") {
			t.Errorf("100:\n%s", m)
		}
		inv := pbx.expect("INVITE")
		if inv.get("Timestamp") != "54.2" {
			t.Errorf("INVITE:\n%s", inv)
		}
		pbx.answer(inv, 180, "b1", "", "")
		phone.expect("180")
		phone.send(strings.Replace(phone.inviteText("z9hG4bKx", 1, "", ""), "INVITE", "CANCEL", 2))
		phone.expect("200 CANCEL")
		if m := phone.expect("487"); m.get("Timestamp") != "" {
			t.Errorf("487:\n%s", m)
		}
		pbx.answer(pbx.expect("CANCEL"), 200, "", "", "")
		pbx.answer(inv, 487, "b1", "", "")
		pbx.expect("ACK")
		phone.drainFailure()
	})
}

// TestRepeatedAnswerAfterRestart: the ACK was lost, or the 2xx came while nobody was there. It is acknowledged in the place of the
// other party, because whoever hears no ACK hangs up.
func TestRepeatedAnswerAfterRestart(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.b.send("INVITE", s.pbx.contactLine(), description("10.9.0.2", 6000))
		s.pbx.expect("100")
		inv := s.phone.expect("INVITE")
		r.restart()
		for _, c := range []struct {
			p   *peer
			inv text
			tag string
		}{{s.pbx, s.inviteB, "b1"}, {s.phone, inv, ""}} {
			c.p.answer(c.inv, 200, c.tag, c.p.contactLine(), "")
			ack := c.p.expect("ACK")
			if ack.uri() != "sip:me@"+c.p.conn.addr.String() || ack.cseq() != c.inv.cseq() || ack.tag("From") != c.inv.tag("From") ||
				ack.tag("To") == "" || ack.branch() == c.inv.branch() {
				t.Errorf("ACK:\n%s", ack)
			}
		}
		s.pbx.answer(s.inviteB, 200, "b2", s.pbx.contactLine(), "") // of another fork
		s.pbx.answer(s.inviteB, 486, "b1", "", "")
		s.pbx.silent(time.Second)
		s.phone.answer(s.inviteB, 200, "b1", s.phone.contactLine(), "") // from the wrong side
		s.phone.silent(time.Second)
		r.wantCounter("stray_responses", 3)
		s.hangUp()
	})
}
