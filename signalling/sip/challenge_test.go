package sip

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestChallenge(t *testing.T) {
	for _, status := range []string{"401", "407"} {
		rigged(t, nil, func(r *rig) {
			phone, pbx, inv := r.ring()
			local := inv.port()
			code := 401
			if status == "407" {
				code = 407
			}
			pbx.answer(inv, code, "b1", "WWW-Authenticate: Digest  realm=\"x\",nonce=\"n\"\n", "")
			pbx.expect("ACK")
			res := phone.expect(status)
			if got := res.get("WWW-Authenticate"); got != `Digest  realm="x",nonce="n"` {
				t.Errorf("challenge: %s", got)
			}
			phone.send(phone.requestVia("z9hG4bKx", "ACK", "sip:1000@"+phone.to.String(), "<sip:alice@example.com>;tag=a1", res.get("To"), callID, 1, "", ""))
			phone.send(phone.inviteText("z9hG4bKy", 2, "Authorization: Digest username=\"alice\",response=\"s3cret\"\n", description("198.51.100.20", 4000)))
			phone.expect("100")
			again := pbx.expect("INVITE")
			if again.port() != local || again.cseq() != 2 || again.get("Authorization") == "" || again.contact() != inv.contact() {
				t.Errorf("INVITE with credentials:\n%s\nfirst one:\n%s", again, inv)
			}
			if r.srv.Len() != 1 || r.relay.Len() != 1 {
				t.Errorf("%d calls, %d sessions", r.srv.Len(), r.relay.Len())
			}
			pbx.answer(again, 200, "b2", pbx.contactLine(), description("10.9.0.2", 6000))
			a := phone.uac(phone.expect("200"))
			a.send("ACK", "", "")
			pbx.expect("ACK")
			<-time.After(time.Minute) // the challenge's patience does not end the call
			a.send("BYE", "", "")
			pbx.answer(pbx.expect("BYE"), 200, "", "", "")
			phone.expect("200 BYE")
			r.wantCounter("calls_started", 1)
			r.wantCounter("merged_rejected", 0)
			if strings.Contains(r.log.String(), "s3cret") {
				t.Error("credentials are in the log")
			}
		})
	}
}

func TestChallengeGivenUp(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		pbx.answer(inv, 401, "b1", "", "")
		pbx.expect("ACK")
		phone.expect("401")
		synctest.Wait()
		if r.srv.Len() != 1 || r.srv.Calls()[0].State != StateChallenged {
			t.Errorf("%+v", r.srv.Calls())
		}
		<-time.After(17 * time.Second)
		synctest.Wait()
		if r.srv.Len() != 0 || r.relay.Len() != 0 {
			t.Error("the call is kept for ever")
		}
	})
}

// TestChallengedTwice: wrong credentials are challenged again, and each INVITE is the same call.
func TestChallengedTwice(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		for i, branch := range []string{"z9hG4bKy", "z9hG4bKz"} {
			pbx.answer(inv, 401, "b1", "", "")
			pbx.expect("ACK")
			phone.expect("401")
			phone.send(phone.inviteText(branch, i+2, "", description("198.51.100.20", 4000)))
			phone.expect("100")
			inv = pbx.expect("INVITE")
		}
		pbx.answer(inv, 403, "b1", "", "")
		pbx.expect("ACK")
		phone.until("403")
		r.wantCounter("calls_started", 1)
		if r.srv.Len() != 0 {
			t.Error("the call is left")
		}
	})
}

// TestSpiral: the PBX behind us sends the call back with Call-ID, tag and CSeq unchanged, to another user.
func TestSpiral(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		second := r.peer(phone2Addr, outsideAddr)
		r.srv.trunks["phones"].Peer, r.srv.trunks["phones"].peer = phone2Addr, phone2Addr.String()
		// As a stateful proxy does: its Via on top of ours, its Record-Route, Contact untouched.
		forward := func(m text) text {
			s := strings.Replace(string(m), m.line(), "INVITE sip:2000@10.9.0.1:5060 SIP/2.0", 1)
			s = strings.Replace(s, "Via: ", "Via: SIP/2.0/UDP 10.9.0.2;branch=z9hG4bKpbx\r\nRecord-Route: <sip:10.9.0.2;lr>\r\nVia: ", 1)
			return text(strings.Replace(s, "Max-Forwards: 69", "Max-Forwards: 68", 1))
		}
		pbx.send(string(forward(inv)))
		pbx.expect("100")
		far := second.expect("INVITE")
		if far.get("Call-ID") != callID || far.tag("From") != "a1" || far.cseq() != 1 || far.get("Max-Forwards") != "67" {
			t.Errorf("spiralled INVITE:\n%s", far)
		}
		if r.srv.Len() != 2 || r.relay.Len() != 2 || far.port() == inv.port() {
			t.Errorf("%d calls, %d sessions", r.srv.Len(), r.relay.Len())
		}
		second.answer(far, 200, "b1", second.contactLine(), description("198.51.100.30", 5000))
		ok := pbx.expect("200")
		// The PBX takes its Via off and passes the rest on.
		pbx.send(strings.Replace(string(ok), "Via: "+ok.get("Via")+"\r\n", "", 1))
		res := phone.expect("200")
		a := phone.uac(res)
		a.send("ACK", "", "")
		ack := pbx.expect("ACK") // to the Route of the PBX
		if got := ack.get("Route"); got != "<sip:10.9.0.2;lr>" {
			t.Errorf("Route of ACK: %s", got)
		}
		pass := func(m text, branch string) {
			s := strings.Replace(string(m), "Route: <sip:10.9.0.2;lr>\r\n", "", 1)
			pbx.send(strings.Replace(s, "Via: ", "Via: SIP/2.0/UDP 10.9.0.2;branch="+branch+"\r\nVia: ", 1))
		}
		pass(ack, "z9hG4bKack")
		second.expect("ACK")
		a.send("BYE", "", "")
		bye := pbx.expect("BYE")
		pass(bye, "z9hG4bKbye")
		second.answer(second.expect("BYE"), 200, "", "", "")
		ok = pbx.expect("200")
		pbx.send(strings.Replace(string(ok), "Via: "+ok.get("Via")+"\r\n", "", 1))
		phone.expect("200 BYE")
		r.wantCounter("merged_rejected", 0)
	})
}

func TestMergedRequest(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		body := description("198.51.100.20", 4000)
		phone.send(phone.inviteText("z9hG4bKother", 1, "", body)) // the same request by another path
		phone.expect("482")
		phone.send(strings.Replace(phone.inviteText("z9hG4bKthird", 1, "", body), "sip:1000@198", "sip:1001@198", 1))
		phone.until("100") // another Request-URI: another call
		third := pbx.expect("INVITE")
		pbx.answer(inv, 486, "b1", "", "")
		pbx.answer(third, 486, "b2", "", "")
		phone.until("486")
		r.wantCounter("merged_rejected", 1)
		r.wantCounter("calls_started", 2)
	})
}
