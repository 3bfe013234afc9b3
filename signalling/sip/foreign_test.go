package sip

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestForeignTrunk: a trunk of the same network that knows every identifier of a call can do nothing to it.
func TestForeignTrunk(t *testing.T) {
	rivalAddr := ap("198.51.100.99:5060")
	cfg := func(c *Config) {
		c.Trunks = append(c.Trunks, Trunk{Name: "rival", Network: "outside", Peer: rivalAddr, Route: "pbx"})
		c.Trunks[0].Sources = []netip.Prefix{netip.MustParsePrefix("198.51.100.16/28")}
	}
	for _, c := range []struct {
		name string
		send func(r *rig, rival *peer, s *callSetUp)
		want string // what the rival gets; "": nothing
	}{
		{"BYE", func(_ *rig, rival *peer, s *callSetUp) { rival.send(s.a.text("BYE", 2, "", "")) }, "481"},
		{"INFO", func(_ *rig, rival *peer, s *callSetUp) { rival.send(s.a.text("INFO", 2, "", "")) }, "481"},
		{"re-INVITE", func(_ *rig, rival *peer, s *callSetUp) {
			rival.send(s.a.text("INVITE", 2, "", description("198.51.100.99", 4000)))
		}, "481"},
		{"BYE without token", func(_ *rig, rival *peer, s *callSetUp) {
			rival.send(strings.Replace(s.a.text("BYE", 2, "", ""), s.a.target, "sip:x@198.51.100.1", 1))
		}, "481"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rigged(t, cfg, func(r *rig) {
				rival := r.peer(rivalAddr, outsideAddr)
				s := r.establish()
				c.send(r, rival, s)
				rival.expect(c.want)
				s.pbx.silent(time.Second)
				r.wantCounter("foreign_trunk_rejected", 1)
				// Requests of the callee still go to the phone.
				s.b.send("INFO", "", "")
				s.phone.answer(s.phone.expect("INFO"), 200, "", "", "")
				s.pbx.expect("200 INFO")
				s.hangUp()
			})
		})
	}
	t.Run("ACK", func(t *testing.T) {
		rigged(t, cfg, func(r *rig) {
			rival := r.peer(rivalAddr, outsideAddr)
			phone, pbx, inv := r.ring()
			pbx.answer(inv, 200, "b1", pbx.contactLine(), description("10.9.0.2", 6000))
			a := phone.uac(phone.expect("200"))
			rival.send(a.text("ACK", 1, "", ""))
			pbx.silent(100 * time.Millisecond)
			r.wantCounter("foreign_trunk_rejected", 1)
			a.send("ACK", "", "")
			pbx.expect("ACK")
			a.send("BYE", "", "")
			pbx.answer(pbx.expect("BYE"), 200, "", "", "")
			phone.expect("200 BYE")
		})
	})
	t.Run("CANCEL and repeated INVITE", func(t *testing.T) {
		rigged(t, cfg, func(r *rig) {
			rival := r.peer(rivalAddr, outsideAddr)
			phone, pbx, inv := r.ring()
			pbx.answer(inv, 180, "b1", pbx.contactLine(), "")
			phone.expect("180")
			rival.send(strings.Replace(phone.inviteText("z9hG4bKx", 1, "", ""), "INVITE", "CANCEL", 2))
			rival.expect("481")
			pbx.silent(time.Second)
			pbx.answer(inv, 486, "b1", "", "")
			phone.expect("486")
			synctest.Wait()
			if n := len(rival.conn.in); n != 0 {
				t.Errorf("the rival got %d answers of another's call", n)
			}
		})
	})
	t.Run("response", func(t *testing.T) {
		rigged(t, cfg, func(r *rig) {
			rival := r.peer(rivalAddr, outsideAddr)
			s := r.establish()
			s.b.send("INFO", "", "")
			info := s.phone.expect("INFO")
			rival.answer(info, 200, "", "", "")
			s.pbx.silent(100 * time.Millisecond)
			r.wantCounter("foreign_trunk_rejected", 1)
			s.phone.answer(info, 200, "", "", "")
			s.pbx.expect("200 INFO")
			s.b.send("BYE", "", "")
			s.phone.answer(s.phone.expect("BYE"), 200, "", "", "")
			s.pbx.expect("200 BYE")
		})
	})
	t.Run("another address of the same trunk", func(t *testing.T) {
		rigged(t, cfg, func(r *rig) {
			s := r.establish()
			other := r.peer(phone2Addr, outsideAddr)
			other.send(s.a.text("BYE", 2, "", ""))
			s.pbx.answer(s.pbx.expect("BYE"), 200, "", "", "")
			other.expect("200 BYE")
		})
	})
}
