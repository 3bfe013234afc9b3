package sip

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestBasicCall(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		if got, want := s.inviteB.uri(), "sip:1000@10.9.0.2:5060"; got != want {
			t.Errorf("Request-URI on leg B is %s, want %s", got, want)
		}
		if got := s.inviteB.get("Max-Forwards"); got != "69" {
			t.Errorf("Max-Forwards on leg B is %s", got)
		}
		if n := len(s.inviteB.all("Via")); n != 1 {
			t.Errorf("%d Vias on leg B", n)
		}
		if s.inviteB.get("Call-ID") != callID || s.inviteB.tag("From") != "a1" || s.answerA.tag("To") != "b1" {
			t.Errorf("identifiers were not kept:\n%s\n%s", s.inviteB, s.answerA)
		}
		for what, m := range map[string]text{"INVITE": s.inviteB, "200": s.answerA} {
			host := "10.9.0.1"
			if what == "200" {
				host = "198.51.100.1"
			}
			if !strings.Contains(m.body(), "c=IN IP4 "+host) || !strings.HasSuffix(m.contact(), "@"+host+":5060") {
				t.Errorf("%s does not lead to us:\n%s", what, m)
			}
		}
		if s.inviteB.contact() == s.answerA.contact() {
			t.Error("both legs have the same token")
		}
		calls := r.srv.Calls()
		if len(calls) != 1 || calls[0].State != StateTalking || calls[0].Session == "" || calls[0].AnsweredAt.IsZero() {
			t.Errorf("status: %+v", calls)
		}
		if calls[0].From != "sip:alice@example.com" || calls[0].TrunkIn != "phones" || calls[0].TrunkOut != "pbx" {
			t.Errorf("status: %+v", calls)
		}
		s.hangUp()
		synctest.Wait()
		if r.srv.Len() != 0 || r.relay.Len() != 0 {
			t.Error("call or session outlives the BYE")
		}
	})
}

func TestByeFromCallee(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.b.send("BYE", "Reason: Q.850;cause=16\n", "")
		bye := s.phone.expect("BYE")
		if bye.tag("From") != "b1" || bye.tag("To") != "a1" || bye.get("Reason") != "Q.850;cause=16" || bye.cseq() != 101 {
			t.Errorf("BYE on leg A:\n%s", bye)
		}
		s.phone.answer(bye, 200, "", "", "")
		s.pbx.expect("200 BYE")
	})
}

func TestFailurePasses(t *testing.T) {
	for _, status := range []int{302, 404, 486, 503, 603} {
		rigged(t, nil, func(r *rig) {
			phone, pbx := r.phone(), r.pbx()
			phone.send(phone.inviteText("z9hG4bKx", 1, "", description("198.51.100.20", 4000)))
			phone.expect("100")
			inv := pbx.expect("INVITE")
			pbx.answer(inv, status, "b1", "Contact: <sip:other@10.9.0.77>\nX-Why: because\n", "")
			ack := pbx.expect("ACK")
			if ack.branch() != inv.branch() || ack.tag("To") != "b1" || ack.uri() != inv.uri() {
				t.Errorf("ACK of the failure:\n%s", ack)
			}
			res := phone.expect(strconv.Itoa(status))
			if res.get("X-Why") != "because" || res.contact() != "sip:other@10.9.0.77" {
				t.Errorf("failure as it came back:\n%s", res)
			}
			phone.send(phone.requestVia("z9hG4bKx", "ACK", "sip:1000@"+phone.to.String(), "<sip:alice@example.com>;tag=a1", res.get("To"), callID, 1, "", ""))
			phone.silent(time.Minute)
			r.wantCounter("calls_failed", 1)
		})
	}
}

func TestFailureIsRepeatedUntilACK(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		phone.send(phone.inviteText("z9hG4bKx", 1, "", ""))
		phone.expect("100")
		inv := pbx.expect("INVITE")
		pbx.answer(inv, 486, "b1", "", "")
		start := time.Now()
		phone.expect("486")
		var at []time.Duration
		for range 4 {
			phone.expect("486")
			at = append(at, time.Since(start))
		}
		// RFC 3261 section 17.2.1: G doubles from T1 up to T2.
		want := []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond, 3500 * time.Millisecond, 7500 * time.Millisecond}
		for i := range want {
			if at[i] != want[i] {
				t.Errorf("repetition %d after %v, want %v", i, at[i], want[i])
			}
		}
		pbx.expect("ACK")
		pbx.answer(inv, 486, "b1", "", "")
		pbx.expect("ACK")
	})
}

// TestRequestRetransmissions checks timers A and B, and that the caller's repetitions are absorbed.
func TestRequestRetransmissions(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		inv := phone.inviteText("z9hG4bKx", 1, "", description("198.51.100.20", 4000))
		start := time.Now()
		phone.send(inv)
		phone.expect("100")
		phone.send(inv)
		phone.expect("100")
		first := pbx.expect("INVITE")
		for i, want := range []time.Duration{500, 1500, 3500, 7500, 15500, 31500} {
			if again := pbx.expect("INVITE"); again != first {
				t.Errorf("repetition differs:\n%s", again)
			}
			if at := time.Since(start); at != want*time.Millisecond {
				t.Errorf("repetition %d after %v", i, at)
			}
		}
		phone.expect("408")
		if at := time.Since(start); at != 32*time.Second {
			t.Errorf("Timer B after %v", at)
		}
		pbx.silent(time.Minute)
		r.wantCounter("calls_started", 1)
	})
}

func TestAnswerIsRepeatedUntilACK(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		phone.send(phone.inviteText("z9hG4bKx", 1, "", description("198.51.100.20", 4000)))
		phone.expect("100")
		inv := pbx.expect("INVITE")
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		first := phone.expect("200")
		start := time.Now()
		for i, want := range []time.Duration{500, 1500, 3500, 7500, 11500} {
			if again := phone.expect("200"); again != first {
				t.Errorf("repetition differs:\n%s", again)
			}
			if at := time.Since(start); at != want*time.Millisecond {
				t.Errorf("repetition %d after %v", i, at)
			}
		}
		a := phone.uac(first)
		a.send("ACK", "", "")
		ack := pbx.expect("ACK")
		phone.silent(time.Minute)
		// The callee did not hear the ACK: it gets the same one again.
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		pbx.silent(time.Second) // after Timer M nobody answers any more
		_ = ack
		a.send("BYE", "", "")
		pbx.answer(pbx.expect("BYE"), 200, "", "", "")
		phone.expect("200 BYE")
	})
}

func TestACKIsRepeated(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.pbx.answer(s.inviteB, 200, "b1", s.pbx.contactLine(), description("10.9.0.2", 6000))
		ack := s.pbx.expect("ACK")
		if ack.tag("To") != "b1" || ack.cseq() != 1 {
			t.Errorf("ACK:\n%s", ack)
		}
		s.phone.silent(time.Second)
		s.hangUp()
	})
}

func TestNoACK(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		phone.send(phone.inviteText("z9hG4bKx", 1, "", description("198.51.100.20", 4000)))
		inv := pbx.expect("INVITE")
		start := time.Now()
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		ack := pbx.until("ACK")
		if at := time.Since(start); at != 32*time.Second {
			t.Errorf("patience ended after %v", at)
		}
		if ack.tag("To") != "b1" || ack.uri() != "sip:me@10.9.0.2:5060" {
			t.Errorf("ACK in the caller's place:\n%s", ack)
		}
		byeB, byeA := pbx.expect("BYE"), phone.until("BYE")
		if byeB.cseq() != 2 || byeB.tag("To") != "b1" || byeB.tag("From") != "a1" || !strings.Contains(byeB.get("Reason"), "408") {
			t.Errorf("BYE on leg B:\n%s", byeB)
		}
		if byeA.tag("To") != "a1" || byeA.tag("From") != "b1" || byeA.uri() != "sip:me@198.51.100.20:5060" {
			t.Errorf("BYE on leg A:\n%s", byeA)
		}
		pbx.answer(byeB, 200, "", "", "")
		phone.answer(byeA, 200, "", "", "")
		synctest.Wait()
		if r.srv.Len() != 0 {
			t.Error("call is left")
		}
	})
}

func TestByeBeforeACK(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		phone.send(phone.inviteText("z9hG4bKx", 1, "", description("198.51.100.20", 4000)))
		phone.expect("100")
		inv := pbx.expect("INVITE")
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		a := phone.uac(phone.expect("200"))
		a.send("BYE", "", "")
		pbx.expect("ACK")
		bye := pbx.expect("BYE")
		a.send("ACK", "", "")
		pbx.answer(bye, 200, "", "", "")
		phone.expect("200 BYE")
		phone.silent(time.Minute)
	})
}

func TestSetupTimeout(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		phone.send(phone.inviteText("z9hG4bKx", 1, "", description("198.51.100.20", 4000)))
		phone.expect("100")
		inv := pbx.expect("INVITE")
		start := time.Now()
		pbx.answer(inv, 180, "b1", pbx.contactLine(), "")
		phone.expect("180")
		<-time.After(100 * time.Second)
		pbx.answer(inv, 180, "b1", pbx.contactLine(), "")
		phone.expect("180")
		cancel := pbx.until("CANCEL")
		if at := time.Since(start); at != 280*time.Second {
			t.Errorf("Timer C after %v", at)
		}
		phone.expect("408")
		pbx.answer(cancel, 200, "b1", "", "")
		pbx.answer(inv, 487, "b1", "", "")
		pbx.expect("ACK")
	})
}

func TestGlareOfByes(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.a.send("BYE", "", "")
		synctest.Wait()
		s.b.send("BYE", "", "")
		bye := s.pbx.expect("BYE")
		s.pbx.expect("200 BYE")
		s.pbx.answer(bye, 481, "", "", "")
		s.phone.expect("481 BYE")
	})
}

func TestByeWithoutAnswer(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.a.send("BYE", "", "")
		for range 11 { // E: 0.5, 1.5, 3.5, 7.5, ..., 31.5 s
			s.pbx.expect("BYE")
		}
		s.pbx.silent(time.Minute)
	})
}

func TestByeChallenged(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.a.send("BYE", "", "")
		s.pbx.answer(s.pbx.expect("BYE"), 407, "", "Proxy-Authenticate: Digest realm=\"x\"\n", "")
		s.phone.expect("407")
		if r.relay.Len() != 0 {
			t.Error("media goes on after BYE")
		}
		s.a.send("BYE", "Proxy-Authorization: Digest username=\"alice\"\n", "")
		bye := s.pbx.expect("BYE")
		if bye.get("Proxy-Authorization") == "" {
			t.Error("credentials are gone")
		}
		s.pbx.answer(bye, 200, "", "", "")
		s.phone.expect("200 BYE")
	})
}

func TestHangup(t *testing.T) {
	t.Run("established", func(t *testing.T) {
		rigged(t, nil, func(r *rig) {
			s := r.establish()
			if r.srv.Hangup("nonsense", "") || !r.srv.Hangup(r.srv.Calls()[0].ID, `why "so"`) {
				t.Error("hangup")
			}
			byeA, byeB := s.phone.expect("BYE"), s.pbx.expect("BYE")
			if got := byeA.get("Reason"); got != `SIP;cause=480;text="why so"` {
				t.Errorf("Reason: %s", got)
			}
			s.phone.answer(byeA, 200, "", "", "")
			s.pbx.answer(byeB, 200, "", "", "")
		})
	})
	t.Run("set-up", func(t *testing.T) {
		rigged(t, nil, func(r *rig) {
			phone, pbx := r.phone(), r.pbx()
			phone.send(phone.inviteText("z9hG4bKx", 1, "", description("198.51.100.20", 4000)))
			phone.expect("100")
			inv := pbx.expect("INVITE")
			pbx.answer(inv, 183, "b1", pbx.contactLine(), "")
			phone.expect("183")
			r.srv.Hangup(r.srv.Calls()[0].ID, "operator")
			phone.expect("480")
			pbx.answer(pbx.expect("CANCEL"), 200, "b1", "", "")
			pbx.answer(inv, 487, "b1", "", "")
			pbx.expect("ACK")
		})
	})
}
