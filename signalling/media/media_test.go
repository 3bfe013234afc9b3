package media

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/ports"
)

func addr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// text joins lines with CRLF, the last one included.
func text(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n" }

// audio is the description of a phone with one audio stream.
func audio(address, port string, more ...string) string {
	return text(append([]string{"v=0", "o=- 1 1 IN IP4 " + address, "s=-", "c=IN IP4 " + address, "t=0 0", "m=audio " + port + " RTP/AVP 0 8"}, more...)...)
}

func body(s string) Body { return Body{ContentType: "application/sdp", Data: []byte(s)} }

// only are the sources of exactly these addresses.
func only(addrs ...string) relay.AcceptSet {
	var set relay.AcceptSet
	for _, a := range addrs {
		set.Nets = append(set.Nets, netip.PrefixFrom(addr(a), addr(a).BitLen()))
	}
	return set
}

// fakePorts hands out 20000, 20002, ... at one address or several in turn, per network.
type fakePorts struct {
	addrs map[string][]netip.Addr
	used  map[string]int
	limit int // pairs per network; 0: none
}

func newPorts() *fakePorts {
	return &fakePorts{used: make(map[string]int), addrs: map[string][]netip.Addr{
		"outside": {addr("203.0.113.10")}, "inside": {addr("10.0.0.1")}, "v6": {addr("2001:db8::10")},
		"two": {addr("203.0.113.21"), addr("203.0.113.22")},
	}}
}

func (p *fakePorts) Allocate(network string) (relay.Pair, error) {
	addrs, n := p.addrs[network], p.used[network]
	if len(addrs) == 0 {
		return relay.Pair{}, relay.ErrNoNetwork
	}
	if p.limit > 0 && n == p.limit {
		return relay.Pair{}, ports.ErrExhausted
	}
	p.used[network]++
	port := uint16(20000 + 2*n)
	return relay.Pair{Addr: addrs[n%len(addrs)], RTP: port, RTCP: port + 1}, nil
}

// insideRoutes is what can be reached inside: the networks of a lab, and nothing by a default route.
func insideRoutes(a netip.Addr) bool {
	for _, p := range []string{"10.0.0.0/16", "127.0.0.0/8", "0.0.0.0/32"} {
		if netip.MustParsePrefix(p).Contains(a) {
			return true
		}
	}
	return false
}

func newEngine() *Engine {
	return New(Config{Networks: []Network{
		{Name: "outside", Media: []netip.Addr{addr("203.0.113.10")}},
		{Name: "inside", Trust: true, Routable: insideRoutes, Media: []netip.Addr{addr("10.0.0.1")}},
		{Name: "lab", Routable: insideRoutes, Media: []netip.Addr{addr("10.0.0.2")}},
		{Name: "v6", Media: []netip.Addr{addr("2001:db8::10")}},
		{Name: "two"},
		{Name: "behind", Media: []netip.Addr{addr("10.7.0.1")}, Advertise: map[netip.Addr]netip.Addr{addr("10.7.0.1"): addr("198.51.100.7")}},
	}})
}

// call is one call between two parties over an engine.
type call struct {
	t       *testing.T
	engine  *Engine
	ports   Ports
	session *relay.Session
	a, b    Side
}

func newCall(t *testing.T) *call {
	return &call{t: t, engine: newEngine(), ports: newPorts(), session: &relay.Session{ID: "s"},
		a: Side{Party: "a", Network: "outside", From: addr("198.51.100.20"), Label: "phone"},
		b: Side{Party: "b", Network: "inside", From: addr("10.0.0.5"), Label: "pbx"}}
}

func (c *call) do(offer bool, from, to Side, s string) string {
	c.t.Helper()
	f := c.engine.Answer
	if offer {
		f = c.engine.Offer
	}
	out, err := f(c.ports, c.session, from, to, body(s))
	if err != nil {
		c.t.Fatalf("%v\n%s", err, s)
	}
	if _, err := relay.Compile(c.session); err != nil {
		c.t.Fatal(err)
	}
	return string(out.Data)
}

func (c *call) offer(from, to Side, s string) string {
	c.t.Helper()
	return c.do(true, from, to, s)
}
func (c *call) answer(from, to Side, s string) string {
	c.t.Helper()
	return c.do(false, from, to, s)
}

// set up is the usual call: a offers, b answers.
func (c *call) setUp() {
	c.t.Helper()
	c.offer(c.a, c.b, audio("198.51.100.20", "4000"))
	c.answer(c.b, c.a, audio("10.0.0.5", "6000"))
}

func (c *call) stream(id relay.PartyID, i int) *relay.Stream { return &c.session.Party(id).Streams[i] }

func (c *call) expect(got, want string) {
	c.t.Helper()
	if got != want {
		c.t.Errorf("\ngot  %q\nwant %q", got, want)
	}
}

// windows returns the windows of a's and b's first stream.
func (c *call) windows() [2]uint16 {
	return [2]uint16{c.stream("a", 0).Window, c.stream("b", 0).Window}
}

func equalSets(a, b relay.AcceptSet) bool { return a.Any == b.Any && slices.Equal(a.Nets, b.Nets) }
