package sip

import (
	"fmt"
	"net/netip"
	"slices"
)

// trunk is a Trunk with what was derived from it.
type trunk struct {
	Trunk
	route *trunk // nil: none
	ln    *listener
	peer  string // Peer as text
}

// sources finds the trunk of a source address in one network: by prefix length, the longest first.
type sources struct {
	lengths []int
	trunks  map[netip.Prefix]*trunk
}

func (s *sources) add(p netip.Prefix, t *trunk) {
	if s.trunks == nil {
		s.trunks = make(map[netip.Prefix]*trunk)
	}
	if _, taken := s.trunks[p]; taken {
		return
	}
	s.trunks[p] = t
	if !slices.Contains(s.lengths, p.Bits()) {
		s.lengths = append(s.lengths, p.Bits())
		slices.SortFunc(s.lengths, func(a, b int) int { return b - a })
	}
}

func (s *sources) find(addr netip.Addr) *trunk {
	for _, bits := range s.lengths {
		p, err := addr.Prefix(bits)
		if err != nil {
			continue // the prefix is longer than an address of this family
		}
		if t := s.trunks[p]; t != nil {
			return t
		}
	}
	return nil
}

// owns reports whether the address is one of the trunk's.
func (t *trunk) owns(addr netip.Addr) bool {
	return addr == t.Peer.Addr() || slices.ContainsFunc(t.Sources, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// reaches reports whether a host that the trunk's peer names can be one of the trunk's own. A private address is the same behind
// every NAT, so only a source that is private itself speaks for it, not one that takes in the whole Internet.
func (t *trunk) reaches(addr netip.Addr) bool {
	return addr == t.Peer.Addr() || slices.ContainsFunc(t.Sources, func(p netip.Prefix) bool {
		return p.Contains(addr) && (!private(addr) || private(p.Addr()))
	})
}

// shared is the address space of carriers' NAT (RFC 6598).
var shared = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10)

// private reports whether an address means another host in another place.
func private(addr netip.Addr) bool {
	return addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || shared.Contains(addr)
}

// admits reports whether a message may act in the trunk's dialogs: it came through the trunk's network, from one of its
// addresses. Trunks may share addresses, and then also dialogs.
func (t *trunk) admits(m *message) bool {
	return m.ln.network == t.Network && t.owns(m.from.Addr())
}

// makeTrunks builds the trunks and finds their routes and listeners.
func makeTrunks(all []Trunk, listeners []*listener) (map[string]*trunk, error) {
	byName := make(map[string]*trunk, len(all))
	var made []*trunk
	for _, c := range all {
		c.Peer = netip.AddrPortFrom(c.Peer.Addr().Unmap(), c.Peer.Port())
		switch {
		case c.Name == "":
			return nil, fmt.Errorf("trunk has no name")
		case byName[c.Name] != nil:
			return nil, fmt.Errorf("trunk %q stands twice", c.Name)
		case !c.Peer.IsValid() || c.Peer.Port() == 0:
			return nil, fmt.Errorf("trunk %q: peer %v is no address with port", c.Name, c.Peer)
		}
		if len(c.Sources) == 0 {
			c.Sources = []netip.Prefix{netip.PrefixFrom(c.Peer.Addr(), c.Peer.Addr().BitLen())}
		}
		t := &trunk{Trunk: c, peer: c.Peer.String()}
		t.Sources = slices.Clone(c.Sources)
		known := false
		for _, ln := range listeners {
			if ln.network != c.Network {
				continue
			}
			known = true
			if ln.addr.Addr().Is4() == c.Peer.Addr().Is4() && t.ln == nil {
				t.ln = ln
			}
			for i, p := range t.Sources {
				if !p.IsValid() {
					return nil, fmt.Errorf("trunk %q: source %v is no network", c.Name, p)
				}
				t.Sources[i] = p.Masked()
				ln.sources.add(t.Sources[i], t)
			}
		}
		switch {
		case !known:
			return nil, fmt.Errorf("trunk %q: network %q has no listener", c.Name, c.Network)
		case t.ln == nil:
			return nil, fmt.Errorf("trunk %q: network %q has no listener of the family of peer %v", c.Name, c.Network, c.Peer)
		}
		byName[c.Name] = t
		made = append(made, t)
	}
	for _, t := range made {
		if t.Route == "" {
			continue
		}
		if t.route = byName[t.Route]; t.route == nil {
			return nil, fmt.Errorf("trunk %q: route %q is no trunk", t.Name, t.Route)
		}
	}
	return byName, nil
}

// hop returns where a request for the URI is sent, to a peer whose messages come from source.
func (t *trunk) hop(uri string, source netip.AddrPort) netip.AddrPort {
	if t.NAT == NATOn && source.IsValid() {
		return source
	}
	addr, ok := hostOf(uri)
	switch {
	case !ok || !addr.Addr().IsValid() || addr.Addr().IsUnspecified() || addr.Addr().IsMulticast():
		// A host name: the way back is the one that is known to work.
	case t.NAT == NATOff, addr.Addr() == source.Addr(), t.reaches(addr.Addr()), !source.IsValid():
		return addr
	}
	return source
}

// replyTo returns where responses to a request go (RFC 3261 section 18.2.2, RFC 3581 section 4).
func (m *message) replyTo() netip.AddrPort {
	if m.topVia.rport || m.trunk.NAT == NATOn {
		return m.from
	}
	sentBy, err := netip.ParseAddr(m.topVia.host)
	if m.trunk.NAT == NATAuto && (err != nil || sentBy.Unmap() != m.from.Addr()) {
		return m.from
	}
	port := m.topVia.port
	if port == 0 {
		port = defaultPort
	}
	return netip.AddrPortFrom(m.from.Addr(), uint16(port))
}
