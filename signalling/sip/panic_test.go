package sip

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/signalling/media"
)

// brokenMedia is an engine with a fault that a test sets off.
type brokenMedia struct {
	Media
	offer, answer atomic.Bool
}

func (b *brokenMedia) Offer(tx media.Ports, s *relay.Session, from, to media.Side, body media.Body) (media.Body, error) {
	if b.offer.Load() {
		panic("offer went wrong")
	}
	return b.Media.Offer(tx, s, from, to, body)
}

func (b *brokenMedia) Answer(tx media.Ports, s *relay.Session, from, to media.Side, body media.Body) (media.Body, error) {
	if b.answer.Load() {
		panic("answer went wrong")
	}
	return b.Media.Answer(tx, s, from, to, body)
}

// calm takes back the count of panics that the test made, after checking it.
func (r *rig) calm(want uint64) {
	r.t.Helper()
	r.wantCounter("panics", want)
	if log := r.log.String(); !strings.Contains(log, "went wrong") || !strings.Contains(log, "panic_test.go") {
		r.t.Errorf("the panic is not reported with its stack:\n%s", log)
	}
	r.srv.counts[cPanics].Store(0)
}

func TestPanic(t *testing.T) {
	broken := func(b *brokenMedia) func(*Config) {
		return func(c *Config) { b.Media = c.Media; c.Media = b }
	}
	t.Run("in an offer", func(t *testing.T) {
		var b brokenMedia
		rigged(t, broken(&b), func(r *rig) {
			s := r.establish()
			b.offer.Store(true)
			s.phone.send(s.phone.requestVia("z9hG4bKp", "INVITE", "sip:1001@198.51.100.1", "<sip:a@b>;tag=a2", "<sip:1001@b>", "c2", 1, "", description("198.51.100.20", 4010)))
			s.phone.expect("100")
			s.phone.expect("500")
			s.phone.send(s.phone.requestVia("z9hG4bKp", "ACK", "sip:1001@198.51.100.1", "<sip:a@b>;tag=a2", "<sip:1001@b>", "c2", 1, "", ""))
			if r.srv.Len() != 1 {
				t.Errorf("%d calls", r.srv.Len())
			}
			r.calm(1)
			b.offer.Store(false)
			s.a.reInvite(s.pbx, "", description("198.51.100.20", 4000), description("10.9.0.2", 6000))
			s.hangUp()
		})
	})
	t.Run("in an answer", func(t *testing.T) {
		var b brokenMedia
		rigged(t, broken(&b), func(r *rig) {
			phone, pbx, inv := r.ring()
			b.answer.Store(true)
			pbx.answer(inv, 183, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
			phone.expect("500")
			r.calm(1)
			pbx.answer(pbx.expect("CANCEL"), 200, "b1", "", "")
			pbx.answer(inv, 487, "b1", "", "")
			pbx.expect("ACK")
		})
	})
	t.Run("in a re-INVITE", func(t *testing.T) {
		var b brokenMedia
		rigged(t, broken(&b), func(r *rig) {
			s := r.establish()
			b.offer.Store(true)
			s.a.send("INVITE", s.phone.contactLine(), description("198.51.100.20", 4000))
			s.phone.expect("100")
			s.phone.expect("500")
			s.phone.answer(s.phone.until("BYE"), 200, "", "", "")
			s.pbx.answer(s.pbx.expect("BYE"), 200, "", "", "")
			r.calm(1)
		})
	})
}

// TestPlaneRefuses: a data plane or journal that refuses fails the call, and leaves nothing.
func TestPlaneRefuses(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		r.plane.FailNext(1, errors.New("no room"))
		phone, pbx := r.phone(), r.pbx()
		phone.send(phone.inviteText("z9hG4bKx", 1, "", description("198.51.100.20", 4000)))
		phone.expect("100")
		phone.expect("503")
		pbx.silent(time.Second)
	})
	rigged(t, nil, func(r *rig) {
		phone, pbx, inv := r.ring()
		r.plane.FailNext(1, errors.New("no room"))
		pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
		pbx.expect("ACK")
		pbx.answer(pbx.expect("BYE"), 200, "", "", "")
		phone.expect("503")
	})
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		synctest.Wait()
		r.store.Fail(errors.New("disk full"))
		s.hangUp()
		synctest.Wait()
		if r.relay.Len() != 1 {
			t.Error("the session should be waiting for its release")
		}
		r.store.Fail(nil) // the release is tried again
	})
}
