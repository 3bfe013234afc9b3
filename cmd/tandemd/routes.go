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

// routable reports whether packets from one of our addresses to addr leave by one of the interfaces; any will do if there are none.
// A private or otherwise special address needs a route of its own: the default route would carry it to where it means somebody else.
func (r *routes) routable(from netip.Addr, interfaces []string, addr netip.Addr) bool {
	options := &netlink.RouteGetOptions{SrcAddr: from.AsSlice()}
	found, err := r.handle.RouteGetWithOptions(addr.AsSlice(), options)
	if err != nil || len(found) == 0 {
		return false
	}
	route := found[0]
	switch route.Type {
	case unix.RTN_LOCAL:
		return true
	case unix.RTN_UNICAST:
	default:
		return false
	}
	if len(interfaces) > 0 {
		link, err := r.handle.LinkByIndex(route.LinkIndex)
		if err != nil || !slices.Contains(interfaces, link.Attrs().Name) {
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
