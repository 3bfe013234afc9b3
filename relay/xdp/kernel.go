package xdp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The states of a neighbour in which its hardware address is used (linux/neighbour.h, NUD_VALID).
const usable = netlink.NUD_PERMANENT | netlink.NUD_NOARP | netlink.NUD_REACHABLE | netlink.NUD_PROBE |
	netlink.NUD_STALE | netlink.NUD_DELAY

// mac is an Ethernet address.
type mac [6]byte

// device is what a packet on its way out needs to know of an interface.
type device struct {
	index int
	name  string
	mac   mac
	mtu   int
	up    bool
	// carrier: what is sent can leave.
	carrier bool
}

// way is where the kernel would send a packet.
type way struct {
	ifindex int
	via     netip.Addr // gateway, or the destination itself on a link
	mtu     int        // of the route; 0: that of the interface
	local   bool       // the destination is this host
}

// neighbour is the kernel's view of a host on a link.
type neighbour struct {
	state int
	mac   mac
}

type neighbourKey struct {
	ifindex int
	addr    netip.Addr
}

// change is what the kernel reported.
type change struct {
	key       neighbourKey
	neighbour neighbour
	removed   bool
	routes    bool // not a neighbour: a route, rule, address or link
	links     bool // of these, an address or link
}

// errNoRoute says that the kernel would not send to a destination at all.
var errNoRoute = errors.New("no route")

// kernel speaks netlink in the network namespace in which it was opened. Its methods may be called concurrently, but for
// next, which is the follower's alone.
type kernel struct {
	handle *netlink.Handle
	events *nl.NetlinkSocket
	queue  []change
}

// openKernel subscribes before anything is read, so that no change is missed.
func openKernel() (*kernel, error) {
	events, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_NEIGH, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return nil, fmt.Errorf("subscribe to netlink: %w", err)
	}
	// Best effort: an overflow is noticed and everything is read again.
	_ = events.SetReceiveBufferSize(4<<20, true)
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		events.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &kernel{handle: handle, events: events}, nil
}

func (k *kernel) close() {
	k.events.Close()
	k.handle.Close()
}

// device returns an interface by name.
func (k *kernel) device(name string) (device, error) {
	link, err := k.handle.LinkByName(name)
	if err != nil {
		return device{}, err
	}
	a := link.Attrs()
	d := device{
		index: a.Index, name: a.Name, mtu: a.MTU, up: a.Flags&net.FlagUp != 0, carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
	}
	copy(d.mac[:], a.HardwareAddr)
	return d, nil
}

// route asks the kernel's policy routing which way a packet of ours goes from one address to another.
func (k *kernel) route(from, to netip.Addr) (way, error) {
	routes, err := k.handle.RouteGetWithOptions(to.AsSlice(), &netlink.RouteGetOptions{SrcAddr: from.AsSlice()})
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES),
		errors.Is(err, unix.EINVAL), errors.Is(err, unix.EAGAIN):
		return way{}, fmt.Errorf("route from %s to %s: %w (%w)", from, to, errNoRoute, err)
	case err != nil:
		return way{}, fmt.Errorf("route from %s to %s: %w", from, to, err)
	case len(routes) == 0:
		return way{}, fmt.Errorf("route from %s to %s: %w", from, to, errNoRoute)
	}
	r := routes[0]
	w := way{ifindex: r.LinkIndex, via: to, mtu: r.MTU}
	switch r.Type {
	case unix.RTN_UNICAST:
	case unix.RTN_LOCAL:
		w.local = true
	default:
		return way{}, fmt.Errorf("route from %s to %s: %w (kind %d)", from, to, errNoRoute, r.Type)
	}
	if gw, ok := netip.AddrFromSlice(r.Gw); ok {
		w.via = gw.Unmap()
	} else if via, ok := r.Via.(*netlink.Via); ok && via != nil {
		if gw, ok := netip.AddrFromSlice(via.Addr); ok {
			w.via = gw.Unmap()
		}
	}
	return w, nil
}

// addresses returns the addresses of this host with the length of their prefixes, by interface.
func (k *kernel) addresses() (map[int][]netip.Prefix, error) {
	list, err := k.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	found := make(map[int][]netip.Prefix)
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			addr = addr.Unmap()
			ones, _ := a.Mask.Size()
			found[a.LinkIndex] = append(found[a.LinkIndex], netip.PrefixFrom(addr, ones))
		}
	}
	return found, nil
}

// gateways returns the gateways that are reached by an interface.
func (k *kernel) gateways(ifindex int) ([]netip.Addr, error) {
	routes, err := k.handle.RouteListFiltered(netlink.FAMILY_ALL,
		&netlink.Route{LinkIndex: ifindex, Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var found []netip.Addr
	for _, r := range routes {
		if gw, ok := netip.AddrFromSlice(r.Gw); ok {
			found = append(found, gw.Unmap())
		}
	}
	return found, nil
}

// neighbours returns every entry of an interface that has a state.
func (k *kernel) neighbours(ifindex int) (map[neighbourKey]neighbour, error) {
	found := make(map[neighbourKey]neighbour)
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := k.handle.NeighList(ifindex, family)
		if err != nil {
			return nil, fmt.Errorf("list neighbours: %w", err)
		}
		for i := range list {
			if key, n, ok := fromNeigh(&list[i]); ok {
				found[key] = n
			}
		}
	}
	return found, nil
}

// probe makes the kernel resolve a neighbour, or confirm what it knows of it, as if a packet of its own were to be sent.
// It must not be asked of a permanent entry, which it would turn into a dynamic one.
func (k *kernel) probe(key neighbourKey) error {
	return k.handle.NeighSet(&netlink.Neigh{
		LinkIndex: key.ifindex, IP: key.addr.AsSlice(), Flags: netlink.NTF_USE, State: netlink.NUD_NONE,
	})
}

// next waits for the next change. ENOBUFS means that changes were lost.
func (k *kernel) next() (change, error) {
	for len(k.queue) == 0 {
		messages, from, err := k.events.Receive()
		if err != nil {
			return change{}, err
		}
		if from.Pid != 0 {
			continue // not from the kernel
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
				n, err := netlink.NeighDeserialize(m.Data)
				if err != nil || (n.Family != unix.AF_INET && n.Family != unix.AF_INET6) {
					continue
				}
				if key, nb, ok := fromNeigh(n); ok {
					k.queue = append(k.queue, change{key: key, neighbour: nb, removed: m.Header.Type == unix.RTM_DELNEIGH})
				}
			case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR:
				k.queue = append(k.queue, change{routes: true, links: true})
			default:
				k.queue = append(k.queue, change{routes: true})
			}
		}
	}
	c := k.queue[0]
	k.queue = k.queue[1:]
	return c, nil
}

func fromNeigh(n *netlink.Neigh) (neighbourKey, neighbour, bool) {
	addr, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return neighbourKey{}, neighbour{}, false
	}
	nb := neighbour{state: n.State}
	if len(n.HardwareAddr) == len(nb.mac) {
		copy(nb.mac[:], n.HardwareAddr)
	} else {
		nb.state &^= usable // nothing that fits an Ethernet frame
	}
	return neighbourKey{n.LinkIndex, addr.Unmap()}, nb, true
}
