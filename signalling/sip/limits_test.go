package sip

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
	"github.com/tandem-relay/tandem/relay/journal"
	"github.com/tandem-relay/tandem/relay/relaytest"
)

// TestLongHead: the header section of an INVITE that begins a call is bounded, its body and later requests are not.
func TestLongHead(t *testing.T) {
	sdp := description("198.51.100.20", 4000)
	long := func(n int) string { return "X-Long: " + strings.Repeat("x", n) + "\n" }
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		s.phone.send(s.phone.requestVia("z9hG4bKl", "INVITE", "sip:1001@198.51.100.1", "<sip:a@b>;tag=a2", "<sip:1001@b>", "c2", 1, long(9000), sdp))
		if res := s.phone.expect("513"); res.tag("To") == "" {
			t.Errorf("513:\n%s", res)
		}
		s.phone.silent(time.Minute)
		s.pbx.silent(time.Second)
		if r.srv.Len() != 1 || r.srv.transact.Load() != 0 {
			t.Errorf("%d calls, %d transactions", r.srv.Len(), r.srv.transact.Load())
		}
		s.a.send("INFO", long(9000), "")
		s.pbx.answer(s.pbx.expect("INFO"), 200, "", "", "")
		s.phone.expect("200 INFO")
		s.phone.send(s.phone.requestVia("z9hG4bKm", "INVITE", "sip:1001@198.51.100.1", "<sip:a@b>;tag=a3", "<sip:1001@b>", "c3", 1, long(7000), description("198.51.100.20", 4010, "a=x:"+strings.Repeat("y", 5000), "a=z:"+strings.Repeat("z", 5000))))
		s.phone.expect("100")
		s.pbx.answer(s.pbx.expect("INVITE"), 486, "x", "", "")
		s.phone.until("486")
		s.hangUpUntil()
	})
}

// hangUpUntil is hangUp among leftovers of other transactions.
func (s *callSetUp) hangUpUntil() {
	s.phone.r.t.Helper()
	s.a.send("BYE", "", "")
	s.pbx.answer(s.pbx.until("BYE"), 200, "", "", "")
	s.phone.until("200 BYE")
}

// TestRefusedStatus: what a call set-up that fails here is answered with, and that the log says the same.
func TestRefusedStatus(t *testing.T) {
	sdp := description("198.51.100.20", 4000)
	for _, c := range []struct {
		name, body string
		fail       func(*rig)
		want       int
	}{
		{"the data plane is full", sdp, func(r *rig) { r.plane.FailNext(1, fmt.Errorf("apply: %w", relay.ErrFull)) }, 503},
		{"the data plane has no time", sdp, func(r *rig) {
			r.plane.Hook(func(ctx context.Context, c relaytest.Call) error {
				if c.Generation > 1 || len(c.Records) == 0 {
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			})
		}, 503},
		{"the journal is full", sdp, func(r *rig) { r.full(true) }, 503},
		{"the journal is full, no description", "", func(r *rig) { r.full(true) }, 503},
		{"the journal fails", sdp, func(r *rig) { r.store.Fail(errors.New("input/output error")) }, 503},
		{"bad session description", "v=0\nm=nonsense\n", func(*rig) {}, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			rigged(t, nil, func(r *rig) {
				phone, pbx := r.phone(), r.pbx()
				c.fail(r)
				phone.send(phone.inviteText("z9hG4bKx", 1, "", c.body))
				phone.expect("100")
				res := phone.untilFinal()
				if res.status() != c.want || (c.want == 503) != (res.get("Retry-After") != "") {
					t.Errorf("want %d:\n%s", c.want, res)
				}
				pbx.silent(100 * time.Millisecond)
				r.store.Fail(nil)
				r.plane.Hook(nil)
				r.full(false)
				if want := fmt.Sprintf("status=%d", c.want); !strings.Contains(r.log.String(), "call refused") || !strings.Contains(r.log.String(), want) {
					t.Errorf("%s is not in the log:\n%s", want, r.log)
				}
			})
		})
	}
}

// TestFullJournal: when only deletions are written any more, new calls are refused, and the BYE of an old one frees its
// session and ports at once.
func TestFullJournal(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		synctest.Wait()
		r.full(true)
		s.phone.send(s.phone.requestVia("z9hG4bKf", "INVITE", "sip:1001@198.51.100.1", "<sip:a@b>;tag=a2", "<sip:1001@b>", "c2", 1, "", description("198.51.100.20", 4010)))
		s.phone.expect("100")
		s.phone.expect("503")
		s.a.send("BYE", "", "")
		bye := s.pbx.expect("BYE")
		synctest.Wait()
		if r.relay.Len() != 0 {
			t.Error("media goes on after the BYE")
		}
		s.pbx.answer(bye, 200, "", "", "")
		s.phone.until("200 BYE")
		synctest.Wait()
		if r.srv.Len() != 0 || len(r.store.Changes()) != 0 {
			t.Errorf("%d calls are left, the journal has %v", r.srv.Len(), r.store.Changes())
		}
	})
}

// TestReleaseNeverGivesUp: a call whose session cannot be ended is tried until it can, and no message finds it meanwhile.
func TestReleaseNeverGivesUp(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		synctest.Wait()
		r.store.Fail(errors.New("disk full"))
		s.hangUp()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := r.counter("release_retries"); n < 24*60-60 || n > 24*60+60 {
			t.Errorf("%d attempts within a day, want one each minute", n)
		}
		if r.relay.Len() != 1 || r.srv.Len() != 1 {
			t.Errorf("%d sessions and %d calls wait for their release", r.relay.Len(), r.srv.Len())
		}
		s.a.send("INFO", "", "")
		s.phone.expect("481")
		for _, sh := range r.srv.shards {
			if len(sh.legs)+len(sh.sameID)+len(sh.challenged) != 0 {
				t.Error("messages still find the call")
			}
		}
		r.store.Fail(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if r.relay.Len() != 0 || r.srv.Len() != 0 {
			t.Error("not released")
		}
	})
}

// TestReleaseOfMany: one call that cannot be released does not keep others from it.
func TestReleaseOfMany(t *testing.T) {
	rigged(t, func(c *Config) { c.Shards = 1 }, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		s := r.establishOn(phone, pbx)
		synctest.Wait()
		poison := r.srv.Calls()[0].Session
		r.plane.Hook(func(_ context.Context, c relaytest.Call) error {
			if c.ID == poison && len(c.Records) == 0 {
				return errors.New("will not go")
			}
			return nil
		})
		s.hangUp()
		synctest.Wait()
		r.store.Fail(errors.New("disk full"))
		for i := range 100 { // these fail, and their records wait to be deleted
			phone.send(phone.requestVia(fmt.Sprintf("z9hG4bKm%d", i), "INVITE", "sip:1001@198.51.100.1", "<sip:a@b>;tag=m", "<sip:1001@b>", fmt.Sprint("m", i), 1, "", ""))
		}
		synctest.Wait()
		if n := r.srv.Len(); n != 101 {
			t.Errorf("%d calls wait, want 101", n)
		}
		r.store.Fail(nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := r.srv.Len(); n != 1 {
			t.Errorf("%d calls wait, want only the one that cannot be released", n)
		}
		r.plane.Hook(nil)
	})
}

// TestReleasePanics: even a panic in the relay does not make the server forget a session.
func TestReleasePanics(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		synctest.Wait()
		r.plane.Hook(func(context.Context, relaytest.Call) error { panic("ending went wrong, limits_test.go") })
		s.a.send("BYE", "", "")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if r.srv.Len() != 1 || r.counter("panics") == 0 {
			t.Errorf("%d calls wait, %d panics", r.srv.Len(), r.counter("panics"))
		}
		r.plane.Hook(nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if r.srv.Len() != 0 || r.relay.Len() != 0 {
			t.Errorf("%d calls, %d sessions", r.srv.Len(), r.relay.Len())
		}
		r.srv.counts[cPanics].Store(0)
	})
}

// TestNoCredentialsInJournal: what a caller authenticates with never reaches the journal, and reaches the callee.
func TestNoCredentialsInJournal(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		secret := "Authorization: Digest response=\"s3cret\"\nproxy-authorization: Digest response=\"s3cret\",\n username=\"s3cret\"\n"
		phone.send(phone.inviteText("z9hG4bKx", 1, secret, description("198.51.100.20", 4000)))
		phone.expect("100")
		inv := pbx.expect("INVITE")
		if strings.Count(string(inv), "s3cret") != 3 {
			t.Errorf("INVITE:\n%s", inv)
		}
		pbx.answer(inv, 200, "b1", pbx.contactLine()+secret, description("10.9.0.2", 6000))
		a := phone.uac(phone.expect("200"))
		r.restart()
		phone.expect("200")
		a.send("ACK", "", "")
		pbx.expect("ACK")
		records := 0
		for _, g := range r.store.Groups() {
			for _, c := range g.Changes {
				var rec Record
				if c.Kind != KindCall || json.Unmarshal(c.Value, &rec) != nil {
					continue
				}
				records++
				if bytes.Contains(c.Value, []byte("s3cret")) || rec.Setup != nil && (bytes.Contains(rec.Setup.Invite, []byte("s3cret")) || bytes.Contains(rec.Setup.Answer, []byte("s3cret"))) {
					t.Errorf("credentials in %s\n%+v", c.Value, rec.Setup)
				}
			}
		}
		if records < 2 {
			t.Errorf("%d records", records)
		}
		a.send("BYE", "", "")
		pbx.answer(pbx.expect("BYE"), 200, "", "", "")
		phone.expect("200 BYE")
	})
}

// TestHugeAnswers: what the callee's side says does not fill the journal.
func TestHugeAnswers(t *testing.T) {
	var routes strings.Builder
	for i := range 14 {
		fmt.Fprintf(&routes, "Record-Route: <sip:10.9.0.2;lr;x=%d%s>\n", i, strings.Repeat("r", 1000))
	}
	bounded := func(r *rig) {
		r.t.Helper()
		for _, g := range r.store.Groups() {
			for _, c := range g.Changes {
				if len(c.Value) > 64<<10 {
					r.t.Errorf("%s of %d bytes", c.Kind, len(c.Value))
				}
			}
		}
	}
	t.Run("many forks with many routes", func(t *testing.T) {
		rigged(t, nil, func(r *rig) {
			phone, pbx, inv := r.ring()
			for i := range 16 {
				pbx.answer(inv, 180, fmt.Sprint("b", i), pbx.contactLine()+routes.String(), "")
			}
			phone.expect("180")
			phone.silent(time.Second)
			bounded(r)
			pbx.answer(inv, 486, "b1", "", "")
			phone.expect("486")
		})
	})
	t.Run("huge To tag", func(t *testing.T) {
		rigged(t, nil, func(r *rig) {
			phone, pbx, inv := r.ring()
			pbx.answer(inv, 180, strings.Repeat("t", 17<<10), pbx.contactLine(), "")
			phone.silent(time.Second)
			pbx.answer(inv, 200, strings.Repeat("t", 17<<10), pbx.contactLine(), description("10.9.0.2", 6000))
			phone.expect("480")
			pbx.expect("ACK")
			pbx.answer(pbx.expect("BYE"), 200, "", "", "")
			bounded(r)
		})
	})
	t.Run("huge 2xx", func(t *testing.T) {
		rigged(t, nil, func(r *rig) {
			phone, pbx, inv := r.ring()
			pbx.answer(inv, 200, "b1", pbx.contactLine()+"X-Long: "+strings.Repeat("x", 20<<10)+"\n", description("10.9.0.2", 6000))
			a := phone.uac(phone.expect("200"))
			bounded(r)
			for _, g := range r.store.Groups() {
				for _, c := range g.Changes {
					if len(c.Value) > 8<<10 {
						t.Errorf("%s of %d bytes", c.Kind, len(c.Value))
					}
				}
			}
			a.send("ACK", "", "")
			pbx.expect("ACK")
			a.send("BYE", "", "")
			pbx.answer(pbx.expect("BYE"), 200, "", "", "")
			phone.expect("200 BYE")
		})
	})
}

// TestFloodLeavesRoomForBYE: new requests never take the whole table of transactions, nor do refused calls.
func TestFloodLeavesRoomForBYE(t *testing.T) {
	rigged(t, func(c *Config) { c.Limits.Transactions = 40; c.Trunks[1].Route = "" }, func(r *rig) {
		s := r.establish()
		other := s.pbx
		time.Sleep(time.Minute)
		for i := range 100 {
			other.send(other.requestVia(fmt.Sprintf("z9hG4bKf%d", i), "INVITE", "sip:1001@10.9.0.1", "<sip:a@b>;tag=f", "<sip:1001@b>", fmt.Sprint("f", i), 1, "", ""))
		}
		synctest.Wait()
		if n := r.counter("table_full_dropped"); n != 70 {
			t.Errorf("%d dropped, want 70", n)
		}
		s.a.send("BYE", "", "")
		other.answer(other.until("BYE"), 200, "", "", "")
		s.phone.expect("200 BYE")
	})
	rigged(t, func(c *Config) { c.Limits.Calls = 1 }, func(r *rig) {
		s := r.establish()
		time.Sleep(time.Minute)
		for i := range 100 {
			s.phone.send(s.phone.requestVia(fmt.Sprintf("z9hG4bKf%d", i), "INVITE", "sip:1001@198.51.100.1", "<sip:a@b>;tag=f", "<sip:1001@b>", fmt.Sprint("f", i), 1, "", ""))
		}
		synctest.Wait()
		if n := r.srv.transact.Load(); n != 0 {
			t.Errorf("%d transactions for calls that are refused", n)
		}
		s.hangUpUntil()
	})
}

// full makes the journal take deletions only, or everything again.
func (r *rig) full(on bool) { r.fullJournal.Store(on) }

// fullSink is a journal that may be full.
type fullSink struct {
	*relaytest.Store
	r *rig
}

func (s fullSink) Write(g feed.Group) error {
	if s.r.fullJournal.Load() {
		for _, c := range g.Changes {
			if c.Value != nil {
				return fmt.Errorf("write: %w", journal.ErrFull)
			}
		}
	}
	return s.Store.Write(g)
}
