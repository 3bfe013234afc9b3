// Package lab builds networks for tests, benches and the demo: anonymous network namespaces joined by veth pairs.
//
// Nothing of a lab survives the process. A namespace has no name in the file system, only a thread and a file
// descriptor of this process hold it, and the programs started in it die with that thread. So a lab needs no
// cleaning up after a kill -9.
package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// Lab is a set of namespaces and the cables between them. Its methods may be called concurrently.
type Lab struct {
	mu         sync.Mutex
	namespaces []*Namespace
	links      []link.Link
}

// New returns an empty lab. It needs CAP_NET_ADMIN and CAP_SYS_ADMIN from the first Namespace on.
func New() *Lab { return &Lab{} }

// Namespace makes a new network namespace with its loopback up. The name is a label for errors and displays only.
// IPv6 stays off on every interface until it is given an IPv6 address.
func (l *Lab) Namespace(name string) (*Namespace, error) {
	ns, err := newNamespace(name)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	l.mu.Lock()
	l.namespaces = append(l.namespaces, ns)
	l.mu.Unlock()
	return ns, nil
}

// Host returns the network namespace of this process in the shape of the others, for topologies over loopback addresses. It
// needs no privileges, and only Do, Start, Run and the sockets work on it. What is started there ends with the lab, too.
func (l *Lab) Host() *Namespace {
	ns := newHost()
	l.mu.Lock()
	l.namespaces = append(l.namespaces, ns)
	l.mu.Unlock()
	return ns
}

// Reception says what makes an end of a cable accept frames that an XDP program redirects to it. A veth silently
// drops such frames unless the receiving end has a native XDP program or GRO.
type Reception int

// The kinds of reception.
const (
	// XDPPass attaches a native XDP program that passes everything. It is the default, right for every end but the relay's.
	XDPPass Reception = iota
	// Bare attaches nothing: for the end where the relay attaches its own program, and to show what happens without.
	Bare
	// GRO turns generic receive offload on instead.
	GRO
)

// End is one end of a cable.
type End struct {
	Namespace *Namespace
	Name      string         // of the interface, 15 bytes at most
	Addrs     []netip.Prefix // host address and prefix length
	Reception Reception
	MTU       int // 0: the kernel's default of 1500
}

// Connect joins two namespaces by a veth pair, up on both ends, with transmit checksum offload off, because XDP would
// otherwise see packets whose checksum was never filled in. Neighbours are left to the kernel. The two namespaces may be
// the same one.
func (l *Lab) Connect(a, b End) error {
	if err := l.connect(a, b); err != nil {
		return fmt.Errorf("connect %s/%s to %s/%s: %w", a.Namespace, a.Name, b.Namespace, b.Name, err)
	}
	return nil
}

func (l *Lab) connect(a, b End) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a.Name
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: b.Name, PeerNamespace: netlink.NsFd(b.Namespace.FD())}
	if err := a.Namespace.handle.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth: %w", err)
	}
	for _, end := range []End{a, b} {
		if err := l.prepare(end); err != nil {
			return fmt.Errorf("%s/%s: %w", end.Namespace, end.Name, err)
		}
	}
	return nil
}

func (l *Lab) prepare(e End) error {
	ns := e.Namespace
	if err := ns.setOffload(e.Name, ethtoolTxChecksum, false); err != nil {
		return fmt.Errorf("turn tx checksum offload off: %w", err)
	}
	if e.MTU != 0 {
		if err := ns.SetMTU(e.Name, e.MTU); err != nil {
			return err
		}
	}
	for _, addr := range e.Addrs {
		if err := ns.AddAddr(e.Name, addr); err != nil {
			return err
		}
	}
	switch e.Reception {
	case XDPPass:
		pass, err := ns.attachPass(e.Name)
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.links = append(l.links, pass)
		l.mu.Unlock()
	case GRO:
		if err := ns.setOffload(e.Name, ethtoolGRO, true); err != nil {
			return fmt.Errorf("turn GRO on: %w", err)
		}
	case Bare:
	}
	return ns.LinkUp(e.Name)
}

// Close kills what was started in the namespaces and gives the namespaces up. The kernel removes a namespace, with its
// interfaces, once the last socket in it is closed too. Close may be called more than once.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, pass := range l.links {
		errs = append(errs, pass.Close())
	}
	for _, ns := range l.namespaces {
		errs = append(errs, ns.close())
	}
	l.links, l.namespaces = nil, nil
	return errors.Join(errs...)
}
