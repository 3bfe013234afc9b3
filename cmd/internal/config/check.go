package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tandem-relay/tandem/relay/ports"
)

// place names where something stands, for messages about a second thing.
func (l *loader) place(at span) string {
	line, _ := l.position(at.start)
	return fmt.Sprintf("line %d", line)
}

func (l *loader) checkNetworks() {
	names := map[string]text{}
	listeners := map[netip.AddrPort]span{}
	modes := map[string]*networkAt{}
	for _, n := range l.networks {
		if first, ok := names[n.Name]; ok && n.Name != "" {
			l.add(n.name.at, "give one of them another name, or put what they hold into one", "network %q is defined twice, first in %s", n.Name, l.place(first.at))
		} else {
			names[n.Name] = n.name
		}
		l.checkInterfaces(n, modes)
		for i, listener := range n.Listeners {
			if first, ok := listeners[listener.Addr]; ok {
				l.add(n.listeners[i], "leave one of the two out, or give it another port", "SIP listener %s is given twice, first in %s", listener.Addr, l.place(first))
				continue
			}
			listeners[listener.Addr] = n.listeners[i]
		}
	}
	if len(l.networks) > 0 && !slices.ContainsFunc(l.networks, func(n *networkAt) bool { return !n.silent }) {
		l.add(l.networks[0].at, `give it one, as in sip = ["udp:203.0.113.10:5060"]`, "no network has a SIP listener: nobody could call")
	}
}

func (l *loader) checkInterfaces(n *networkAt, modes map[string]*networkAt) {
	seen := map[string]bool{}
	for _, name := range n.ifaces {
		if seen[name.string] {
			l.add(name.at, "leave one of the two out", "interface %q is given twice", name.string)
			continue
		}
		seen[name.string] = true
		iface, ok := l.host.iface(name.string)
		if !ok {
			hint := "this host has " + strings.Join(l.host.names(), ", ")
			if near, ok := nearest(name.string, l.host.names()); ok {
				hint = fmt.Sprintf("did you mean %q? %s", near, hint)
			}
			l.add(name.at, hint, "interface %q does not exist", name.string)
			continue
		}
		if iface.Loopback && l.plane == XDP {
			l.add(name.at, `calls over loopback need dataplane = "userspace"`, "interface %q has no XDP", name.string)
			continue
		}
		if other, ok := modes[name.string]; ok && other.Mode != n.Mode {
			l.add(name.at, "an interface has one mode: write the same in both networks", "interface %q has mode %q here and mode %q in network %q", name.string, n.Mode, other.Mode, other.Name)
			continue
		}
		modes[name.string] = n
	}
}

// mediaRef is one media range with its network and place.
type mediaRef struct {
	Media
	network string
	at      mediaAt
}

func (l *loader) checkMedia() {
	var all []mediaRef
	for _, n := range l.networks {
		for i, m := range n.Media {
			if !m.Address.IsValid() || m.Ports == (ports.Range{}) {
				continue
			}
			ref := mediaRef{m, n.Name, n.media[i]}
			for _, other := range all {
				if other.Address == m.Address {
					l.checkSameAddress(ref, other)
				}
			}
			all = append(all, ref)
		}
	}
	for _, n := range l.networks {
		for i, listener := range n.Listeners {
			for _, m := range all {
				if m.Address == listener.Addr.Addr() && m.Ports.Contains(listener.Addr.Port()) {
					l.add(n.listeners[i], "take another port, or begin the range behind it",
						"SIP listener %s lies in the media range %s of %s", listener.Addr, m.Ports, l.place(m.at.ports.at))
				}
			}
		}
	}
	l.checkEphemeral(all)
}

// checkSameAddress checks two ranges of one address: they lie in one network, apart, and are advertised alike.
func (l *loader) checkSameAddress(m, other mediaRef) {
	switch {
	case m.Ports.Overlaps(other.Ports):
		l.add(m.at.ports.at, "give each range ports of its own, or another address",
			"media range %s of %s overlaps %s of network %q in %s", m.Ports, m.Address, other.Ports, other.network, l.place(other.at.ports.at))
	case m.network != other.network:
		l.add(m.at.address.at, "give each network a media address of its own",
			"media address %s belongs to network %q already, in %s", m.Address, other.network, l.place(other.at.address.at))
	case m.Advertise != other.Advertise:
		l.add(m.at.address.at, "an address is shown in one way: write the same advertise with both ranges", "media address %s is advertised as %s here and as %s in %s", m.Address, m.Advertise, other.Advertise, l.place(other.at.address.at))
	}
}

// checkEphemeral refuses media ranges from which the kernel takes ports for the host's own connections: their answers
// would meet the relay, and vanish.
func (l *loader) checkEphemeral(all []mediaRef) {
	var met []mediaRef
	reserve := slices.Clone(l.host.Reserved)
	for _, m := range all {
		if _, ok := l.host.source(m.Address); ok && l.meetsEphemeral(m.Ports) {
			met = append(met, m)
			reserve = append(reserve, m.Ports)
		}
	}
	command := "sysctl -w net.ipv4.ip_local_reserved_ports=" + portList(reserve)
	for _, m := range met {
		iface, _ := l.host.source(m.Address)
		l.add(m.at.ports.at, fmt.Sprintf("reserve them: %s (and keep it in /etc/sysctl.d), or use an address that the host does not use itself", command),
			"media range %s meets the kernel's ephemeral ports %s, and the host itself uses %s, an address of its own on %s, for connections",
			m.Ports, l.host.Ephemeral, m.Address, iface)
	}
}

// meetsEphemeral reports whether the range holds an ephemeral port that is not reserved.
func (l *loader) meetsEphemeral(r ports.Range) bool {
	if !r.Overlaps(l.host.Ephemeral) {
		return false
	}
	port, last := int(max(r.First, l.host.Ephemeral.First)), int(min(r.Last, l.host.Ephemeral.Last))
	for port <= last {
		i := slices.IndexFunc(l.host.Reserved, func(o ports.Range) bool { return o.Contains(uint16(port)) })
		if i < 0 {
			return true
		}
		port = int(l.host.Reserved[i].Last) + 1
	}
	return false
}

// portList writes ranges in the kernel's notation, joined and ordered.
func portList(ranges []ports.Range) string {
	ranges = slices.Clone(ranges)
	slices.SortFunc(ranges, func(a, b ports.Range) int { return int(a.First) - int(b.First) })
	var joined []ports.Range
	for _, r := range ranges {
		if n := len(joined); n > 0 && int(r.First) <= int(joined[n-1].Last)+1 {
			joined[n-1].Last = max(joined[n-1].Last, r.Last)
			continue
		}
		joined = append(joined, r)
	}
	var list []string
	for _, r := range joined {
		if r.First == r.Last {
			list = append(list, fmt.Sprint(r.First))
		} else {
			list = append(list, r.String())
		}
	}
	return strings.Join(list, ",")
}

func (l *loader) checkTrunks() {
	var networks, trunks []string
	for _, n := range l.networks {
		networks = append(networks, n.Name)
	}
	names := map[string]text{}
	for _, t := range l.trunks {
		if first, ok := names[t.Name]; ok && t.Name != "" {
			l.add(t.name.at, "give one of them another name", "trunk %q is defined twice, first in %s", t.Name, l.place(first.at))
		} else {
			names[t.Name] = t.name
			trunks = append(trunks, t.Name)
		}
	}
	// What was meant by a name that is missing or misspelt is told there.
	anyNetwork := len(networks) == 0 || slices.Contains(networks, "") || l.misspelt("network")
	anyTrunk := slices.Contains(trunks, "") || l.misspelt("trunk")
	for i, t := range l.trunks {
		if t.Network != "" && (!anyNetwork || slices.Contains(networks, t.Network)) {
			l.checkTrunkNetwork(t, networks)
		}
		switch {
		case t.route.set && t.Route == "":
			l.add(t.route.at, "leave the key out to refuse its calls", "route is empty")
		case t.Route != "" && t.Route == t.Name:
			l.add(t.route.at, "name another trunk, or leave the key out to refuse its calls", "trunk %q sends its calls back to where they come from", t.Name)
		case t.Route != "" && !anyTrunk && !slices.Contains(trunks, t.Route):
			l.add(t.route.at, knownHint(t.Route, trunks), "route = %q: there is no such trunk", t.Route)
		}
		for _, other := range l.trunks[:i] {
			l.checkSources(t, other)
		}
	}
}

func (l *loader) checkTrunkNetwork(t *trunkAt, networks []string) {
	if !slices.Contains(networks, t.Network) {
		l.add(t.network.at, knownHint(t.Network, networks), "network = %q: there is no such network", t.Network)
		return
	}
	for _, n := range l.networks {
		if n.Name == t.Network && n.silent {
			l.add(t.network.at, `give it one, as in sip = ["udp:203.0.113.10:5060"]`, "network %q has no SIP listener for the trunk %q", n.Name, t.Name)
		}
		if slices.ContainsFunc(n.Listeners, func(s Listener) bool { return s.Addr == t.Peer }) {
			l.add(t.peer.at, "the peer is the other side: a phone system, a carrier", "peer %s is a SIP listener of Tandem itself", t.Peer)
		}
	}
}

// checkSources refuses two trunks of one network that the same message would belong to.
func (l *loader) checkSources(t, other *trunkAt) {
	if t.Network != other.Trunk.Network || t.Name == other.Name {
		return
	}
	for i, p := range t.Sources {
		for j, o := range other.Sources {
			if p.Overlaps(o) {
				hint := "a message must belong to one trunk: narrow the sources of one of them"
				if t.sources[i] == t.peer.at || other.sources[j] == other.peer.at {
					hint = "a message must belong to one trunk, and what comes from a peer's own address belongs to that peer's: narrow the sources of the other"
				}
				l.add(t.sources[i], hint,
					"source %s of trunk %q overlaps %s of trunk %q in %s", p, t.Name, o, other.Name, l.place(other.sources[j]))
			}
		}
	}
}

// knownHint lists what there is, and what was probably meant.
func knownHint(word string, known []string) string {
	known = slices.DeleteFunc(slices.Clone(known), func(s string) bool { return s == "" })
	if near, ok := nearest(word, known); ok {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if len(known) == 0 {
		return "none is defined"
	}
	return "defined: " + strings.Join(known, ", ")
}
