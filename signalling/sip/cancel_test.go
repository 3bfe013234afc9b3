package sip

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// ring brings the usual call to the point where the PBX has the INVITE.
func (r *rig) ring() (phone, pbx *peer, inv text) {
	r.t.Helper()
	phone, pbx = r.phone(), r.pbx()
	phone.send(phone.inviteText("z9hG4bKx", 1, "", description("198.51.100.20", 4000)))
	phone.expect("100")
	return phone, pbx, pbx.expect("INVITE")
}

func (p *peer) cancel(extra string) {
	p.send(p.requestVia("z9hG4bKx", "CANCEL", "sip:1000@"+p.to.String(), "<sip:alice@example.com>;tag=a1", "<sip:1000@example.com>", callID, 1, extra, ""))
}

func TestCancel(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		pbx.answer(inv, 180, "b1", pbx.contactLine(), "")
		phone.expect("180")
		phone.cancel("Reason: SIP;cause=200;text=\"Call completed elsewhere\"\n")
		phone.expect("200 CANCEL")
		if res := phone.expect("487 INVITE"); res.tag("To") != "b1" {
			t.Errorf("487 of another dialog:\n%s", res)
		}
		cancel := pbx.expect("CANCEL")
		if cancel.branch() != inv.branch() || cancel.uri() != inv.uri() || cancel.cseq() != inv.cseq() || cancel.get("To") != inv.get("To") ||
			!strings.Contains(cancel.get("Reason"), "elsewhere") || len(cancel.all("Via")) != 1 {
			t.Errorf("CANCEL:\n%s", cancel)
		}
		synctest.Wait()
		if r.relay.Len() != 0 {
			t.Error("the session outlives the CANCEL")
		}
		pbx.answer(cancel, 200, "b1", "", "")
		pbx.answer(inv, 487, "b1", "", "")
		pbx.expect("ACK")
		synctest.Wait()
		if r.srv.Len() != 0 {
			t.Error("the call outlives the 487")
		}
	})
}

func TestCancelIsHeldBack(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		phone.cancel("")
		phone.expect("200 CANCEL")
		phone.expect("487 INVITE")
		pbx.silent(400 * time.Millisecond)
		pbx.answer(inv, 100, "", "", "")
		cancel := pbx.expect("CANCEL")
		pbx.answer(cancel, 200, "b1", "", "")
		pbx.answer(inv, 487, "b1", "", "")
		pbx.expect("ACK")
	})
}

func TestCancelNobodyAnswers(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx, _ := r.ring()
		phone.cancel("")
		phone.expect("200 CANCEL")
		for {
			select {
			case d := <-pbx.conn.in:
				if m := text(d.b); !m.is("INVITE") {
					t.Fatalf("got:\n%s", m)
				}
				continue
			case <-time.After(time.Minute):
			}
			break
		}
		if r.srv.Len() != 0 {
			t.Error("the call is left")
		}
	})
}

// TestCancelCrossesAnswer: the 2xx comes after the CANCEL went out, so leg B gets ACK and BYE, the caller its 487.
func TestCancelCrossesAnswer(t *testing.T) {
	for _, early := range []bool{false, true} {
		rigged(t, nil, func(r *rig) {
			phone, pbx, inv := r.ring()
			if early {
				pbx.answer(inv, 180, "b1", pbx.contactLine(), "")
				phone.expect("180")
			}
			phone.cancel("")
			phone.expect("200 CANCEL")
			phone.expect("487 INVITE")
			if early {
				pbx.answer(pbx.expect("CANCEL"), 200, "b1", "", "")
			}
			ok := func() {
				pbx.answer(inv, 200, "b1", pbx.contactLine()+"Record-Route: <sip:10.9.0.2:5060;lr;x=2>, <sip:10.9.0.8;lr>\n", description("10.9.0.2", 6000))
			}
			ok()
			ack := pbx.expect("ACK")
			bye := pbx.expect("BYE")
			for _, m := range []text{ack, bye} {
				if m.uri() != "sip:me@10.9.0.2:5060" || m.tag("To") != "b1" || m.tag("From") != "a1" || strings.Join(m.all("Route"), ", ") != "<sip:10.9.0.8;lr>, <sip:10.9.0.2:5060;lr;x=2>" {
					t.Errorf("on leg B:\n%s", m)
				}
			}
			if bye.cseq() != ack.cseq()+1 {
				t.Errorf("BYE has CSeq %d after %d", bye.cseq(), ack.cseq())
			}
			ok()
			if again := pbx.expect("ACK"); again != ack {
				t.Errorf("second ACK differs:\n%s", again)
			}
			pbx.answer(bye, 200, "", "", "")
			phone.drainFailure()
		})
	}
}

// drainFailure takes repetitions of a failure that the test does not acknowledge.
func (p *peer) drainFailure() {
	time.Sleep(time.Minute)
	synctest.Wait()
	p.r.drain()
}

func TestCancelTooLate(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.phone.cancel("")
		s.phone.expect("481 CANCEL") // another branch: no such transaction
		s.hangUp()
	})
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		a := phone.uac(phone.expect("200"))
		phone.cancel("")
		phone.expect("200 CANCEL")
		a.send("ACK", "", "")
		pbx.expect("ACK")
		a.send("BYE", "", "")
		pbx.answer(pbx.expect("BYE"), 200, "", "", "")
		phone.expect("200 BYE")
	})
}

func TestForks(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		pbx.answer(inv, 183, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		one := phone.expect("183")
		pbx.answer(inv, 183, "b2", "Contact: <sip:two@10.9.0.2>\n", description("10.9.0.2", 6100))
		two := phone.expect("183")
		if one.tag("To") != "b1" || two.tag("To") != "b2" || one.port() != two.port() {
			t.Errorf("two forks:\n%s\n%s", one, two)
		}
		pbx.answer(inv, 200, "b2", "Contact: <sip:two@10.9.0.2>\n", description("10.9.0.2", 6100))
		res := phone.expect("200")
		if res.tag("To") != "b2" || res.port() != one.port() {
			t.Errorf("2xx of the second fork:\n%s", res)
		}
		a := phone.uac(res)
		a.send("ACK", "", "")
		if ack := pbx.expect("ACK"); ack.uri() != "sip:two@10.9.0.2" || ack.tag("To") != "b2" {
			t.Errorf("ACK:\n%s", ack)
		}
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		ack := pbx.expect("ACK")
		bye := pbx.expect("BYE")
		if ack.tag("To") != "b1" || bye.tag("To") != "b1" || bye.uri() != "sip:me@10.9.0.2:5060" {
			t.Errorf("the losing fork:\n%s\n%s", ack, bye)
		}
		pbx.answer(bye, 200, "", "", "")
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		pbx.expect("ACK")
		// The session listens to the winner.
		s := r.relay.Sessions()[0]
		if got := s.Party("b").Streams[0].Remote.Signalled.Port(); got != 6100 {
			t.Errorf("media goes to port %d", got)
		}
		a.send("BYE", "", "")
		if b := pbx.expect("BYE"); b.tag("To") != "b2" {
			t.Errorf("BYE:\n%s", b)
		} else {
			pbx.answer(b, 200, "", "", "")
		}
		phone.expect("200 BYE")
	})
}

func TestEarlyBye(t *testing.T) {
	t.Run("caller", func(t *testing.T) {
		rigged(t, nil, func(r *rig) {
			phone, pbx, inv := r.ring()
			pbx.answer(inv, 180, "b1", pbx.contactLine(), "")
			a := phone.uac(phone.expect("180"))
			a.send("BYE", "", "")
			phone.expect("200 BYE")
			phone.expect("487")
			pbx.answer(pbx.expect("CANCEL"), 200, "", "", "")
			pbx.answer(inv, 487, "b1", "", "")
			pbx.expect("ACK")
		})
	})
	t.Run("callee", func(t *testing.T) {
		rigged(t, nil, func(r *rig) {
			phone, pbx, inv := r.ring()
			pbx.answer(inv, 180, "b1", pbx.contactLine(), "")
			phone.expect("180")
			pbx.uas(inv, "b1").send("BYE", "", "")
			pbx.expect("200 BYE")
			phone.expect("480")
			pbx.expect("CANCEL")
			pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
			pbx.expect("ACK")
			pbx.until("BYE")
		})
	})
}

// TestAnswerAfterEarlyBye: a fork that hung up while it rang answers nevertheless.
func TestAnswerAfterEarlyBye(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		for _, tag := range []string{"b1", "b2"} {
			pbx.answer(inv, 180, tag, pbx.contactLine(), "")
			phone.expect("180")
		}
		pbx.uas(inv, "b1").send("BYE", "", "")
		pbx.expect("200 BYE")
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		pbx.expect("ACK")
		pbx.answer(pbx.expect("BYE"), 200, "", "", "")
		phone.expect("480")
	})
}
