package sip

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRejections(t *testing.T) {
	long := strings.Repeat("x", 40<<10)
	sdp := description("198.51.100.20", 4000)
	for _, c := range []struct {
		name, want, header string
		edit               func(*peer) string
	}{
		{"OPTIONS", "200", "Allow", func(p *peer) string {
			return p.request("OPTIONS", "sip:198.51.100.1", "<sip:a@b>;tag=1", "<sip:198.51.100.1>", "o1", 1, "", "")
		}},
		{"REGISTER", "405", "Allow", func(p *peer) string {
			return p.request("REGISTER", "sip:198.51.100.1", "<sip:a@b>;tag=1", "<sip:a@b>", "r1", 1, "Contact: *\n", "")
		}},
		{"unknown method", "501", "Allow", func(p *peer) string {
			return p.request("NewMethod", "sip:198.51.100.1", "<sip:a@b>;tag=1", "<sip:a@b>", "n1", 1, "", "")
		}},
		{"BYE for an unknown call", "481", "", func(p *peer) string {
			return p.request("BYE", "sip:"+newToken(7)+"@198.51.100.1", "<sip:a@b>;tag=1", "<sip:c@d>;tag=2", "u1", 1, "", "")
		}},
		{"BYE without token", "481", "", func(p *peer) string {
			return p.request("BYE", "sip:c@198.51.100.1", "<sip:a@b>;tag=1", "<sip:c@d>;tag=2", "u1", 1, "", "")
		}},
		{"BYE outside of any dialog", "481", "", func(p *peer) string {
			return p.request("BYE", "sip:c@198.51.100.1", "<sip:a@b>;tag=1", "<sip:c@d>", "u1", 1, "", "")
		}},
		{"CANCEL of nothing", "481", "", func(p *peer) string {
			return p.request("CANCEL", "sip:c@198.51.100.1", "<sip:a@b>;tag=1", "<sip:c@d>", "u1", 1, "", "")
		}},
		{"re-INVITE for an unknown call", "481", "", func(p *peer) string {
			return p.request("INVITE", "sip:"+newToken(7)+"@198.51.100.1", "<sip:a@b>;tag=1", "<sip:c@d>;tag=2", "u1", 1, "", sdp)
		}},
		{"no hops left", "483", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", sdp), "Max-Forwards: 70", "Max-Forwards: 0", 1)
		}},
		{"Proxy-Require", "420", "Unsupported", func(p *peer) string {
			return p.inviteText("z9hG4bK1", 1, "Proxy-Require: foo, bar\n", sdp)
		}},
		{"sips over UDP", "416", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", sdp), "INVITE sip:", "INVITE sips:", 1)
		}},
		{"other version", "505", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", sdp), " SIP/2.0", " SIP/7.0", 1)
		}},
		{"CSeq of another method", "400", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", sdp), "1 INVITE", "1 BYE", 1)
		}},
		{"CSeq too high", "400", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", sdp), "1 INVITE", "2147483648 INVITE", 1)
		}},
		{"CSeq without number", "400", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", sdp), "1 INVITE", "INVITE", 1)
		}},
		{"no Call-ID", "400", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", sdp), "Call-ID: c1@phone\r\n", "", 1)
		}},
		{"no From", "400", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", sdp), "From:", "X-From:", 1)
		}},
		{"two To", "400", "", func(p *peer) string { return p.inviteText("z9hG4bK1", 1, "t: <sip:x@y>\n", sdp) }},
		{"two Call-ID", "400", "", func(p *peer) string { return p.inviteText("z9hG4bK1", 1, "i: other\n", sdp) }},
		{"two Content-Length", "400", "", func(p *peer) string { return p.inviteText("z9hG4bK1", 1, "l: 5\n", sdp) }},
		{"Content-Length beyond the datagram", "400", "", func(p *peer) string {
			m := p.inviteText("z9hG4bK1", 1, "", sdp)
			return m[:len(m)-20]
		}},
		{"negative Content-Length", "400", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", ""), "Content-Length: 0", "Content-Length: -1", 1)
		}},
		{"Max-Forwards no number", "400", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", sdp), "Max-Forwards: 70", "Max-Forwards: many", 1)
		}},
		{"From without closing bracket", "400", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", sdp), "From: <sip:alice@example.com>", "From: <sip:alice@example.com", 1)
		}},
		{"unterminated quote in To", "400", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", sdp), "To: ", "To: \"Mr. ", 1)
		}},
		{"blanks in the Request-URI", "400", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", sdp), "sip:1000@", "sip:1000@ ", 1)
		}},
		{"Request-URI in brackets", "400", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", sdp), "INVITE sip:1000@198.51.100.1:5060", "INVITE <sip:1000@198.51.100.1:5060>", 1)
		}},
		{"a header line that is none", "400", "", func(p *peer) string {
			return p.inviteText("z9hG4bK1", 1, "this is no header\n", sdp)
		}},
		{"bad session description", "400", "Warning", func(p *peer) string {
			return p.inviteText("z9hG4bK1", 7, "", "v=0\nm=nonsense\n")
		}},
		{"host name as media address", "488", "Warning", func(p *peer) string {
			return p.inviteText("z9hG4bK1", 7, "", strings.ReplaceAll(sdp, "IN IP4 198.51.100.20", "IN IP4 host.example.com"))
		}},
		{"larger than the limit", "", "", func(p *peer) string { return p.inviteText("z9hG4bK1", 1, "X: "+long+"\n", sdp) }},
		{"ACK of nothing", "", "", func(p *peer) string {
			return p.request("ACK", "sip:"+newToken(7)+"@198.51.100.1", "<sip:a@b>;tag=1", "<sip:c@d>;tag=2", "u1", 1, "", "")
		}},
		{"malformed ACK", "", "", func(p *peer) string {
			return strings.Replace(p.request("ACK", "sip:x@198.51.100.1", "<sip:a@b>;tag=1", "<sip:c@d>;tag=2", "u1", 1, "", ""), "Call-ID", "Call", 1)
		}},
		{"response to nothing", "", "", func(p *peer) string {
			return "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 198.51.100.1:5060;branch=z9hG4bKnot-ours\nFrom: <sip:a@b>;tag=1\nTo: <sip:c@d>;tag=2\nCall-ID: x\nCSeq: 1 INVITE\n\n"
		}},
		{"response with a branch like ours", "", "", func(p *peer) string {
			return "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 198.51.100.1:5060;branch=" + newBranch(3) + "\nFrom: <sip:a@b>;tag=1\nTo: <sip:c@d>;tag=2\nCall-ID: x\nCSeq: 1 INVITE\n\n"
		}},
		{"no Via", "", "", func(p *peer) string {
			return strings.Replace(p.inviteText("z9hG4bK1", 1, "", sdp), "Via:", "X-Via:", 1)
		}},
		{"garbage", "", "", func(*peer) string { return "\x00\x01\x02 what is this\r\n\r\n" }},
		{"HTTP", "", "", func(*peer) string { return "GET / HTTP/1.1\r\nHost: x\r\n\r\n" }},
		{"keep-alive", "", "", func(*peer) string { return "\r\n\r\n" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			rigged(t, nil, func(r *rig) {
				p, pbx := r.phone(), r.pbx()
				s := r.establishOn(p, pbx) // a call in progress, which nothing of this may disturb
				p.send(c.edit(p))
				if c.want == "" {
					p.silent(time.Second)
				} else {
					m := p.untilFinal()
					if !m.is(c.want) || c.header != "" && m.get(c.header) == "" {
						t.Errorf("want %s with %q, got:\n%s", c.want, c.header, m)
					}
					if m.get("Via") == "" || !strings.Contains(m.get("Via"), "received=198.51.100.20") {
						t.Errorf("Via of the answer: %q", m.get("Via"))
					}
				}
				s.a.send("BYE", "", "")
				pbx.answer(pbx.expect("BYE"), 200, "", "", "")
				p.until("200 BYE")
			})
		})
	}
}

// TestStrangers: a source that matches no trunk gets nothing at all.
func TestStrangers(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		stranger := r.peer(ap("203.0.113.66:5060"), outsideAddr)
		stranger.send(stranger.inviteText("z9hG4bK1", 1, "", description("203.0.113.66", 4000)))
		stranger.send(stranger.request("OPTIONS", "sip:198.51.100.1", "<sip:a@b>;tag=1", "<sip:a@b>", "o1", 1, "", ""))
		stranger.send("INVITE nonsense SIP/2.0\r\n\r\n")
		stranger.silent(time.Minute)
		r.wantCounter("strangers_dropped", 3)
		// The phones' network is not the PBX's.
		wrong := r.peer(ap("198.51.100.21:5060"), insideAddr)
		wrong.send(wrong.request("OPTIONS", "sip:10.9.0.1", "<sip:a@b>;tag=1", "<sip:a@b>", "o1", 1, "", ""))
		wrong.silent(time.Minute)
	})
}

func TestNoRoute(t *testing.T) {
	rigged(t, func(c *Config) { c.Trunks[0].Route = "" }, func(r *rig) {
		p := r.phone()
		p.send(p.inviteText("z9hG4bKx", 1, "", description("198.51.100.20", 4000)))
		if res := p.expect("404"); !strings.Contains(res.get("Warning"), "no route") {
			t.Errorf("404:\n%s", res)
		}
	})
}

func TestDrain(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		s := r.establish()
		r.srv.Drain(true)
		s.phone.send(s.phone.requestVia("z9hG4bKd", "INVITE", "sip:1001@198.51.100.1", "<sip:alice@example.com>;tag=a2", "<sip:1001@example.com>", "c2", 1, "", ""))
		if res := s.phone.expect("503"); res.get("Retry-After") == "" {
			t.Errorf("503:\n%s", res)
		}
		s.a.send("INFO", "", "")
		s.pbx.answer(s.pbx.expect("INFO"), 200, "", "", "")
		s.phone.until("200 INFO")
		r.srv.Drain(false)
		s.phone.send(s.phone.requestVia("z9hG4bKe", "INVITE", "sip:1001@198.51.100.1", "<sip:alice@example.com>;tag=a3", "<sip:1001@example.com>", "c3", 1, "", ""))
		s.phone.until("100")
		s.pbx.answer(s.pbx.expect("INVITE"), 486, "x", "", "")
		s.phone.until("486")
		s.a.send("BYE", "", "")
		s.pbx.until("BYE")
	})
}

func TestFullPool(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		r.stop()
		r.pairs = 1
		r.boot(nil, 0)
		s := r.establish()
		s.phone.send(s.phone.requestVia("z9hG4bKd", "INVITE", "sip:1001@198.51.100.1", "<sip:alice@example.com>;tag=a2", "<sip:1001@example.com>", "c2", 1, "", description("198.51.100.20", 4010)))
		s.phone.expect("100")
		if res := s.phone.expect("503"); res.get("Retry-After") == "" || !strings.Contains(res.get("Warning"), "ports") {
			t.Errorf("503:\n%s", res)
		}
		s.pbx.silent(100 * time.Millisecond)
		if r.srv.Len() != 1 {
			t.Errorf("%d calls", r.srv.Len())
		}
		s.a.send("BYE", "", "")
		s.pbx.answer(s.pbx.expect("BYE"), 200, "", "", "")
		s.phone.until("200 BYE")
	})
}

func TestMaxCalls(t *testing.T) {
	rigged(t, func(c *Config) { c.Limits.Calls = 1 }, func(r *rig) {
		s := r.establish()
		s.phone.send(s.phone.requestVia("z9hG4bKd", "INVITE", "sip:1001@198.51.100.1", "<sip:alice@example.com>;tag=a2", "<sip:1001@example.com>", "c2", 1, "", ""))
		if res := s.phone.expect("503"); res.get("Retry-After") == "" {
			t.Errorf("503:\n%s", res)
		}
		s.a.send("BYE", "", "")
		s.pbx.answer(s.pbx.expect("BYE"), 200, "", "", "")
		s.phone.until("200 BYE")
	})
}

// TestComplaintsAreLimited: garbage is answered a few times, then in silence, and never logged line by line.
func TestComplaintsAreLimited(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		p := r.phone()
		for i := range 500 {
			p.send(strings.Replace(p.inviteText(fmt.Sprintf("z9hG4bK%d", i), 1, "", ""), "1 INVITE", "x INVITE", 1))
		}
		synctest.Wait()
		if n := len(p.conn.in); n != 10 {
			t.Errorf("%d answers to 500 malformed requests within a moment", n)
		}
		r.wantCounter("complaints_suppressed", 490)
		if n := strings.Count(r.log.String(), "malformed"); n != 1 {
			t.Errorf("%d log lines", n)
		}
	})
}

func TestOverload(t *testing.T) {
	rigged(t, func(c *Config) { c.Shards, c.Limits.Queue = 1, 8 }, func(r *rig) {
		p := r.phone()
		sh := r.srv.shards[0]
		sh.mu.Lock() // the shard is busy
		for i := range 20 {
			p.send(p.requestVia(fmt.Sprintf("z9hG4bK%d", i), "OPTIONS", "sip:198.51.100.1", "<sip:a@b>;tag=1", "<sip:a@b>", "o", 1, "", ""))
		}
		for i := range 20 {
			p.send(p.requestVia(fmt.Sprintf("z9hG4bKb%d", i), "BYE", "sip:198.51.100.1", "<sip:a@b>;tag=1", "<sip:a@b>", "o", 1, "", ""))
		}
		for r.srv.Counters()["messages_received"] < 40 {
			// The shard waits for a lock, which is no durable block: time does not pass here.
			yield()
		}
		sh.mu.Unlock()
		synctest.Wait()
		c := r.srv.Counters()
		if c["overload_dropped"] < 10 || c["queue_full_dropped"] < 10 {
			t.Errorf("dropped %d new requests early, %d others", c["overload_dropped"], c["queue_full_dropped"])
		}
	})
}

func TestTrunkMatching(t *testing.T) {
	var s sources
	wide, narrow, one := &trunk{}, &trunk{}, &trunk{}
	s.add(netip.MustParsePrefix("10.0.0.0/8"), wide)
	s.add(netip.MustParsePrefix("10.1.0.0/16"), narrow)
	s.add(netip.MustParsePrefix("10.1.2.3/32"), one)
	s.add(netip.MustParsePrefix("10.1.2.3/32"), wide)
	s.add(netip.MustParsePrefix("2001:db8::/32"), wide)
	for _, c := range []struct {
		addr string
		want *trunk
		why  string
	}{
		{"10.2.3.4", wide, "only the widest holds it"},
		{"10.1.9.9", narrow, "the longer prefix decides"},
		{"10.1.2.3", one, "the first of two equal ones"},
		{"11.0.0.1", nil, "nobody's"},
		{"2001:db8::1", wide, "IPv6"},
		{"2001:db9::1", nil, "nobody's"},
	} {
		if got := s.find(netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("%s: wrong trunk (%s)", c.addr, c.why)
		}
	}
}
