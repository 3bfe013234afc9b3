package media

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/tandem-relay/tandem/relay/relaytest"
	"github.com/tandem-relay/tandem/signalling/sdp"
)

var _ Ports = (*relay.Tx)(nil)

// bench is an engine over a real relay: inside 192.0.2.1, outside 203.0.113.1.
type bench struct {
	t      *testing.T
	engine *Engine
	relay  *relay.Relay
	plane  *relaytest.Plane
}

func newBench(t *testing.T, networks ...relay.Network) *bench {
	b := &bench{t: t, engine: New(Config{Networks: []Network{
		{Name: "inside", Media: []netip.Addr{addr("192.0.2.1")}, Trust: true},
		{Name: "outside", Media: []netip.Addr{addr("203.0.113.1")}},
	}})}
	b.relay, b.plane, _ = relaytest.NewRelay(t, networks...)
	return b
}

// step runs one transaction over a session, a new one without id, and commits if it went well.
func (b *bench) step(id relay.SessionID, do func(*relay.Tx, *relay.Session) error) (relay.SessionID, error) {
	b.t.Helper()
	tx := b.relay.Begin()
	defer tx.Rollback()
	s := (*relay.Session)(nil)
	if id == "" {
		s = tx.Create()
	} else {
		var err error
		if s, err = tx.Edit(id); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := do(tx, s); err != nil {
		return s.ID, err
	}
	return s.ID, tx.Commit(b.t.Context())
}

// used expects so many pairs in use, per address in the order inside, outside, and none in quarantine but these.
func (b *bench) used(what string, used, quarantined int) {
	b.t.Helper()
	for _, s := range b.relay.Ports() {
		if s.Used != used || s.Quarantined != quarantined {
			b.t.Errorf("%s: %s has %d pairs used, %d in quarantine, want %d and %d", what, s.Network, s.Used, s.Quarantined, used, quarantined)
		}
	}
	for _, p := range b.plane.Problems() {
		b.t.Errorf("%s: %s", what, p)
	}
}

// TestPortsAreNotLeaked: whatever happens, the ports in use are those of the lines of the session.
func TestPortsAreNotLeaked(t *testing.T) {
	b := newBench(t)
	a := Side{Party: "a", Network: "outside", From: addr("198.51.100.20")}
	z := Side{Party: "z", Network: "inside", From: addr("192.0.2.50")}
	offer := func(from, to Side, s string) func(*relay.Tx, *relay.Session) error {
		return func(tx *relay.Tx, session *relay.Session) error {
			_, err := b.engine.Offer(tx, session, from, to, body(s))
			return err
		}
	}
	answer := func(from, to Side, s string) func(*relay.Tx, *relay.Session) error {
		return func(tx *relay.Tx, session *relay.Session) error {
			_, err := b.engine.Answer(tx, session, from, to, body(s))
			return err
		}
	}
	const video = "m=video 4002 RTP/AVP 31"
	for _, c := range []struct {
		name, sdp string
		want      error
	}{
		{"malformed", "nonsense", sdp.ErrSyntax},
		{"a second line that cannot be anchored", audio("198.51.100.20", "4000", "m=audio 4002 RTP/AVP 0", "c=IN IP4 name.example"), ErrUnacceptable},
	} {
		if _, err := b.step("", offer(a, z, c.sdp)); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v", c.name, err)
		}
		b.used(c.name, 0, 0)
	}

	id, err := b.step("", offer(a, z, audio("198.51.100.20", "4000", video)))
	if err != nil {
		t.Fatal(err)
	}
	b.used("offered", 2, 0)
	for range 3 {
		if _, err := b.step(id, answer(z, a, audio("192.0.2.50", "6000", "m=video 0 RTP/AVP 31"))); err != nil {
			t.Fatal(err)
		}
		b.used("answered", 2, 0)
	}
	if _, err := b.step(id, answer(z, a, audio("192.0.2.50", "6000", video, video))); !errors.Is(err, ErrUnacceptable) {
		t.Errorf("answer with more lines: error %v", err)
	}
	b.used("answered with more lines", 2, 0)
	before, _ := b.relay.Session(id)
	if _, err := b.step(id, offer(z, a, audio("192.0.2.50", "6000", video, video))); err != nil {
		t.Fatal(err)
	}
	b.used("a line was added", 3, 0)
	if _, err := b.step(id, func(_ *relay.Tx, s *relay.Session) error { Revert(s, before); return nil }); err != nil {
		t.Fatal(err)
	}
	b.used("the offer was refused", 2, 1)
	if _, err := b.step(id, offer(a, z, audio("198.51.100.20", "4000"))); err != nil {
		t.Fatal(err)
	}
	b.used("a line vanished", 2, 1)
	if _, err := b.step(id, func(tx *relay.Tx, s *relay.Session) error { tx.End(id); return nil }); err != nil {
		t.Fatal(err)
	}
	b.used("ended", 0, 3)
}

func TestExhaustedPoolLeaksNothing(t *testing.T) {
	network := func(name, address string, last uint16) relay.Network {
		return relay.Network{Name: name, Media: []relay.MediaAddress{{Addr: addr(address), Ranges: []ports.Range{{First: 20000, Last: last}}}}}
	}
	b := newBench(t, network("inside", "192.0.2.1", 20005), network("outside", "203.0.113.1", 20001))
	a := Side{Party: "a", Network: "outside", From: addr("198.51.100.20")}
	z := Side{Party: "z", Network: "inside", From: addr("192.0.2.50")}
	for _, from := range []Side{a, z} { // the full pool is that of the sender, or of the receiver
		to := z
		if from.Party == "z" {
			to = a
		}
		_, err := b.step("", func(tx *relay.Tx, s *relay.Session) error {
			_, err := b.engine.Offer(tx, s, from, to, body(audio("198.51.100.20", "4000", "m=audio 4002 RTP/AVP 0")))
			return err
		})
		if !errors.Is(err, ports.ErrExhausted) {
			t.Errorf("error %v", err)
		}
		b.used("exhausted", 0, 0)
	}
}

// TestSpiral: a proxy inside sends a call back to us with its description unchanged. The second session's party is the
// first session's port, and media runs from one to the other.
func TestSpiral(t *testing.T) {
	b := newBench(t)
	phone := Side{Party: "a", Network: "outside", From: addr("198.51.100.20")}
	proxy := Side{Party: "p", Network: "inside", From: addr("192.0.2.50")}
	other := Side{Party: "b", Network: "outside", From: addr("198.51.100.30")}
	back := Side{Party: "q", Network: "inside", From: addr("192.0.2.50")}
	back.Source, _ = ParsePolicy("signalling")
	pass := func(id relay.SessionID, offer bool, from, to Side, in Body) (Body, relay.SessionID) {
		t.Helper()
		var out Body
		id, err := b.step(id, func(tx *relay.Tx, s *relay.Session) (err error) {
			f := b.engine.Answer
			if offer {
				f = b.engine.Offer
			}
			out, err = f(tx, s, from, to, in)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out, id
	}
	forth, first := pass("", true, phone, proxy, body(audio("198.51.100.20", "4000")))
	_, second := pass("", true, back, other, forth)
	in, _ := pass(second, false, other, back, body(audio("198.51.100.30", "5000")))
	last, _ := pass(first, false, proxy, phone, in)
	if !strings.Contains(string(last.Data), "c=IN IP4 203.0.113.1\r\n") {
		t.Errorf("answer %q", last.Data)
	}
	s1, _ := b.relay.Session(first)
	s2, _ := b.relay.Session(second)
	p, q := s1.Party("p").Streams[0], s2.Party("q").Streams[0]
	for _, c := range []struct {
		name      string
		one, next relay.Stream
	}{{"the second session's party is the first's port", q, p}, {"and the other way", p, q}} {
		if c.one.Remote.RTP != netip.AddrPortFrom(c.next.Local.Addr, c.next.Local.RTP) || c.one.Remote.RTCP != netip.AddrPortFrom(c.next.Local.Addr, c.next.Local.RTCP) ||
			!c.one.Accept.Contains(c.next.Local.Addr) {
			t.Errorf("%s: %+v", c.name, c.one)
		}
	}
	b.used("spiral", 2, 0)
}

// FuzzExchange: no body upsets the engine, and what it makes of one holds together.
func FuzzExchange(f *testing.F) {
	in, _ := phone()
	f.Add("application/sdp", []byte(in), []byte(in))
	f.Add("multipart/mixed;boundary=b1", []byte("--b1\r\nContent-Type: application/sdp\r\nl: 5\r\n\r\n"+in+"\r\n--b1--"), []byte(in))
	f.Add(`multipart/x; boundary="b\"`, []byte("--b\r\n\r\n"), []byte("v=0"))
	f.Add("application/sdp", []byte(audio("0.0.0.0", "4000", "m=image 0 udptl t38", "m=x 1 TCP *", "a=rtcp:7")), []byte(audio("203.0.113.10", "4000", "m=image 5 udptl t38")))
	engine := newEngine()
	f.Fuzz(func(t *testing.T, kind string, offer, answer []byte) {
		a := Side{Party: "a", Network: "outside", From: addr("198.51.100.20")}
		z := Side{Party: "z", Network: "two", From: addr("198.51.100.30")}
		s, pool := &relay.Session{ID: "s"}, newPorts()
		for i, data := range [][]byte{offer, answer, offer} {
			from, to, exchange := a, z, engine.Offer
			if i == 1 {
				from, to, exchange = z, a, engine.Answer
			}
			before := string(data)
			b := Body{ContentType: kind, Data: data}
			out, err := exchange(pool, s, from, to, b)
			if string(data) != before {
				t.Fatal("the input was changed")
			}
			if len(out.Data) > len(data)+64*(len(data)+1) {
				t.Fatalf("%d bytes became %d", len(data), len(out.Data))
			}
			if _, invalid := relay.Compile(s); invalid != nil {
				t.Fatalf("%v after %q", invalid, data)
			}
			if err != nil || !HasSDP(b) || len(data) > sdp.MaxLine-64 {
				continue
			}
			at, err := locate(out)
			if err != nil || at == nil {
				t.Fatalf("description lost: %v, %q", err, out.Data)
			}
			d, err := sdp.Parse(out.Data[at.from:at.to])
			if err != nil {
				t.Fatalf("%v: %q", err, out.Data)
			}
			for n, m := range d.Media() {
				if m.Port == 0 || !overUDP(m.Proto) {
					continue
				}
				if l := s.Party(to.Party).Streams[n].Local; m.Port != l.RTP || m.Connection.Addr != l.Addr && !m.Connection.Unspecified() {
					t.Fatalf("m= line %d gives %v:%d, want %v: %q", n, m.Connection.Addr, m.Port, l, out.Data)
				}
			}
		}
	})
}
