package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is what a configuration is checked against: the interfaces, addresses and ephemeral ports of one network namespace.
type Host struct {
	Interfaces []Interface
	// Ephemeral is the range from which the kernel takes ports for its own connections; Reserved are the ports that it leaves out.
	Ephemeral ports.Range
	Reserved  []ports.Range
}

// Interface is one network interface.
type Interface struct {
	Name      string
	Loopback  bool
	Addresses []HostAddress
}

// HostAddress is an address of an interface.
type HostAddress struct {
	Prefix netip.Prefix // the address with the length of its network
	// Source says that the kernel takes the address for connections of the host itself: the first primary address of the
	// interface, and every other primary one that has neighbours in its network.
	Source bool
}

// ReadHost looks at the current network namespace.
func ReadHost() (Host, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return Host{}, fmt.Errorf("list interfaces: %w", err)
	}
	var h Host
	for _, link := range links {
		attrs := link.Attrs()
		i := Interface{Name: attrs.Name, Loopback: attrs.Flags&net.FlagLoopback != 0}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return Host{}, fmt.Errorf("list addresses of %s: %w", attrs.Name, err)
		}
		i.Addresses = hostAddresses(addrs)
		h.Interfaces = append(h.Interfaces, i)
	}
	if h.Ephemeral, h.Reserved, err = ephemeral("/proc/sys/net/ipv4"); err != nil {
		return Host{}, err
	}
	return h, nil
}

func hostAddresses(addrs []netlink.Addr) []HostAddress {
	var list []HostAddress
	first := true
	for _, a := range addrs {
		addr, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		bits, size := a.Mask.Size()
		if addr = addr.Unmap(); addr.Is4() && size == 128 {
			bits -= 96
		}
		primary := a.Flags&unix.IFA_F_SECONDARY == 0
		alone := bits == addr.BitLen()
		list = append(list, HostAddress{
			Prefix: netip.PrefixFrom(addr, bits),
			Source: primary && addr.Is4() && (first || !alone),
		})
		if primary && addr.Is4() {
			first = false
		}
	}
	return list
}

// ephemeral reads the range of the kernel's own ports and what is reserved in it.
func ephemeral(dir string) (ports.Range, []ports.Range, error) {
	raw, err := os.ReadFile(dir + "/ip_local_port_range")
	if err != nil {
		return ports.Range{}, nil, fmt.Errorf("read the ephemeral ports: %w", err)
	}
	var r ports.Range
	if _, err := fmt.Sscan(string(raw), &r.First, &r.Last); err != nil {
		return ports.Range{}, nil, fmt.Errorf("read the ephemeral ports from %q: %w", raw, err)
	}
	raw, err = os.ReadFile(dir + "/ip_local_reserved_ports")
	if err != nil {
		return ports.Range{}, nil, fmt.Errorf("read the reserved ports: %w", err)
	}
	reserved, err := parsePortList(strings.TrimSpace(string(raw)))
	if err != nil {
		return ports.Range{}, nil, fmt.Errorf("read the reserved ports: %w", err)
	}
	return r, reserved, nil
}

// parsePortList reads the kernel's notation of port lists: "8080,20000-39999", or nothing.
func parsePortList(s string) ([]ports.Range, error) {
	if s == "" {
		return nil, nil
	}
	var list []ports.Range
	for item := range strings.SplitSeq(s, ",") {
		first, last, both := strings.Cut(item, "-")
		if !both {
			last = first
		}
		a, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("port list %q: %w", s, err)
		}
		b, err := strconv.ParseUint(last, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("port list %q: %w", s, err)
		}
		list = append(list, ports.Range{First: uint16(a), Last: uint16(b)})
	}
	return list, nil
}

// iface returns the interface with that name.
func (h Host) iface(name string) (Interface, bool) {
	for _, i := range h.Interfaces {
		if i.Name == name {
			return i, true
		}
	}
	return Interface{}, false
}

func (h Host) names() []string {
	var names []string
	for _, i := range h.Interfaces {
		names = append(names, i.Name)
	}
	return names
}

// local reports whether packets for addr are delivered to this host. Every address of a loopback network is.
func (h Host) local(addr netip.Addr) bool {
	for _, i := range h.Interfaces {
		for _, a := range i.Addresses {
			if a.Prefix.Addr() == addr || i.Loopback && addr.IsLoopback() && a.Prefix.Contains(addr) {
				return true
			}
		}
	}
	return false
}

// source returns the interface whose own connections use addr.
func (h Host) source(addr netip.Addr) (string, bool) {
	for _, i := range h.Interfaces {
		for _, a := range i.Addresses {
			if a.Prefix.Addr() == addr && a.Source {
				return i.Name, true
			}
		}
	}
	return "", false
}

// addresses lists the IPv4 addresses of the host, for hints.
func (h Host) addresses() []string {
	var list []string
	for _, i := range h.Interfaces {
		for _, a := range i.Addresses {
			if a.Prefix.Addr().Is4() {
				list = append(list, fmt.Sprintf("%s (%s)", a.Prefix.Addr(), i.Name))
			}
		}
	}
	return list
}
