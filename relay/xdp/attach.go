package xdp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tandem-relay/tandem/bpf"
)

// checkAddresses refuses media addresses that do not exist on the host.
func (p *Plane) checkAddresses(networks []Network) error {
	byInterface, err := p.kernel.addresses()
	if err != nil {
		return err
	}
	exists := make(map[netip.Addr]bool)
	for _, prefixes := range byInterface {
		for _, prefix := range prefixes {
			exists[prefix.Addr()] = true
		}
	}
	for _, n := range networks {
		for _, m := range n.Media {
			if !exists[m.Addr.Unmap()] {
				return fmt.Errorf("network %s: media address %s does not exist on this host; add it to an interface first", n.Name, m.Addr)
			}
		}
	}
	return nil
}

// attach attaches the program to every interface and proves that frames leave by it. An interface that is in use already
// was proved once; if it fails now, its calls are better served than a refusal would serve them.
func (p *Plane) attach(ctx context.Context, networks []Network) error {
	before := p.maps.Attached()
	for _, n := range networks {
		for _, name := range n.Interfaces {
			if p.watch.names(name) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			w, err := p.attachFirst(name, n.Mode, slices.Contains(before, name))
			if err != nil {
				return fmt.Errorf("network %s: %w", n.Name, err)
			}
			w.network = n.Name
			p.watch.interfaces = append(p.watch.interfaces, w)
		}
	}
	for _, name := range before {
		if !p.watch.names(name) {
			if err := p.maps.Detach(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Plane) attachFirst(name string, mode bpf.Mode, adopted bool) (*watched, error) {
	d, err := p.kernel.device(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	w := &watched{name: name, mode: mode, device: d}
	if err := p.maps.Attach(d.index, name, mode); err != nil {
		return nil, err
	}
	err = p.attachTo(d, mode)
	if err == nil || !adopted {
		return w, err
	}
	w.fault, w.kept = err, true
	return w, p.maps.AllowDevice(uint32(d.index))
}

// attachTo attaches the program to an interface of the thread's network namespace, unless it is attached, and lets frames
// leave by it once they are proved to. It may take a second.
func (p *Plane) attachTo(d device, mode bpf.Mode) error {
	if err := p.maps.Attach(d.index, d.name, mode); err != nil {
		return err
	}
	// In generic mode the kernel sends redirected packets as it sends its own.
	if mode == bpf.ModeNative {
		if err := bpf.ProveEgress(uint32(d.index), d.mac[:]); err != nil {
			return err
		}
	}
	return p.maps.AllowDevice(uint32(d.index))
}

// openMedia opens the configured media addresses, and closes those that an earlier process used besides.
func (p *Plane) openMedia() error {
	for _, addr := range p.maps.Media() {
		if p.ranges[addr] == nil {
			if err := p.maps.CloseMedia(addr); err != nil {
				return err
			}
		}
	}
	for addr, ranges := range p.ranges {
		list := make([]bpf.PortRange, len(ranges))
		for i, r := range ranges {
			list[i] = bpf.PortRange{First: r.First, Last: r.Last}
		}
		if err := p.maps.OpenMedia(addr, list...); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plane) warn(text string) {
	p.warnings = append(p.warnings, text)
	p.logger.Warn(text)
}
