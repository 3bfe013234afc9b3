package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// address reads one IPv4 address.
func (l *loader) address(key string, t text) netip.Addr {
	addr, err := netip.ParseAddr(t.string)
	if err != nil {
		l.add(t.at, nameHint(t.string, `as in "203.0.113.10"`), "%s = %q is not an IP address", key, t.string)
		return netip.Addr{}
	}
	if problem, hint := unusable(addr); problem != "" {
		l.add(t.at, hint, "%s = %q %s", key, t.string, problem)
		return netip.Addr{}
	}
	return addr.Unmap()
}

// addrPort reads an IPv4 address with a port out of s, which is t or a part of it.
func (l *loader) addrPort(what string, t text, s, example string) (netip.AddrPort, bool) {
	bad := func(hint, format string, args ...any) (netip.AddrPort, bool) {
		l.add(t.at, hint, "%s %q %s", what, t.string, fmt.Sprintf(format, args...))
		return netip.AddrPort{}, false
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		if addr, err := netip.ParseAddr(s); err == nil {
			with := netip.AddrPortFrom(addr, 5060).String()
			return bad(fmt.Sprintf("write %q", strings.TrimSuffix(t.string, s)+with), "has no port")
		}
		if host, port, ok := strings.Cut(s, ":"); ok && digits(port) {
			if _, err := netip.ParseAddr(host); err == nil {
				return bad("ports end at 65535", "has no valid port")
			}
		}
		if rest, ok := strings.CutPrefix(s, "udp:"); ok {
			return bad(fmt.Sprintf("write %q: udp is the only transport yet", rest), "is not an address with a port")
		}
		return bad(nameHint(s, example), "is not an address with a port")
	}
	if problem, hint := unusable(ap.Addr()); problem != "" {
		return bad(hint, "%s", problem)
	}
	if ap.Port() == 0 {
		return bad(example, "has port 0")
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}

// digits reports whether s is a number without a sign.
func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// prefix reads a network, or an address as the network that holds only it.
func (l *loader) prefix(key string, t text) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(t.string)
	if err != nil {
		addr, errAddr := netip.ParseAddr(t.string)
		if errAddr != nil {
			l.add(t.at, nameHint(t.string, `as in "203.0.113.0/24"`), "%s: %q is not a network", key, t.string)
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	if p.Addr().Is6() {
		l.add(t.at, "IPv6 is not supported yet", "%s: %q is not an IPv4 network", key, t.string)
		return netip.Prefix{}, false
	}
	if masked := p.Masked(); masked != p {
		l.add(t.at, fmt.Sprintf("write %q for the network or %q for the address", masked, p.Addr()),
			"%s: %q has bits set behind its prefix", key, t.string)
		return netip.Prefix{}, false
	}
	return p, true
}

// unusable says why an address can be neither ours nor a peer's.
func unusable(addr netip.Addr) (problem, hint string) {
	switch {
	case addr.Zone() != "" || !addr.Unmap().Is4():
		return "is not an IPv4 address", "IPv6 is not supported yet"
	case addr.Unmap().IsUnspecified():
		return "is not one address", "name the address itself: peers are told it"
	case addr.Unmap().IsMulticast() || addr.Unmap() == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is not the address of one host", "multicast and broadcast reach many: write the address of one host"
	}
	return "", ""
}

// nameHint is the hint for what is not an address: names get one of their own.
func nameHint(s, otherwise string) string {
	host, _, _ := strings.Cut(s, ":")
	name := strings.ContainsFunc(host, func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' })
	odd := strings.ContainsFunc(host, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	})
	if name && !odd {
		return "DNS names are not supported yet: write the address"
	}
	return otherwise
}

// hostHint names the addresses that there are.
func (l *loader) hostHint() string {
	list := l.host.addresses()
	if len(list) == 0 {
		return "this host has no IPv4 address"
	}
	if len(list) > 8 {
		list = append(list[:8], "...")
	}
	return "this host has " + strings.Join(list, ", ")
}
