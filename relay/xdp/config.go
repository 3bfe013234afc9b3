package xdp

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/ports"
)

// The defaults of Config.
const (
	DefaultOrphan = 10 * time.Minute
	DefaultWait   = 20 * time.Millisecond
)

// Network is a network as the plane sees it.
type Network struct {
	Name string
	// Interfaces are those by which the network's parties are reached, all in the namespace of New.
	Interfaces []string
	// Mode is how the program is attached to them. Only native is fast; generic must be asked for.
	Mode bpf.Mode
	// Media are the addresses at which media arrives. Each belongs to one network and must exist on the host.
	Media []relay.MediaAddress
}

// Config is what a Plane is made of. Maps and Networks are required.
type Config struct {
	// Maps is the opened instance. The Plane closes it with itself; if New fails it stays the caller's.
	Maps     *bpf.Plane
	Networks []Network
	// Orphan is for how long flows go on without a daemon; 0 means DefaultOrphan, below 0 for ever.
	Orphan time.Duration
	// Wait bounds how long Apply waits for next hops that are not resolved; 0 means DefaultWait, below 0 not at all.
	Wait time.Duration
	// Sockets and Senders size the slow path, see slowpath.Config.
	Sockets, Senders int
	// Logger gets what is abnormal. Default: nothing is logged.
	Logger *slog.Logger
}

func (c Config) normalize() (Config, error) {
	if c.Maps == nil {
		return c, errors.New("no maps")
	}
	if c.Orphan == 0 {
		c.Orphan = DefaultOrphan
	}
	if c.Wait == 0 {
		c.Wait = DefaultWait
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	names := make(map[string]bool)
	owners := make(map[netip.Addr]string)
	modes := make(map[string]bpf.Mode)
	for _, n := range c.Networks {
		switch {
		case n.Name == "" || names[n.Name]:
			return c, fmt.Errorf("network %q: name is missing or stands twice", n.Name)
		case len(n.Interfaces) == 0:
			return c, fmt.Errorf("network %s: no interface", n.Name)
		}
		names[n.Name] = true
		for _, name := range n.Interfaces {
			if mode, seen := modes[name]; seen && mode != n.Mode {
				return c, fmt.Errorf("network %s: interface %s cannot be in native and in generic mode", n.Name, name)
			}
			modes[name] = n.Mode
		}
		for _, m := range n.Media {
			if other, taken := owners[m.Addr]; taken {
				return c, fmt.Errorf("network %s: media address %s belongs to network %s", n.Name, m.Addr, other)
			}
			owners[m.Addr] = n.Name
			if len(m.Ranges) == 0 {
				return c, fmt.Errorf("network %s: media address %s has no ports", n.Name, m.Addr)
			}
			for _, r := range m.Ranges {
				if err := r.Check(); err != nil {
					return c, fmt.Errorf("network %s: media address %s: %w", n.Name, m.Addr, err)
				}
			}
		}
	}
	if len(names) == 0 {
		return c, errors.New("no network")
	}
	return c, nil
}

// interfaces returns the networks' interfaces by network.
func (c Config) interfaces() map[string][]string {
	byNetwork := make(map[string][]string)
	for _, n := range c.Networks {
		byNetwork[n.Name] = n.Interfaces
	}
	return byNetwork
}

// ranges returns the media range by address.
func (c Config) ranges() map[netip.Addr][]ports.Range {
	byAddr := make(map[netip.Addr][]ports.Range)
	for _, n := range c.Networks {
		for _, m := range n.Media {
			byAddr[m.Addr.Unmap()] = m.Ranges
		}
	}
	return byAddr
}
