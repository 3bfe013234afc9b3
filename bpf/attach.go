package bpf

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Mode says how the program is attached to an interface.
type Mode uint8

// The modes.
const (
	// ModeNative runs the program in the driver, before the kernel makes a socket buffer.
	ModeNative Mode = iota
	// ModeGeneric runs it on socket buffers: any driver, much slower.
	ModeGeneric
)

// String is "native" or "generic".
func (m Mode) String() string {
	if m == ModeGeneric {
		return "generic"
	}
	return "native"
}

func (m Mode) flags() link.XDPAttachFlags {
	if m == ModeGeneric {
		return link.XDPGenericMode
	}
	return link.XDPDriverMode
}

func (p *Plane) pinOfLink(name string, mode Mode) string {
	prefix := prefixNative
	if mode == ModeGeneric {
		prefix = prefixGeneric
	}
	return filepath.Join(p.dir, prefix+escape(name))
}

// Attach attaches the relay program to an interface of the current network namespace and pins the link. A link that is already there
// is kept; one in the other mode, or to an interface of that name that is gone, is replaced.
func (p *Plane) Attach(ifindex int, name string, mode Mode) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l, ok := p.links[name]; ok {
		if p.modes[name] == mode && linkAlive(l, ifindex) {
			return nil
		}
		if err := p.detach(name); err != nil {
			return err
		}
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: p.objects.TandemRelay, Interface: ifindex, Flags: mode.flags()})
	if err != nil {
		return fmt.Errorf("attach to %s in %s mode: %s: %w", name, mode, attachHint(err), err)
	}
	if err := l.Pin(p.pinOfLink(name, mode)); err != nil {
		return errors.Join(fmt.Errorf("pin link of %s: %w", name, err), l.Close())
	}
	p.links[name], p.modes[name] = l, mode
	return nil
}

func attachHint(err error) string {
	switch {
	case errors.Is(err, unix.EBUSY):
		return "another XDP program is attached there"
	case errors.Is(err, unix.EOPNOTSUPP):
		return "the driver has no native XDP"
	case errors.Is(err, unix.EPERM):
		return "CAP_BPF and CAP_NET_ADMIN are needed"
	case errors.Is(err, unix.ENODEV):
		return "no such interface"
	default:
		return "the kernel refuses"
	}
}

// Detach detaches the program from an interface. One that it is not attached to is no error.
func (p *Plane) Detach(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.links[name]; !ok {
		return nil
	}
	return p.detach(name)
}

func (p *Plane) detach(name string) error {
	l, path := p.links[name], p.pinOfLink(name, p.modes[name])
	if err := detachPin(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	delete(p.links, name)
	delete(p.modes, name)
	return l.Close()
}

// Attached lists the interfaces that the program is attached to, in order.
func (p *Plane) Attached() []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.Sorted(maps.Keys(p.links))
}

// AttachedTo returns the index of the interface that the link of that name is attached to now: 0 if there is none, its interface is
// gone, or somebody detached it.
func (p *Plane) AttachedTo(name string) int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	l, ok := p.links[name]
	if !ok {
		return 0
	}
	info, err := l.Info()
	if err != nil {
		return 0
	}
	if x := info.XDP(); x != nil {
		return int(x.Ifindex)
	}
	return 0
}

// AttachedMode tells how the program is attached to an interface.
func (p *Plane) AttachedMode(name string) (Mode, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.links[name]
	return p.modes[name], ok
}

// AttachLookup attaches the sk_lookup program, which steers the media ranges to the sockets of SteerTo, to the current network namespace.
func (p *Plane) AttachLookup() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.steer != nil {
		return nil
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("attach socket lookup: %w", err)
	}
	defer ns.Close()
	l, err := link.AttachNetNs(int(ns.Fd()), p.objects.TandemSteer)
	if err != nil {
		return fmt.Errorf("attach socket lookup: %w", err)
	}
	if err := l.Pin(filepath.Join(p.dir, pinLookup)); err != nil {
		return errors.Join(fmt.Errorf("pin socket lookup: %w", err), l.Close())
	}
	p.steer = l
	return nil
}

// SteerTo makes the given UDP sockets, bound, those that receive what is punted. All packets of one port pair go to one of them.
// Sockets that are closed later fall out by themselves.
func (p *Plane) SteerTo(socketFDs []int) error {
	for slot := range p.objects.Steer.MaxEntries() {
		if len(socketFDs) == 0 {
			// An empty slot is no error.
			_ = p.objects.Steer.Delete(slot)
			continue
		}
		fd := socketFDs[int(slot)%len(socketFDs)]
		if err := p.objects.Steer.Put(slot, uint64(fd)); err != nil {
			return fmt.Errorf("steer to socket %d: %w", fd, err)
		}
	}
	return nil
}

// AllowDevice lets packets leave by an interface other than the one they came in by.
func (p *Plane) AllowDevice(ifindex uint32) error {
	if err := p.objects.Devices.Put(ifindex, ifindex); err != nil {
		return fmt.Errorf("allow interface %d as egress: %w", ifindex, err)
	}
	return nil
}

// adoptLinks opens the pinned links and removes those whose interface is gone.
func (p *Plane) adoptLinks() error {
	for _, mode := range []Mode{ModeNative, ModeGeneric} {
		prefix := prefixNative
		if mode == ModeGeneric {
			prefix = prefixGeneric
		}
		names, err := p.pins(prefix)
		if err != nil {
			return err
		}
		for _, escaped := range names {
			path := filepath.Join(p.dir, prefix+escaped)
			l, err := link.LoadPinnedLink(path, nil)
			if err != nil {
				return fmt.Errorf("adopt link %s: %w", path, err)
			}
			name := unescape(escaped)
			if _, twice := p.links[name]; twice || !linkAlive(l, 0) {
				if err := errors.Join(l.Close(), detachPin(path)); err != nil {
					return err
				}
				continue
			}
			p.links[name], p.modes[name] = l, mode
		}
	}
	path := filepath.Join(p.dir, pinLookup)
	l, err := link.LoadPinnedLink(path, nil)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return fmt.Errorf("adopt link %s: %w", path, err)
	default:
		p.steer = l
	}
	return nil
}

// linkAlive reports whether the link is attached to the interface; 0 means to any.
func linkAlive(l link.Link, ifindex int) bool {
	info, err := l.Info()
	if err != nil {
		return false
	}
	if x := info.XDP(); x != nil {
		return x.Ifindex != 0 && (ifindex == 0 || int(x.Ifindex) == ifindex)
	}
	if n := info.NetNs(); n != nil {
		return n.NetnsInode != 0
	}
	return false
}

// anyLinkAlive looks at the pins alone.
func (p *Plane) anyLinkAlive() (bool, error) {
	names, err := p.pins("link_")
	if err != nil {
		return false, err
	}
	for _, name := range names {
		l, err := link.LoadPinnedLink(filepath.Join(p.dir, "link_"+name), nil)
		if err != nil {
			return false, fmt.Errorf("look at link %s: %w", name, err)
		}
		alive := linkAlive(l, 0)
		_ = l.Close()
		if alive {
			return true, nil
		}
	}
	return false, nil
}
