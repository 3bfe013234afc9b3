package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Commands of the ethtool ioctl (linux/ethtool.h).
const (
	ethtoolTxChecksum = 0x17
	ethtoolGRO        = 0x2c
)

// xdpPass is XDP_PASS (linux/bpf.h).
const xdpPass = 2

func (ns *Namespace) link(name string) (netlink.Link, error) {
	l, err := ns.handle.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find interface %s in namespace %s: %w", name, ns.name, err)
	}
	return l, nil
}

// change applies f to the interface and names the step in its error.
func (ns *Namespace) change(name, step string, f func(netlink.Link) error) error {
	l, err := ns.link(name)
	if err != nil {
		return err
	}
	if err := f(l); err != nil {
		return fmt.Errorf("%s %s in namespace %s: %w", step, name, ns.name, err)
	}
	return nil
}

// LinkUp brings an interface up.
func (ns *Namespace) LinkUp(name string) error {
	return ns.change(name, "bring up", ns.handle.LinkSetUp)
}

// LinkDown takes an interface down; its routes and neighbours go with it.
func (ns *Namespace) LinkDown(name string) error {
	return ns.change(name, "take down", ns.handle.LinkSetDown)
}

// SetMAC changes the hardware address of an interface. The neighbours are not told.
func (ns *Namespace) SetMAC(name string, mac net.HardwareAddr) error {
	return ns.change(name, "set hardware address of", func(l netlink.Link) error {
		return ns.handle.LinkSetHardwareAddr(l, mac)
	})
}

// SetMTU changes the MTU of an interface, in bytes.
func (ns *Namespace) SetMTU(name string, mtu int) error {
	return ns.change(name, "set mtu of", func(l netlink.Link) error { return ns.handle.LinkSetMTU(l, mtu) })
}

// Ifindex returns the index of an interface.
func (ns *Namespace) Ifindex(name string) (int, error) {
	l, err := ns.link(name)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, nil
}

// MAC returns the hardware address of an interface.
func (ns *Namespace) MAC(name string) (net.HardwareAddr, error) {
	l, err := ns.link(name)
	if err != nil {
		return nil, err
	}
	return l.Attrs().HardwareAddr, nil
}

// Statistics returns the counters of an interface.
func (ns *Namespace) Statistics(name string) (netlink.LinkStatistics, error) {
	l, err := ns.link(name)
	if err != nil {
		return netlink.LinkStatistics{}, err
	}
	return *l.Attrs().Statistics, nil
}

// AddAddr adds an address. IPv6 addresses are usable at once, without duplicate address detection.
func (ns *Namespace) AddAddr(name string, prefix netip.Prefix) error {
	addr := &netlink.Addr{IPNet: ipNet(prefix)}
	if prefix.Addr().Is6() {
		if err := ns.Sysctl("net.ipv6.conf."+name+".disable_ipv6", "0"); err != nil {
			return fmt.Errorf("enable IPv6 on %s: %w", name, err)
		}
		addr.Flags = unix.IFA_F_NODAD
	}
	return ns.change(name, fmt.Sprintf("add address %s to", prefix), func(l netlink.Link) error {
		return ns.handle.AddrAdd(l, addr)
	})
}

// DelAddr removes an address.
func (ns *Namespace) DelAddr(name string, prefix netip.Prefix) error {
	return ns.change(name, fmt.Sprintf("remove address %s from", prefix), func(l netlink.Link) error {
		return ns.handle.AddrDel(l, &netlink.Addr{IPNet: ipNet(prefix)})
	})
}

// AddRoute sends a prefix to a gateway. A table of 0 is the main one.
func (ns *Namespace) AddRoute(to netip.Prefix, via netip.Addr, table int) error {
	route := &netlink.Route{Dst: ipNet(to.Masked()), Gw: via.AsSlice(), Table: table}
	if err := ns.handle.RouteReplace(route); err != nil {
		return fmt.Errorf("add route %s via %s in namespace %s: %w", to, via, ns.name, err)
	}
	return nil
}

// AddRule looks packets from a source prefix up in a table of their own. A lower priority is looked at first.
func (ns *Namespace) AddRule(from netip.Prefix, table, priority int) error {
	rule := netlink.NewRule()
	rule.Src, rule.Table, rule.Priority = ipNet(from.Masked()), table, priority
	rule.Family = unix.AF_INET
	if from.Addr().Is6() {
		rule.Family = unix.AF_INET6
	}
	if err := ns.handle.RuleAdd(rule); err != nil {
		return fmt.Errorf("add rule from %s in namespace %s: %w", from, ns.name, err)
	}
	return nil
}

// Forward makes the namespace route IPv4 between its interfaces.
func (ns *Namespace) Forward() error { return ns.Sysctl("net.ipv4.ip_forward", "1") }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// attachPass attaches a native XDP program of two instructions that passes everything.
func (ns *Namespace) attachPass(name string) (link.Link, error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "lab_pass",
		Type:         ebpf.XDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
		License:      "Apache-2.0",
	})
	if err != nil {
		return nil, fmt.Errorf("load pass program: %w", err)
	}
	defer func() { _ = prog.Close() }() // the link holds it
	index, err := ns.Ifindex(name)
	if err != nil {
		return nil, err
	}
	var attached link.Link
	err = ns.Do(func() error {
		attached, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: index, Flags: link.XDPDriverMode})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("attach pass program to %s: %w", name, err)
	}
	return attached, nil
}

// setOffload turns a feature of an interface on or off by the ethtool ioctl.
func (ns *Namespace) setOffload(name string, command uint32, on bool) error {
	value := struct{ command, data uint32 }{command: command}
	if on {
		value.data = 1
	}
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // struct ifreq is longer than its pointer
	}
	if len(name) >= len(request.name) {
		return errors.New("interface name too long")
	}
	copy(request.name[:], name)
	request.data = unsafe.Pointer(&value)
	return ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return os.NewSyscallError("ioctl", errno)
		}
		return nil
	})
}
