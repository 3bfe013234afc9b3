package sip

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// reInvite runs a re-INVITE from one dialog to the peer of the other, with the answer and ACK.
func (d *dialog) reInvite(to *peer, tag, offer, reply string) (asSeen, back text) {
	d.p.r.t.Helper()
	d.send("INVITE", d.p.contactLine(), offer)
	d.p.expect("100")
	asSeen = to.expect("INVITE")
	to.answer(asSeen, 200, "", to.contactLine(), reply)
	back = d.p.expect("200 INVITE")
	d.send("ACK", "", "")
	to.expect("ACK")
	return asSeen, back
}

func TestHold(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		port, portA := s.inviteB.port(), s.answerA.port()
		for _, hold := range []string{"sendonly", "inactive", "recvonly", "sendrecv"} {
			seen, back := s.a.reInvite(s.pbx, "b1", description("198.51.100.20", 4000, "a="+hold), description("10.9.0.2", 6000, "a=recvonly"))
			if seen.port() != port || back.port() != portA {
				t.Errorf("ports moved to %d and %d", seen.port(), back.port())
			}
			if !strings.Contains(seen.body(), "a="+hold+"\r\n") || seen.uri() != "sip:me@10.9.0.2:5060" || seen.tag("To") != "b1" {
				t.Errorf("re-INVITE on leg B:\n%s", seen)
			}
			seen, back = s.b.reInvite(s.phone, "", description("10.9.0.2", 6000), description("198.51.100.20", 4000))
			if seen.port() != portA || back.port() != port || seen.uri() != "sip:me@198.51.100.20:5060" || seen.cseq() != s.b.cseq {
				t.Errorf("re-INVITE on leg A:\n%s", seen)
			}
		}
		if r.srv.Len() != 1 || r.relay.Len() != 1 {
			t.Error("hold made another call")
		}
		s.hangUp()
	})
}

// TestRefusedReInvite: what a refused offer changed in the media is taken back.
func TestRefusedReInvite(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		remote := func() string {
			return r.relay.Sessions()[0].Party("a").Streams[0].Remote.RTP.String()
		}
		for _, status := range []string{"488", "491", "407"} {
			s.a.send("INVITE", s.phone.contactLine(), description("198.51.100.20", 4400))
			s.phone.expect("100")
			inv := s.pbx.expect("INVITE")
			if got := remote(); got != "198.51.100.20:4400" {
				t.Errorf("during the offer media goes to %s", got)
			}
			code := map[string]int{"488": 488, "491": 491, "407": 407}[status]
			s.pbx.answer(inv, code, "", "", "")
			s.pbx.expect("ACK")
			res := s.phone.expect(status)
			s.phone.send(s.phone.requestVia(res.branch(), "ACK", s.a.target, s.a.local, s.a.to, s.a.callID, s.a.invite, "", ""))
			synctest.Wait()
			if got := remote(); got != "198.51.100.20:4000" {
				t.Errorf("after %s media goes to %s", status, got)
			}
		}
		s.hangUp()
	})
}

func TestGlare(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.a.send("INVITE", s.phone.contactLine(), description("198.51.100.20", 4000))
		s.phone.expect("100")
		inv := s.pbx.expect("INVITE")
		s.b.send("INVITE", s.pbx.contactLine(), description("10.9.0.2", 6000))
		if res := s.pbx.expect("491"); res.tag("To") != "a1" {
			t.Errorf("491:\n%s", res)
		}
		s.pbx.send(s.pbx.requestVia("z9hG4bK-10.9.0.2-5060-1", "ACK", s.b.target, s.b.local, s.b.to, s.b.callID, s.b.invite, "", ""))
		s.a.send("INVITE", s.phone.contactLine(), description("198.51.100.20", 4000))
		if res := s.phone.expect("500"); res.get("Retry-After") == "" {
			t.Errorf("second INVITE of the same side:\n%s", res)
		}
		s.b.send("UPDATE", s.pbx.contactLine(), description("10.9.0.2", 6000))
		s.pbx.expect("491 UPDATE")
		s.pbx.answer(inv, 200, "", s.pbx.contactLine(), description("10.9.0.2", 6000))
		s.phone.until("200 INVITE")
		s.a.invite = inv.cseq()
		s.a.send("ACK", "", "")
		s.pbx.expect("ACK")
		s.phone.drainFailure()
		s.hangUp()
	})
}

func TestCancelledReInvite(t *testing.T) {
	for _, c := range []struct {
		name string
		end  int
	}{{"487 from the far side", 487}, {"2xx crosses", 200}, {"no answer", 0}} {
		t.Run(c.name, func(t *testing.T) {
			rigged(t, nil, func(r *rig) {
				s := r.establish()
				s.a.cseq++
				s.phone.send(s.phone.requestVia("z9hG4bKre", "INVITE", s.a.target, s.a.local, s.a.to, callID, 2, s.phone.contactLine(), description("198.51.100.20", 4400)))
				s.phone.expect("100")
				inv := s.pbx.expect("INVITE")
				s.pbx.answer(inv, 180, "", s.pbx.contactLine(), "")
				s.phone.expect("180")
				s.phone.send(s.phone.requestVia("z9hG4bKre", "CANCEL", s.a.target, s.a.local, s.a.to, callID, 2, "", ""))
				s.phone.expect("200 CANCEL")
				cancel := s.pbx.expect("CANCEL")
				if cancel.branch() != inv.branch() || cancel.uri() != inv.uri() {
					t.Errorf("CANCEL:\n%s", cancel)
				}
				if c.end != 0 {
					s.pbx.answer(cancel, 200, "", "", "")
					s.pbx.answer(inv, c.end, "", s.pbx.contactLine(), "")
				}
				if c.end == 200 {
					s.phone.expect("200 INVITE")
					s.a.invite = 2
					s.a.send("ACK", "", "")
					s.pbx.expect("ACK")
				} else {
					s.phone.until("487")
					s.phone.send(s.phone.requestVia("z9hG4bKre", "ACK", s.a.target, s.a.local, s.a.to, callID, 2, "", ""))
				}
				want := "198.51.100.20:4000"
				if c.end == 200 {
					want = "198.51.100.20:4400"
				}
				synctest.Wait()
				if got := r.relay.Sessions()[0].Party("a").Streams[0].Remote.RTP.String(); got != want {
					t.Errorf("media goes to %s, want %s", got, want)
				}
				r.drain()
				s.a.send("BYE", "", "")
				s.pbx.answer(s.pbx.until("BYE"), 200, "", "", "")
				s.phone.until("200 BYE")
			})
		})
	}
}

func TestOtherRequests(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		for _, method := range []string{"INFO", "OPTIONS", "MESSAGE", "REFER", "NOTIFY", "SUBSCRIBE", "UPDATE", "NewMethod"} {
			for _, way := range []struct {
				from *dialog
				to   *peer
			}{{s.a, s.pbx}, {s.b, s.phone}} {
				way.from.send(method, "Refer-To: <sip:x@y;lr?Replaces=abc>\nX-Info: "+method+"\n", "")
				m := way.to.expect(method)
				if m.get("X-Info") != method || m.cseq() != way.from.cseq || m.get("Refer-To") != "<sip:x@y;lr?Replaces=abc>" {
					t.Errorf("%s:\n%s", method, m)
				}
				way.to.answer(m, 202, "", "X-Back: yes\n", "")
				if res := way.from.p.expect("202 " + method); res.get("X-Back") != "yes" {
					t.Errorf("response to %s:\n%s", method, res)
				}
			}
		}
		s.hangUp()
	})
}

func TestTimeoutOfOtherRequest(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.a.send("INFO", "", "")
		start, n := time.Now(), 0
		for {
			select {
			case <-s.pbx.conn.in:
				n++
				continue
			case <-time.After(time.Minute):
			}
			break
		}
		// E doubles up to T2, F ends it after 32 s: 0, 0.5, 1.5, 3.5, then every 4 s.
		if n != 11 || time.Since(start) != 31500*time.Millisecond+time.Minute {
			t.Errorf("%d copies, the last after %v", n, time.Since(start)-time.Minute)
		}
		if len(s.phone.conn.in) != 0 {
			t.Error("RFC 4320 forbids a late 408")
		}
		s.hangUp()
	})
}

func TestSequenceOutOfOrder(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.a.send("INFO", "", "")
		s.pbx.answer(s.pbx.expect("INFO"), 200, "", "", "")
		s.phone.expect("200")
		s.phone.send(s.a.text("INFO", s.a.cseq, "", ""))
		s.phone.expect("500")
		s.phone.send(s.a.text("INFO", 1, "", ""))
		s.phone.expect("500")
		s.hangUp()
	})
}

func TestWrongDialog(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		for name, edit := range map[string]func(*dialog){
			"Call-ID":     func(d *dialog) { d.callID = "other" },
			"local tag":   func(d *dialog) { d.local = strings.Replace(d.local, "a1", "a9", 1) },
			"remote tag":  func(d *dialog) { d.to = strings.Replace(d.to, "b1", "b9", 1) },
			"other token": func(d *dialog) { d.target = s.b.target },
		} {
			d := *s.a
			d.cseq = 50
			edit(&d)
			d.send("BYE", "", "")
			if res := s.phone.expect("481"); res.cseq() != 51 {
				t.Errorf("%s: %s", name, res)
			}
		}
		s.hangUp()
	})
}

func TestLateOffer(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		phone.send(phone.inviteText("z9hG4bKx", 1, "", ""))
		phone.expect("100")
		inv := pbx.expect("INVITE")
		if inv.body() != "" {
			t.Errorf("INVITE:\n%s", inv)
		}
		pbx.answer(inv, 180, "b1", pbx.contactLine(), "")
		phone.expect("180")
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		res := phone.expect("200")
		if !strings.Contains(res.body(), "c=IN IP4 198.51.100.1") {
			t.Errorf("late offer:\n%s", res)
		}
		a := phone.uac(res)
		a.send("ACK", "", description("198.51.100.20", 4000))
		ack := pbx.expect("ACK")
		if !strings.Contains(ack.body(), "c=IN IP4 10.9.0.1") {
			t.Errorf("answer in ACK:\n%s", ack)
		}
		session := r.relay.Sessions()[0]
		if a, b := session.Party("a").Streams[0].Remote.RTP.Port(), session.Party("b").Streams[0].Remote.RTP.Port(); a != 4000 || b != 6000 {
			t.Errorf("media goes to %d and %d", a, b)
		}
		a.send("BYE", "", "")
		pbx.answer(pbx.expect("BYE"), 200, "", "", "")
		phone.expect("200 BYE")
	})
}

func TestLateOfferWithoutAnswer(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		phone.send(phone.inviteText("z9hG4bKx", 1, "", ""))
		phone.expect("100")
		inv := pbx.expect("INVITE")
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		a := phone.uac(phone.expect("200"))
		a.send("ACK", "", "v=0\nm=nonsense\n")
		pbx.expect("ACK")
		pbx.answer(pbx.expect("BYE"), 200, "", "", "")
		phone.answer(phone.expect("BYE"), 200, "", "", "")
	})
}

func TestReliableProvisional(t *testing.T) {
	t.Run("answer in 183", func(t *testing.T) {
		rigged(t, nil, func(r *rig) {
			phone, pbx, inv := r.ring()
			rel := "Require: 100rel\nRSeq: 77\n" + pbx.contactLine()
			pbx.answer(inv, 183, "b1", rel, description("10.9.0.2", 6000))
			res := phone.expect("183")
			pbx.answer(inv, 183, "b1", rel, description("10.9.0.2", 6000)) // repeated until PRACK
			if again := phone.expect("183"); again != res {
				t.Errorf("repetition differs:\n%s", again)
			}
			a := phone.uac(res)
			a.send("PRACK", "RAck: 77 1 INVITE\n", "")
			prack := pbx.expect("PRACK")
			if prack.get("RAck") != "77 1 INVITE" || prack.cseq() != 2 || prack.tag("To") != "b1" {
				t.Errorf("PRACK:\n%s", prack)
			}
			pbx.answer(prack, 200, "", "", "")
			phone.expect("200 PRACK")
			// An early UPDATE from each side.
			a.send("UPDATE", phone.contactLine(), description("198.51.100.20", 4200))
			up := pbx.expect("UPDATE")
			pbx.answer(up, 200, "", pbx.contactLine(), description("10.9.0.2", 6000))
			phone.expect("200 UPDATE")
			b := pbx.uas(inv, "b1")
			b.send("UPDATE", pbx.contactLine(), description("10.9.0.2", 6200))
			phone.answer(phone.expect("UPDATE"), 200, "", phone.contactLine(), description("198.51.100.20", 4200))
			pbx.expect("200 UPDATE")
			pbx.answer(inv, 200, "b1", pbx.contactLine(), "")
			a.invite = 1
			phone.expect("200 INVITE")
			a.send("ACK", "", "")
			pbx.expect("ACK")
			session := r.relay.Sessions()[0]
			if a, b := session.Party("a").Streams[0].Remote.RTP.Port(), session.Party("b").Streams[0].Remote.RTP.Port(); a != 4200 || b != 6200 {
				t.Errorf("media goes to %d and %d", a, b)
			}
			a.send("BYE", "", "")
			pbx.answer(pbx.expect("BYE"), 200, "", "", "")
			phone.expect("200 BYE")
		})
	})
	t.Run("offer in 183, answer in PRACK", func(t *testing.T) {
		rigged(t, nil, func(r *rig) {
			phone, pbx := r.phone(), r.pbx()
			phone.send(phone.inviteText("z9hG4bKx", 1, "", ""))
			phone.expect("100")
			inv := pbx.expect("INVITE")
			pbx.answer(inv, 183, "b1", "Require: 100rel\nRSeq: 1\n"+pbx.contactLine(), description("10.9.0.2", 6000))
			a := phone.uac(phone.expect("183"))
			a.send("PRACK", "RAck: 1 1 INVITE\n", description("198.51.100.20", 4000))
			prack := pbx.expect("PRACK")
			if !strings.Contains(prack.body(), "c=IN IP4 10.9.0.1") {
				t.Errorf("PRACK:\n%s", prack)
			}
			pbx.answer(prack, 200, "", "", "")
			phone.expect("200 PRACK")
			pbx.answer(inv, 200, "b1", pbx.contactLine(), "")
			phone.expect("200 INVITE")
			a.send("ACK", "", "")
			pbx.expect("ACK")
			if port := r.relay.Sessions()[0].Party("a").Streams[0].Remote.RTP.Port(); port != 4000 {
				t.Errorf("media goes to %d", port)
			}
			a.send("BYE", "", "")
			pbx.answer(pbx.expect("BYE"), 200, "", "", "")
			phone.expect("200 BYE")
		})
	})
}

// TestSequenceOffset: after a request of our own on leg B, everything on that leg counts one higher, RAck included.
func TestSequenceOffset(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		synctest.Wait()
		for _, sh := range r.srv.shards {
			sh.do(func() {
				for _, c := range sh.calls {
					raw, to := c.legs[callee].ownRequest(&c.Forks[0], "OPTIONS", newBranch(c.home), "")
					c.legs[callee].ln.send(raw, to)
				}
			})
		}
		if own := s.pbx.expect("OPTIONS"); own.cseq() != 2 {
			t.Errorf("our own request:\n%s", own)
		}
		s.a.send("INVITE", s.phone.contactLine(), description("198.51.100.20", 4000))
		s.phone.expect("100")
		inv := s.pbx.expect("INVITE")
		s.pbx.answer(inv, 183, "", "RSeq: 9\nRequire: 100rel\n", "")
		if res := s.phone.expect("183"); inv.cseq() != 3 || res.cseq() != 2 {
			t.Errorf("re-INVITE has CSeq %d, its 183 %d", inv.cseq(), res.cseq())
		}
		s.a.send("PRACK", "RAck: 9 2 INVITE\n", "")
		prack := s.pbx.expect("PRACK")
		if prack.cseq() != 4 || prack.get("RAck") != "9 3 INVITE" {
			t.Errorf("PRACK:\n%s", prack)
		}
		s.pbx.answer(prack, 200, "", "", "")
		if res := s.phone.expect("200 PRACK"); res.cseq() != 3 {
			t.Errorf("200:\n%s", res)
		}
		s.pbx.answer(inv, 200, "", s.pbx.contactLine(), description("10.9.0.2", 6000))
		s.phone.expect("200 INVITE")
		s.a.send("ACK", "", "")
		if ack := s.pbx.expect("ACK"); ack.cseq() != 3 {
			t.Errorf("ACK has CSeq %d", ack.cseq())
		}
		s.b.send("INFO", "", "")
		info := s.phone.expect("INFO")
		if info.cseq() != s.b.cseq {
			t.Errorf("the other direction moved to %d", info.cseq())
		}
		s.phone.answer(info, 200, "", "", "")
		s.pbx.expect("200")
		s.hangUp()
	})
}

func TestRecordRoute(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		proxyA, proxyB := r.peer(ap("198.51.100.40:5070"), outsideAddr), r.peer(ap("10.9.0.2:5090"), insideAddr)
		phone.send(phone.inviteText("z9hG4bKx", 1, "Route: <sip:198.51.100.1;lr>\nRecord-Route: <sip:198.51.100.40:5070;lr;n=1>\nRecord-Route: \"P\" <sip:198.51.100.41;lr>, <sip:198.51.100.42;lr>\n", description("198.51.100.20", 4000)))
		phone.expect("100")
		inv := pbx.expect("INVITE")
		if len(inv.all("Route"))+len(inv.all("Record-Route")) != 0 {
			t.Errorf("routes of leg A on leg B:\n%s", inv)
		}
		pbx.answer(inv, 200, "b1", "Record-Route: <sip:10.9.0.2:5099;lr>, <sip:10.9.0.2:5090;lr>\n"+pbx.contactLine(), description("10.9.0.2", 6000))
		res := phone.expect("200")
		if got := strings.Join(res.all("Record-Route"), " | "); got != `<sip:198.51.100.40:5070;lr;n=1> | "P" <sip:198.51.100.41;lr>, <sip:198.51.100.42;lr>` {
			t.Errorf("Record-Route of the 2xx: %s", got)
		}
		a := phone.uac(res)
		a.routes = nil
		a.send("ACK", "", "")
		ack := proxyB.expect("ACK")
		if got := strings.Join(ack.all("Route"), " | "); got != "<sip:10.9.0.2:5090;lr> | <sip:10.9.0.2:5099;lr>" || ack.uri() != "sip:me@10.9.0.2:5060" {
			t.Errorf("ACK on leg B:\n%s", ack)
		}
		b := pbx.uas(inv, "b1")
		b.send("INFO", "", "")
		info := proxyA.expect("INFO")
		if got := strings.Join(info.all("Route"), " | "); got != `<sip:198.51.100.40:5070;lr;n=1> | "P" <sip:198.51.100.41;lr> | <sip:198.51.100.42;lr>` || info.uri() != "sip:me@198.51.100.20:5060" {
			t.Errorf("INFO on leg A:\n%s", info)
		}
		proxyA.answer(info, 200, "", "", "")
		pbx.expect("200")
		a.send("BYE", "", "")
		proxyB.answer(proxyB.expect("BYE"), 200, "", "", "")
		phone.expect("200 BYE")
	})
}

func TestStrictRouter(t *testing.T) {
	uri, routes, next := routed("sip:t@h", []string{"<sip:strict@1.2.3.4:5070>", "<sip:b;lr>"})
	if uri != "sip:strict@1.2.3.4:5070" || strings.Join(routes, " ") != "<sip:b;lr> <sip:t@h>" || next != uri {
		t.Errorf("%s %v %s", uri, routes, next)
	}
}

// TestNAT: where requests within a dialog and responses go.
func TestNAT(t *testing.T) {
	source := ap("198.51.100.20:31234")
	at := func(mode NATMode) *trunk {
		return &trunk{Trunk: Trunk{NAT: mode, Peer: phoneAddr, Sources: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}}
	}
	for _, c := range []struct {
		name, uri string
		mode      NATMode
		want      string
	}{
		{"private Contact", "sip:x@192.168.7.2:5060", NATAuto, "198.51.100.20:31234"},
		{"public Contact of a stranger", "sip:x@203.0.113.9", NATAuto, "198.51.100.20:31234"},
		{"the source itself", "sip:x@198.51.100.20:5062", NATAuto, "198.51.100.20:5062"},
		{"another of the trunk's addresses", "sip:x@198.51.100.77", NATAuto, "198.51.100.77:5060"},
		{"host name", "sip:x@pbx.example.com", NATAuto, "198.51.100.20:31234"},
		{"unspecified address", "sip:x@0.0.0.0", NATAuto, "198.51.100.20:31234"},
		{"always", "sip:x@198.51.100.77", NATOn, "198.51.100.20:31234"},
		{"never", "sip:x@192.168.7.2", NATOff, "192.168.7.2:5060"},
		{"never, but a host name", "sip:x@pbx.example.com", NATOff, "198.51.100.20:31234"},
		{"IPv6", "sip:x@[2001:db8::1]:5070", NATOff, "[2001:db8::1]:5070"},
	} {
		if got := at(c.mode).hop(c.uri, source).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		name, via string
		mode      NATMode
		want      string
	}{
		{"rport", "SIP/2.0/UDP 192.168.7.2;rport;branch=x", NATAuto, "198.51.100.20:31234"},
		{"behind NAT without rport", "SIP/2.0/UDP 192.168.7.2:5060;branch=x", NATAuto, "198.51.100.20:31234"},
		{"own address, other port", "SIP/2.0/UDP 198.51.100.20:5062;branch=x", NATAuto, "198.51.100.20:5062"},
		{"own address, no port", "SIP/2.0/UDP 198.51.100.20;branch=x", NATAuto, "198.51.100.20:5060"},
		{"always", "SIP/2.0/UDP 198.51.100.20:5062;branch=x", NATOn, "198.51.100.20:31234"},
		{"never", "SIP/2.0/UDP 192.168.7.2:5062;branch=x", NATOff, "198.51.100.20:5062"},
	} {
		m := &message{raw: crlf("OPTIONS sip:x SIP/2.0\nVia: " + c.via + "\n\n"), from: source, trunk: at(c.mode)}
		if err := m.index(); err != nil {
			t.Fatal(err)
		}
		m.topVia, _ = m.parseTopVia()
		if got := m.replyTo().String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestPhoneBehindNAT(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.peer(ap("198.51.100.20:31234"), outsideAddr), r.pbx()
		inside := func(s string) string {
			return strings.NewReplacer("UDP 198.51.100.20:31234", "UDP 192.168.7.2", "me@198.51.100.20:31234", "me@192.168.7.2").Replace(s)
		}
		phone.send(inside(phone.inviteText("z9hG4bKx", 1, "", description("192.168.7.2", 4000))))
		trying := phone.expect("100")
		if got := trying.get("Via"); got != "SIP/2.0/UDP 192.168.7.2;branch=z9hG4bKx;rport=31234;received=198.51.100.20" {
			t.Errorf("Via: %s", got)
		}
		inv := pbx.expect("INVITE")
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		a := phone.uac(phone.expect("200"))
		a.send("ACK", "", "")
		pbx.expect("ACK")
		b := pbx.uas(inv, "b1")
		b.send("BYE", "", "")
		bye := phone.expect("BYE")
		if bye.uri() != "sip:me@192.168.7.2" {
			t.Errorf("BYE to %s", bye.uri())
		}
		phone.answer(bye, 200, "", "", "")
		pbx.expect("200 BYE")
	})
}

// TestPartyThatIgnoresContact: a request without token is found by its identifiers, if they name one leg only.
func TestPartyThatIgnoresContact(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.a.target, s.b.target = "sip:1000@198.51.100.1:5060", "sip:alice@10.9.0.1"
		s.a.reInvite(s.pbx, "", description("198.51.100.20", 4000), description("10.9.0.2", 6000))
		s.b.send("INFO", "", "")
		s.phone.answer(s.phone.expect("INFO"), 200, "", "", "")
		s.pbx.expect("200")
		// Its own identifiers from the wrong network lead nowhere.
		wrong := r.peer(ap("10.9.0.2:5099"), insideAddr)
		d := *s.a
		d.p = wrong
		d.send("BYE", "", "")
		wrong.expect("481")
		s.hangUp()
		if r.counter("tokenless_requests") == 0 {
			t.Error("not counted")
		}
	})
}

// TestAmbiguousParty: identifiers that name two legs lead to neither; the token decides.
func TestAmbiguousParty(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		var a [2]*dialog
		for i := range a {
			inv := phone.inviteText([]string{"z9hG4bKx", "z9hG4bKy"}[i], 1, "", description("198.51.100.20", 4000))
			phone.send(strings.Replace(inv, "sip:1000@198", []string{"sip:1000@198", "sip:1001@198"}[i], 1))
			phone.expect("100")
			pbx.answer(pbx.expect("INVITE"), 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
			a[i] = phone.uac(phone.expect("200"))
			a[i].send("ACK", "", "")
			pbx.expect("ACK")
		}
		tokenless := *a[0]
		tokenless.target = "sip:1000@198.51.100.1"
		tokenless.send("INFO", "", "")
		phone.expect("481")
		for i := range a {
			a[i].send("BYE", "", "")
			pbx.answer(pbx.expect("BYE"), 200, "", "", "")
			phone.expect("200 BYE")
		}
	})
}
