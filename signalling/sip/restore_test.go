package sip

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandem-relay/tandem/relay/feed"
)

func TestRestoreEstablished(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		r.restart()
		r.wantCounter("calls_restored", 1)
		if got := r.srv.Calls(); len(got) != 1 || got[0].State != StateTalking || got[0].AnsweredAt.IsZero() {
			t.Errorf("%+v", got)
		}
		s.a.reInvite(s.pbx, "b1", description("198.51.100.20", 4000, "a=sendonly"), description("10.9.0.2", 6000))
		s.b.reInvite(s.phone, "", description("10.9.0.2", 6000), description("198.51.100.20", 4000))
		// A hang-up of our own uses numbers that nobody has seen.
		s.a.send("INFO", "", "")
		info := s.pbx.expect("INFO")
		s.pbx.answer(info, 200, "", "", "")
		s.phone.expect("200")
		r.restart()
		r.srv.Hangup(r.srv.Calls()[0].ID, "test")
		byeA, byeB := s.phone.expect("BYE"), s.pbx.expect("BYE")
		if byeB.cseq() <= info.cseq() || byeA.cseq() <= s.b.cseq {
			t.Errorf("BYE has CSeq %d and %d", byeA.cseq(), byeB.cseq())
		}
		s.phone.answer(byeA, 200, "", "", "")
		s.pbx.answer(byeB, 200, "", "", "")
	})
}

func TestRestoreRinging(t *testing.T) {
	for _, c := range []struct {
		name string
		rest func(r *rig, phone, pbx *peer, inv text)
	}{
		{"answered", func(r *rig, phone, pbx *peer, inv text) {
			pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
			res := phone.expect("200")
			if !strings.Contains(res.get("Via"), "branch=z9hG4bKx;") || res.port() == 0 {
				r.t.Errorf("200:\n%s", res)
			}
			a := phone.uac(res)
			a.send("ACK", "", "")
			pbx.expect("ACK")
			a.send("BYE", "", "")
			pbx.answer(pbx.expect("BYE"), 200, "", "", "")
			phone.expect("200 BYE")
		}},
		{"refused", func(r *rig, phone, pbx *peer, inv text) {
			pbx.answer(inv, 486, "b1", "", "")
			if ack := pbx.expect("ACK"); ack.branch() != inv.branch() || ack.uri() != inv.uri() || ack.get("From") != inv.get("From") {
				r.t.Errorf("ACK:\n%s", ack)
			}
			phone.expect("486")
		}},
		{"cancelled", func(r *rig, phone, pbx *peer, inv text) {
			phone.cancel("")
			phone.expect("200 CANCEL")
			phone.expect("487")
			cancel := pbx.expect("CANCEL")
			if cancel.branch() != inv.branch() || cancel.uri() != inv.uri() {
				r.t.Errorf("CANCEL:\n%s", cancel)
			}
			pbx.answer(cancel, 200, "", "", "")
			pbx.answer(inv, 487, "b1", "", "")
			pbx.expect("ACK")
		}},
		{"INVITE repeated", func(r *rig, phone, pbx *peer, inv text) {
			phone.send(phone.inviteText("z9hG4bKx", 1, "", description("198.51.100.20", 4000)))
			phone.expect("100")
			pbx.silent(time.Second)
			pbx.answer(inv, 486, "b1", "", "")
			phone.expect("486")
		}},
		{"never answered", func(r *rig, phone, pbx *peer, inv text) {
			phone.expectAfter("408", 4*time.Minute)
		}},
		{"PRACK in an early dialog", func(r *rig, phone, pbx *peer, inv text) {
			d := &dialog{p: phone, callID: callID, local: inv.get("From"), to: inv.get("To") + ";tag=b1", target: r.token(), cseq: 1}
			d.send("PRACK", "RAck: 1 1 INVITE\n", "")
			pbx.answer(pbx.expect("PRACK"), 200, "", "", "")
			phone.expect("200")
			pbx.answer(inv, 486, "b1", "", "")
			phone.expect("486")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			rigged(t, nil, func(r *rig) {
				phone, pbx, inv := r.ring()
				pbx.answer(inv, 180, "b1", pbx.contactLine(), "")
				phone.expect("180")
				r.restart()
				c.rest(r, phone, pbx, inv)
			})
		})
	}
}

// token is the Contact of the only call's leg A.
func (r *rig) token() string {
	for _, sh := range r.srv.shards {
		for _, c := range sh.calls {
			return c.legs[caller].contact()
		}
	}
	r.t.Fatal("no call")
	return ""
}

// expectAfter waits longer than expect does.
func (p *peer) expectAfter(what string, limit time.Duration) text {
	p.r.t.Helper()
	select {
	case d := <-p.conn.in:
		if m := text(d.b); m.is(what) {
			return m
		}
		p.r.t.Fatalf("want %s, got:\n%s", what, d.b)
	case <-time.After(limit):
		p.r.t.Fatalf("want %s, got nothing", what)
	}
	return ""
}

func TestRestoreAnswered(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		res := phone.expect("200")
		r.restart()
		if again := phone.expect("200"); again != res {
			t.Errorf("2xx after the restart:\n%s\nbefore:\n%s", again, res)
		}
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000)) // still no ACK
		synctest.Wait()
		a := phone.uac(res)
		a.send("ACK", "", "")
		ack := pbx.expect("ACK")
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		if again := pbx.expect("ACK"); again != ack {
			t.Errorf("ACK differs:\n%s", again)
		}
		a.send("BYE", "", "")
		pbx.answer(pbx.expect("BYE"), 200, "", "", "")
		phone.expect("200 BYE")
	})
}

func TestRestoreCancelled(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		phone.cancel("")
		phone.expect("200 CANCEL")
		phone.expect("487")
		r.restart()
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		pbx.expect("ACK")
		pbx.answer(pbx.expect("BYE"), 200, "", "", "")
		synctest.Wait()
		if r.srv.Len() != 0 {
			t.Error("call is left")
		}
	})
}

func TestRestoreChallenged(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		pbx.answer(inv, 401, "b1", "", "")
		pbx.expect("ACK")
		phone.expect("401")
		r.restart()
		phone.send(phone.inviteText("z9hG4bKy", 2, "", description("198.51.100.20", 4000)))
		phone.expect("100")
		again := pbx.expect("INVITE")
		if again.port() != inv.port() || r.srv.Len() != 1 {
			t.Errorf("another call:\n%s", again)
		}
		pbx.answer(again, 486, "b1", "", "")
		phone.until("486")
	})
	rigged(t, nil, func(r *rig) { // never sent again
		phone, pbx, inv := r.ring()
		pbx.answer(inv, 401, "b1", "", "")
		pbx.expect("ACK")
		phone.expect("401")
		r.restart()
	})
}

func TestRestoreEnding(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.a.send("BYE", "", "")
		s.pbx.expect("BYE")
		r.restart()
		byeB, byeA := s.pbx.expect("BYE"), s.phone.expect("BYE")
		if byeB.cseq() < 1000 {
			t.Errorf("BYE:\n%s", byeB)
		}
		s.phone.answer(byeA, 481, "", "", "")
		s.pbx.answer(byeB, 200, "", "", "")
	})
}

// TestRestoreWithoutSession: media that cannot go on ends the call on both sides.
func TestRestoreWithoutSession(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		synctest.Wait()
		tx := r.relay.Begin()
		tx.End(r.srv.Calls()[0].Session)
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.restart()
		s.phone.answer(s.phone.expect("BYE"), 200, "", "", "")
		s.pbx.answer(s.pbx.expect("BYE"), 200, "", "", "")
		r.wantCounter("calls_lost", 1)
	})
}

// TestRestoreDamaged: a record that makes no sense costs its own call, which frees its ports, and no other.
func TestRestoreDamaged(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func([]byte) []byte
	}{
		{"not JSON", func(v []byte) []byte { return v[:len(v)/2] }},
		{"another type", func(v []byte) []byte { return bytes.Replace(v, []byte(`"legs":[`), []byte(`"legs":["x",`), 1) }},
		{"of another call", func(v []byte) []byte { return bytes.Replace(v, []byte(`"id":"`), []byte(`"id":"x`), 1) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			rigged(t, nil, func(r *rig) {
				s := r.establish()
				phone, pbx := s.phone, s.pbx
				synctest.Wait()
				good := r.srv.Calls()[0].ID
				phone.send(phone.requestVia("z9hG4bKd", "INVITE", "sip:1001@198.51.100.1", "<sip:a@b>;tag=a2", "<sip:1001@b>", "c2", 1, "", description("198.51.100.20", 4010)))
				phone.expect("100")
				pbx.expect("INVITE")
				synctest.Wait()
				for _, change := range r.store.Changes() {
					if change.Kind == KindCall && change.Key != good {
						change.Value = c.damage(change.Value)
						if err := r.store.Write(feed.Group{Epoch: 1, Position: r.position() + 1, Changes: []feed.Change{change}}); err != nil {
							t.Fatal(err)
						}
					}
				}
				r.restart()
				if calls := r.srv.Calls(); len(calls) != 1 || calls[0].ID != good || r.relay.Len() != 1 {
					t.Errorf("%d sessions, calls %+v", r.relay.Len(), calls)
				}
				for _, change := range r.store.Changes() {
					if change.Kind == KindCall && change.Key != good {
						t.Errorf("the journal still has %s", change.Value)
					}
				}
				r.wantCounter("calls_lost", 1)
				if !strings.Contains(r.log.String(), "its record makes no sense") {
					t.Errorf("log:\n%s", r.log)
				}
				s.hangUpUntil()
			})
		})
	}
}

// position is that of the last group of the journal.
func (r *rig) position() uint64 {
	groups := r.store.Groups()
	return groups[len(groups)-1].Position
}

// TestRestoreRefused: a session that the data plane does not take over ends its call on both sides.
func TestRestoreRefused(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		r.plane.FailNext(1, errors.New("no room"))
		r.restart()
		s.phone.answer(s.phone.expect("BYE"), 200, "", "", "")
		s.pbx.answer(s.pbx.expect("BYE"), 200, "", "", "")
		r.wantCounter("calls_lost", 1)
	})
	rigged(t, nil, func(r *rig) { // before the answer
		phone, pbx, inv := r.ring()
		pbx.answer(inv, 180, "b1", pbx.contactLine(), "")
		phone.expect("180")
		r.plane.FailNext(1, errors.New("no room"))
		r.restart()
		phone.expect("500")
		pbx.answer(pbx.expect("CANCEL"), 200, "", "", "")
		pbx.answer(inv, 487, "b1", "", "")
		pbx.expect("ACK")
		r.wantCounter("calls_lost", 1)
	})
}

func TestRestoreWithoutTrunk(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		r.establish()
		r.cfg = func(c *Config) { c.Trunks[1].Name = "other"; c.Trunks[0].Route, c.Trunks[1].Route = "other", "phones" }
		r.restart()
		r.wantCounter("calls_lost", 1)
		if r.srv.Len() != 0 || r.relay.Len() != 0 {
			t.Error("the call is left")
		}
	})
}
