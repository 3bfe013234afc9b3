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
	var wanted []string
	for _, n := range networks {
		for _, name := range n.Interfaces {
			if slices.Contains(wanted, name) {
				continue
			}
			wanted = append(wanted, name)
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := p.attachTo(name, n.Mode, slices.Contains(before, name)); err != nil {
				return fmt.Errorf("network %s: %w", n.Name, err)
			}
		}
	}
	for _, name := range before {
		if !slices.Contains(wanted, name) {
			if err := p.maps.Detach(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Plane) attachTo(name string, mode bpf.Mode, adopted bool) error {
	d, err := p.kernel.device(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	if err := p.maps.Attach(d.index, name, mode); err != nil {
		return err
	}
	// In generic mode the kernel sends redirected packets as it sends its own.
	if mode == bpf.ModeNative {
		switch err := bpf.ProveEgress(uint32(d.index), d.mac[:]); {
		case err == nil:
		case adopted:
			p.warn(fmt.Sprintf("%v; calls over %s may be without sound", err, name))
		default:
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
