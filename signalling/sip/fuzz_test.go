package sip

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/tandem-relay/tandem/relay/relaytest"
	"github.com/tandem-relay/tandem/signalling/media"
)

// seeds are messages of every kind that the program treats in its own way.
func seeds() []string {
	sdp := description("198.51.100.20", 4000)
	head := "Via: SIP/2.0/UDP 198.51.100.20;branch=z9hG4bKx;rport\nFrom: \"A, \\\"B\" <sip:a@b>;tag=1\nTo: <sip:c@d>\nCall-ID: x\nMax-Forwards: 70\nContact: <sip:a@198.51.100.20>\n"
	all := []string{
		"INVITE sip:1@198.51.100.1 SIP/2.0\n" + head + "CSeq: 1 INVITE\nContent-Type: application/sdp\nContent-Length: 200\n\n" + sdp,
		"INVITE sip:1@198.51.100.1 SIP/2.0\n" + head + "CSeq: 1 INVITE\n" + odd + "\n",
		"INVITE tel:+1;phone-context=x SIP/2.0\nv: SIP / 2.0 / UDP  h : 5 ; branch = 1 ,SIP/2.0/UDP g\n" + head + "CSeq: 1 INVITE\nRoute: <sip:r;lr>,<sip:q>\n\n",
		"OPTIONS sip:1@[2001:db8::1]:70 SIP/2.0\n" + head + "CSeq: 1 OPTIONS\nl: 0\n\n",
		"CANCEL sip:1@198.51.100.1 SIP/2.0\n" + head + "CSeq: 1 CANCEL\n\n",
		"BYE sip:00aaaaaaaaaaaaaaaaaaaaaaaaaa@198.51.100.1 SIP/2.0\n" + strings.Replace(head, "<sip:c@d>", "<sip:c@d>;tag=2", 1) + "CSeq: 2 BYE\n\n",
		"ACK sip:00aaaaaaaaaaaaaaaaaaaaaaaaaa@198.51.100.1 SIP/2.0\n" + strings.Replace(head, "<sip:c@d>", "<sip:c@d>;tag=2", 1) + "CSeq: 1 ACK\n\n",
		"SIP/2.0 200 OK\nVia: SIP/2.0/UDP h;branch=z9hG4bK00aaaaaaaaaaaaaaaaaaaaaaaaaa\n" + head + "CSeq: 1 INVITE\nRecord-Route: <sip:r;lr>\n\n" + sdp,
		"SIP/2.0 180\n" + head + "CSeq: 1 INVITE\n\n",
		"\n\n", "x", "INVITE  SIP/2.0\n\n", "SIP/2.0 99999 x\n\n", "A B SIP/2.0\nV",
	}
	for i := range all {
		all[i] = crlf(all[i])
	}
	return all
}

// FuzzMessage: what passes unchanged is the same byte for byte; what we rewrite is understood again, and as the same.
func FuzzMessage(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	p := newParser()
	ln := &listener{shown: "192.0.2.1:5060"}
	f.Fuzz(func(t *testing.T, raw string) {
		m := &message{raw: raw, from: ap("198.51.100.20:31234"), ln: ln, trunk: &trunk{}}
		if m.index() != nil {
			return
		}
		if _, fault := m.check(p, nil); fault != nil {
			return
		}
		if got := string(m.render(nil, &rewrite{maxForwards: -1, via: m.lines(fieldVia), routes: nil})); !m.routing() && m.oneVia() && got != m.raw {
			t.Fatalf("changed without reason:\n%q\n%q", m.raw, got)
		}
		w := rewrite{
			via: ln.viaLine(newBranch(1)), contact: "sip:token@192.0.2.1", needContact: true, maxForwards: m.nextForwards(),
			cseq: m.cseq + 1, rackOffset: 1, fromTag: "f1", toTag: "t1", callID: "other", newBody: true, body: []byte("body"),
		}
		if m.request {
			w.start = m.method + " " + retarget(m.uri, "192.0.2.9:5060") + " SIP/2.0"
		}
		again := &message{raw: string(m.render(nil, &w)), from: m.from, ln: ln, trunk: m.trunk}
		if err := again.index(); err != nil {
			t.Fatalf("%v in:\n%q\nfrom:\n%q", err, again.raw, raw)
		}
		if m.cseq == maxCSeq {
			return
		}
		if _, fault := again.check(p, nil); fault != nil {
			if fault.reason == "Malformed Message" && m.request {
				return // a Request-URI whose user part only looks like one
			}
			t.Fatalf("%d %s in:\n%q\nfrom:\n%q", fault.status, fault.reason, again.raw, raw)
		}
		if again.method != m.method || again.cseq != m.cseq+1 || again.callID != "other" || again.fromTag != "f1" || again.toTag != "t1" ||
			again.contact != "sip:token@192.0.2.1" || len(again.fields) > len(m.fields)+2 {
			t.Fatalf("another message:\n%q\nfrom:\n%q", again.raw, raw)
		}
		if m.first(fieldContentLength) != nil && again.body != "body" {
			t.Fatalf("body %q", again.body)
		}
		if m.request {
			res := &message{raw: string(m.response(nil, m.responseVia(), 404, "", "tag", ""))}
			if err := res.index(); err != nil {
				t.Fatalf("%v in:\n%q", err, res.raw)
			}
			if _, fault := res.check(p, nil); fault != nil || res.callID != m.callID || res.cseq != m.cseq || res.topVia.branch != m.topVia.branch || res.toTag == "" && m.toTag == "" {
				t.Fatalf("%v in response:\n%q\nto:\n%q", fault, res.raw, raw)
			}
		}
	})
}

// routing reports whether the message has fields that never pass.
func (m *message) routing() bool {
	return m.first(fieldRoute) != nil || m.first(fieldRecordRoute) != nil
}

func (m *message) oneVia() bool {
	n := 0
	for _, f := range m.fields {
		if f.id == fieldVia {
			n++
		}
	}
	return n == 1
}

// directServer is a server without goroutines: a test gives its shard one message after the other.
func directServer(t testing.TB) (*Server, [2]*sinkConn) {
	t.Helper()
	r, _, _ := relaytest.NewRelay(t)
	s, err := New(Config{
		Listeners: []Listener{{Network: "outside", Addr: outsideAddr}, {Network: "inside", Addr: insideAddr}},
		Trunks: []Trunk{
			{Name: "phones", Network: "outside", Peer: phoneAddr, Route: "pbx"}, {Name: "pbx", Network: "inside", Peer: pbxAddr, Route: "phones"},
		},
		Relay: r, Shards: 1, Logger: slog.New(slog.DiscardHandler), Limits: Limits{Complaints: 1000},
		Media: media.New(media.Config{Networks: []media.Network{{Name: "outside"}, {Name: "inside", Trust: true, Routable: func(netip.Addr) bool { return true }}}}),
	})
	if err != nil {
		t.Fatal(err)
	}
	sinks := [2]*sinkConn{{}, {}}
	for i, ln := range s.listeners {
		ln.conn = sinks[i]
	}
	return s, sinks
}

// put gives the server a datagram and lets it do what follows.
func (s *Server) put(ln int, from netip.AddrPort, raw string) {
	s.listeners[ln].guarded([]byte(raw), from)
	sh := s.shards[0]
	for len(sh.queue) > 0 {
		sh.handle(<-sh.queue)
	}
}

// FuzzCall: any datagram, from either side and at every stage of a call, neither panics nor breaks the call's end.
func FuzzCall(f *testing.F) {
	for _, s := range seeds() {
		for stage := range byte(5) {
			f.Add(s, stage)
		}
	}
	f.Fuzz(func(t *testing.T, raw string, stage byte) {
		s, sinks := directServer(t)
		body := description("198.51.100.20", 4000)
		request := func(method, uri, to string, cseq, extra, body string) string {
			return crlf(method+" "+uri+" SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.20:5060;branch=z9hG4bKown"+method+";rport\nMax-Forwards: 70\nFrom: <sip:a@x>;tag=own\nTo: "+to+
				"\nCall-ID: own\nCSeq: "+cseq+" "+method+"\n"+extra+"Contact: <sip:me@198.51.100.20>\nContent-Type: application/sdp\n\n") + body
		}
		var inv text
		for step := range byte(5) {
			if step == stage%5 {
				for ln, from := range []netip.AddrPort{phoneAddr, pbxAddr} {
					s.put(ln, from, raw)
					// The same with the identifiers of the call that is there.
					known := strings.NewReplacer("00aaaaaaaaaaaaaaaaaaaaaaaaaa", strings.TrimPrefix(inv.branch(), magicCookie), "Call-ID: x", "Call-ID: own", "tag=1", "tag=own").Replace(raw)
					s.put(ln, from, known)
				}
			}
			switch step {
			case 0:
				s.put(0, phoneAddr, request("INVITE", "sip:1@198.51.100.1", "<sip:1@x>", "1", "", body))
				inv = text(sinks[1].last)
			case 1:
				s.put(1, pbxAddr, answer(inv, 183, "b1", "Contact: <sip:b@10.9.0.2>\n", description("10.9.0.2", 6000)))
			case 2:
				s.put(1, pbxAddr, answer(inv, 200, "b1", "Contact: <sip:b@10.9.0.2>\n", description("10.9.0.2", 6000)))
			case 3:
				s.put(0, phoneAddr, request("ACK", "sip:1@198.51.100.1", "<sip:1@x>;tag=b1", "1", "", ""))
			}
		}
		if n := s.Counters()["panics"]; n != 0 {
			t.Fatalf("%d panics", n)
		}
		for _, c := range s.Calls() {
			s.Hangup(c.ID, "end")
		}
		for _, sh := range s.shards {
			sh.mu.Lock()
			if len(sh.calls) > 0 {
				for _, c := range sh.calls {
					if c.State != StateEnding && c.State != StateCancelled {
						t.Errorf("call in state %s after hang-up", c.State)
					}
				}
			}
			sh.mu.Unlock()
		}
	})
}
