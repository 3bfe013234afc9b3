package main

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/signalling/media"
)

// routes asks the kernel which way an address is reached.
type routes struct{ handle *netlink.Handle }

func openRoutes() (*routes, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &routes{handle}, nil
}

func (r *routes) close() { r.handle.Close() }

// realm is a network as far as the way to its parties matters.
type realm struct {
	from       netip.Addr // one of our media addresses there
	interfaces []string   // none: any will do
	trust      bool
}

// routable reports whether packets from the realm's address to addr leave by one of its interfaces. A private or otherwise
// special address needs a route of its own: the default route would carry it to where it means somebody else. Addresses of this
// host are for its own services, see local.
func (r *routes) routable(n realm, addr netip.Addr) bool {
	options := &netlink.RouteGetOptions{SrcAddr: n.from.AsSlice()}
	found, err := r.handle.RouteGetWithOptions(addr.AsSlice(), options)
	if err != nil || len(found) == 0 {
		return false
	}
	route := found[0]
	switch route.Type {
	case unix.RTN_LOCAL:
		return r.local(n, addr)
	case unix.RTN_UNICAST:
	default:
		return false
	}
	if len(n.interfaces) > 0 {
		link, err := r.handle.LinkByIndex(route.LinkIndex)
		if err != nil || !slices.Contains(n.interfaces, link.Attrs().Name) {
			return false
		}
	}
	if !media.Special(addr) {
		return true
	}
	options.FIBMatch = true
	found, err = r.handle.RouteGetWithOptions(addr.AsSlice(), options)
	if err != nil || len(found) == 0 || found[0].Dst == nil {
		return false
	}
	ones, _ := found[0].Dst.Mask.Size()
	return ones > 0
}

// local reports whether addr, which is one of this host, is one at which a party of the realm can be: a loopback address if the
// realm itself is on loopback, or, for a party that is trusted, one of the realm's own interfaces. Everywhere else a party could
// have us send to services that only this host is meant to reach.
func (r *routes) local(n realm, addr netip.Addr) bool {
	if addr.IsLoopback() {
		return n.from.IsLoopback()
	}
	if !n.trust {
		return false
	}
	list, err := r.handle.AddrList(nil, unix.AF_INET)
	if err != nil {
		return false
	}
	index := -1
	for _, a := range list {
		if own, ok := netip.AddrFromSlice(a.IP); ok && own.Unmap() == addr {
			index = a.LinkIndex
		}
	}
	// Without interfaces of its own, the realm's is the one that has its media address.
	if len(n.interfaces) == 0 {
		return slices.ContainsFunc(list, func(a netlink.Addr) bool {
			own, ok := netip.AddrFromSlice(a.IP)
			return ok && own.Unmap() == n.from && a.LinkIndex == index
		})
	}
	link, err := r.handle.LinkByIndex(index)
	return err == nil && slices.Contains(n.interfaces, link.Attrs().Name)
}
