package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-relay/tandem/relay/ports"
)

// The defaults and limits of single keys.
const (
	defaultFlows      = 262144
	minFlows          = 1024
	maxFlows          = 16 << 20
	defaultOrphan     = 10 * time.Minute
	defaultQuarantine = 2 * time.Second
	maxSocketPath     = 107 // sockaddr_un
)

// loader turns the document into a Config, once. Beside the plain values it keeps where they stand, for the checks between them.
type loader struct {
	*section
	host     Host
	plane    string
	networks []*networkAt
	trunks   []*trunkAt
}

// networkAt is a network and where its parts stand.
type networkAt struct {
	Network
	at        span // its header
	name      text
	ifaces    []text
	listeners []span // of Network.Listeners
	media     []mediaAt
	// silent says that no SIP listener is given at all.
	silent bool
}

// mediaAt is where the parts of a Media stand.
type mediaAt struct{ address, ports text }

// trunkAt is a trunk and where its parts stand.
type trunkAt struct {
	Trunk
	name, network, peer, route text
	sources                    []span // of Trunk.Sources
}

func (l *loader) config() *Config {
	c := &Config{Instance: "default"}
	if t := l.text("instance"); t.set {
		c.Instance = t.string
		if !ValidInstance(t.string) {
			l.add(t.at, nameRule, "instance = %q cannot name an instance", t.string)
			c.Instance = "default"
		}
	}
	c.Dataplane = l.choice("dataplane", XDP, Userspace)
	l.plane = c.Dataplane
	c.RuntimeDir = filepath.Join(RuntimeBase(), c.Instance)

	api := l.sub("api")
	c.Socket = l.socket(api, c.RuntimeDir)
	api.finish()

	limits := l.sub("limits")
	c.Flows = uint32(limits.integer("flows", defaultFlows, minFlows, maxFlows))
	limits.finish()

	timers := l.sub("timers")
	c.Orphan = timers.duration("orphan", defaultOrphan, time.Second, 24*time.Hour)
	c.Quarantine = timers.duration("quarantine", defaultQuarantine, 0, 10*time.Minute)
	timers.finish()

	for _, s := range l.subs("network", "[[network]]") {
		l.networks = append(l.networks, l.network(s))
	}
	for _, s := range l.subs("trunk", "[[trunk]]") {
		l.trunks = append(l.trunks, l.trunk(s))
	}
	if !l.given("network") && !l.misspelt("network") {
		l.add(span{}, "begin with a [[network]]: name, interfaces, sip, and a [[network.media]] with address and ports",
			"no network is defined")
	}
	l.finish()

	l.checkNetworks()
	l.checkMedia()
	l.checkTrunks()
	for _, n := range l.networks {
		c.Networks = append(c.Networks, n.Network)
	}
	for _, t := range l.trunks {
		c.Trunks = append(c.Trunks, t.Trunk)
	}
	return c
}

func (l *loader) socket(api *section, dir string) string {
	t := api.text("socket")
	if !t.set {
		return filepath.Join(dir, "api.sock")
	}
	if !filepath.IsAbs(t.string) || filepath.Clean(t.string) != t.string || strings.ContainsRune(t.string, 0) {
		l.add(t.at, `as in "/run/tandem/default/api.sock"`, "socket = %q is not an absolute path", t.string)
	} else if len(t.string) > maxSocketPath {
		l.add(t.at, fmt.Sprintf("at most %d bytes", maxSocketPath), "socket is too long for a unix socket")
	}
	return t.string
}

func (l *loader) network(s *section) *networkAt {
	n := &networkAt{at: s.table.at}
	n.name = s.name(`as in name = "outside"`)
	n.Name = n.name.string
	n.ifaces = s.texts("interfaces")
	for _, i := range n.ifaces {
		n.Interfaces = append(n.Interfaces, i.string)
	}
	if l.plane == XDP {
		const hint = `the data plane "xdp" attaches to them, as in interfaces = ["eth0"]`
		if v, ok := s.get("interfaces", kindArray); ok && len(v.items) == 0 {
			s.add(v.at, hint, "interfaces is empty")
		} else if !s.given("interfaces") {
			s.missing("interfaces", hint)
		}
	}
	advertise := l.advertise(s, "advertise")
	sip, ok := s.get("sip", kindArray)
	n.silent = !s.given("sip") || ok && len(sip.items) == 0
	for _, t := range s.texts("sip") {
		l.listener(n, t, advertise)
	}
	n.Trust = s.boolean("trust", false)
	n.NAT = s.choice("nat", "auto", "on", "off")
	n.Mode = s.choice("mode", "native", "generic")
	for _, m := range s.subs("media", "[[network.media]]") {
		l.media(n, m, advertise)
	}
	if !s.given("media") {
		s.missing("media", "add a [[network.media]] with address and ports below it")
	}
	s.finish()
	n.silent = n.silent && !s.misspelt("sip")
	return n
}

// advertise reads the address that peers are told in place of our own; zero: our own.
func (l *loader) advertise(s *section, key string) netip.Addr {
	t := s.text(key)
	if !t.set {
		return netip.Addr{}
	}
	return l.address(key, t)
}

func (l *loader) listener(n *networkAt, t text, advertise netip.Addr) {
	const example = `as in sip = ["udp:203.0.113.10:5060"]`
	transport, rest, ok := strings.Cut(t.string, ":")
	switch {
	case !ok || strings.ContainsAny(transport, ".[0123456789"):
		l.add(t.at, fmt.Sprintf("name the transport: %q", "udp:"+t.string), "SIP listener %q has no transport", t.string)
		return
	case transport == "tcp" || transport == "tls" || transport == "ws" || transport == "wss":
		l.add(t.at, "only udp is supported yet", "SIP listener %q: transport %q cannot be used", t.string, transport)
		return
	case transport != "udp":
		l.add(t.at, example, "SIP listener %q: transport %q is not known", t.string, transport)
		return
	}
	addr, ok := l.addrPort("SIP listener", t, rest, example)
	if !ok {
		return
	}
	if !l.host.local(addr.Addr()) {
		l.add(t.at, l.hostHint(), "SIP listener %q: the address is not on this host", t.string)
	}
	listener := Listener{Addr: addr, Advertise: addr}
	if advertise.IsValid() {
		listener.Advertise = netip.AddrPortFrom(advertise, addr.Port())
	}
	n.Listeners = append(n.Listeners, listener)
	n.listeners = append(n.listeners, t.at)
}

func (l *loader) media(n *networkAt, s *section, advertise netip.Addr) {
	var m Media
	at := mediaAt{address: s.required("address", `as in address = "203.0.113.10"`), ports: s.required("ports", `as in ports = "20000-39999"`)}
	if at.address.set && at.address.string != "" {
		if m.Address = l.address("address", at.address); m.Address.IsValid() && !l.host.local(m.Address) {
			l.add(at.address.at, l.hostHint(), "media address %s is not on this host", m.Address)
		} else if m.Address.IsLoopback() && l.plane == XDP {
			l.add(at.address.at, `calls over loopback need dataplane = "userspace"`, "media address %s is of loopback, which has no XDP", m.Address)
			m.Address = netip.Addr{} // what else is wrong with it does not matter
		}
	}
	if at.ports.set && at.ports.string != "" {
		m.Ports = l.ports(at.ports)
	}
	m.Advertise = m.Address
	if advertise.IsValid() {
		m.Advertise = advertise
	}
	if own := l.advertise(s, "advertise"); own.IsValid() {
		m.Advertise = own
	}
	s.finish()
	n.Media, n.media = append(n.Media, m), append(n.media, at)
}

// ports reads a range of pairs: it begins with an even port for RTP and ends with the odd port of its RTCP.
func (l *loader) ports(t text) ports.Range {
	first, last, both := strings.Cut(t.string, "-")
	a, errA := strconv.ParseUint(strings.TrimSpace(first), 10, 32)
	b, errB := strconv.ParseUint(strings.TrimSpace(last), 10, 32)
	bad := func(hint, format string, args ...any) ports.Range {
		l.add(t.at, hint, "ports = %q: %s", t.string, fmt.Sprintf(format, args...))
		return ports.Range{}
	}
	switch {
	case !both || errA != nil || errB != nil:
		return bad(`as in ports = "20000-39999"`, "not a range of ports")
	case a > 65535 || b > 65535:
		return bad("end with 65535 at most", "ports end at 65535")
	case a < 1024:
		return bad(`take ports from 1024 on, as in ports = "20000-39999"`, "media ports begin at 1024")
	case a > b:
		return bad(fmt.Sprintf(`the smaller port stands first: ports = "%d-%d"`, b, a), "the range ends before it begins")
	case a == b:
		return bad(`RTP and RTCP take a port each, as in ports = "20000-39999"`, "the range ends before it holds one pair of ports")
	case a%2 != 0:
		return bad(fmt.Sprintf("begin with %d: RTP takes the even port of a pair", a+1), "the first port is odd")
	case b%2 == 0:
		return bad(fmt.Sprintf("end with %d: RTCP takes the odd port of a pair", b+1), "the last port is even")
	}
	return ports.Range{First: uint16(a), Last: uint16(b)}
}

func (l *loader) trunk(s *section) *trunkAt {
	t := &trunkAt{}
	t.name = s.name(`as in name = "carrier"`)
	t.network = s.required("network", "the name of the network in which its peer is met")
	t.peer = s.required("peer", `where its calls are sent, as in peer = "203.0.113.20:5060"`)
	t.Name, t.Network = t.name.string, t.network.string
	if t.peer.set && t.peer.string != "" {
		t.Peer, _ = l.addrPort("peer", t.peer, t.peer.string, `as in peer = "203.0.113.20:5060"`)
	}
	for _, source := range s.texts("sources") {
		if p, ok := l.prefix("sources", source); ok {
			t.Sources, t.sources = append(t.Sources, p), append(t.sources, source.at)
		}
	}
	if v, ok := s.get("sources", kindArray); ok && len(v.items) == 0 {
		l.add(v.at, "leave the key out: the peer's address is the default", "sources is empty: no message would belong to the trunk")
	}
	// Whatever is listed, the peer's answers come from its own address.
	if own := t.Peer.Addr(); own.IsValid() && !slices.ContainsFunc(t.Sources, func(p netip.Prefix) bool { return p.Contains(own) }) {
		t.Sources, t.sources = append(t.Sources, netip.PrefixFrom(own, own.BitLen())), append(t.sources, t.peer.at)
	}
	t.route = s.text("route")
	t.Route = t.route.string
	l.mediaSource(t, s)
	s.finish()
	return t
}

// mediaSource reads from where a trunk's media may come: a word, or a list of networks.
func (l *loader) mediaSource(t *trunkAt, s *section) {
	const key = "media_source"
	t.MediaSource = "auto"
	if s.given(key) && s.table.values[key].value.kind == kindArray {
		v, _ := s.get(key, kindArray)
		t.MediaSource = "networks"
		for _, e := range s.elements(key, v) {
			if p, ok := l.prefix(key, e); ok {
				t.MediaNetworks = append(t.MediaNetworks, p)
			}
		}
		if len(v.items) == 0 {
			l.add(v.at, "list networks, or leave the key out", "%s is empty: no media would be accepted", key)
		}
		return
	}
	t.MediaSource = s.choice(key, "auto", "sdp", "signalling", "any")
}
