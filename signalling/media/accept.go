package media

import (
	"net/netip"
	"slices"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/ports"
)

// special are the prefixes beside those that netip knows by name.
func special() [3]netip.Prefix {
	return [...]netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10), // RFC 6598, carrier-grade NAT
		netip.PrefixFrom(netip.AddrFrom4([4]byte{}), 8),         // RFC 1122, this network
		netip.PrefixFrom(netip.AddrFrom4([4]byte{240}), 4),      // RFC 1112, reserved, and broadcast
	}
}

// Special reports whether an address is private (RFC 1918, RFC 4193), shared (RFC 6598), link-local, loopback,
// unspecified, multicast or reserved: one that means something else, or nothing, in another network.
// Documentation addresses are ordinary ones.
func Special(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsValid() || a.IsPrivate() || a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return true
	}
	for _, p := range special() {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (n *Network) routable(a netip.Addr) bool {
	if n.Routable == nil {
		return !Special(a)
	}
	return n.Routable(a)
}

// accept returns from where a party's media may come. addrs are the addresses of its m= line, RTP first.
//
// Policy auto is decided by the first one. It means sdp if that is an ordinary address that can be routed, or a special
// one that can be routed in a trusted network: there a PBX may have its media on another host than its signalling.
// Else it means signalling: a phone behind NAT, whose media comes from the address from which its signalling
// comes. With auto and signalling, media that the description places at one of our own media addresses (a spiral through
// a PBX) is taken from there, because that is where it comes from.
func (e *Engine) accept(n *Network, from Side, addrs ...netip.Addr) relay.AcceptSet {
	_, own := e.own[addrs[0]]
	switch from.Source.kind {
	case policyAny:
		return relay.AcceptSet{Any: true}
	case policyNets:
		return relay.AcceptSet{Nets: slices.Clone(from.Source.nets)}
	case policySignalling:
		if !own {
			return single(from.From)
		}
	case policyAuto:
		if !own && !n.believes(from, addrs[0]) {
			return single(from.From)
		}
	}
	return single(addrs...)
}

// believes reports whether policy auto takes a description's address as the source of media.
func (n *Network) believes(from Side, addr netip.Addr) bool {
	return unicast(addr) && !strayLoopback(from, addr) && n.routable(addr) && (n.Trust || !Special(addr))
}

// strayLoopback reports whether addr is a loopback address though its party is not on this host.
func strayLoopback(from Side, addr netip.Addr) bool {
	return addr.IsLoopback() && !from.From.Unmap().IsLoopback()
}

// single is the set of the given addresses, without those from which nothing can come.
func single(addrs ...netip.Addr) relay.AcceptSet {
	var set relay.AcceptSet
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		if !unicast(a) || set.Contains(a) {
			continue
		}
		set.Nets = append(set.Nets, netip.PrefixFrom(a, a.BitLen()))
	}
	return set
}

// sendable reports whether packets may be sent to an endpoint before anything was learnt: its address can be routed, or
// is the accepted one from which the party's signalling came, so that the way back to it is known to work. At a media
// address of ours it must be a port that we relay, not one of another service of this host.
func (e *Engine) sendable(n *Network, from Side, set relay.AcceptSet, to netip.AddrPort) bool {
	addr := to.Addr()
	if !unicast(addr) {
		return false
	}
	if _, own := e.own[addr]; own {
		ranges, known := e.ranges[addr]
		return !known || slices.ContainsFunc(ranges, func(r ports.Range) bool { return r.First <= to.Port() && to.Port() <= r.Last })
	}
	if strayLoopback(from, addr) {
		return false
	}
	return n.routable(addr) || addr == from.From.Unmap() && !set.Any && set.Contains(addr)
}

// unicast reports whether packets can come from and go to addr.
func unicast(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
