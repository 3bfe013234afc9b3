package main

import (
	"net/netip"
	"slices"
	"time"

	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/cmd/internal/config"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/tandem-relay/tandem/relay/xdp"
	"github.com/tandem-relay/tandem/signalling/media"
)

// The configuration as each room wants to read it.

func relayNetworks(cfg *config.Config) []relay.Network {
	var list []relay.Network
	for _, n := range cfg.Networks {
		list = append(list, relay.Network{Name: n.Name, Media: mediaAddresses(n)})
	}
	return list
}

// mediaAddresses joins the ranges of each address.
func mediaAddresses(n config.Network) []relay.MediaAddress {
	var list []relay.MediaAddress
	for _, m := range n.Media {
		i := slices.IndexFunc(list, func(a relay.MediaAddress) bool { return a.Addr == m.Address })
		if i < 0 {
			list = append(list, relay.MediaAddress{Addr: m.Address})
			i = len(list) - 1
		}
		list[i].Ranges = append(list[i].Ranges, m.Ports)
	}
	return list
}

// quarantine is the relay's, for which zero means its default.
func quarantine(cfg *config.Config) time.Duration {
	if cfg.Quarantine == 0 {
		return -1
	}
	return cfg.Quarantine
}

func xdpNetworks(cfg *config.Config) []xdp.Network {
	var list []xdp.Network
	for _, n := range cfg.Networks {
		mode := bpf.ModeNative
		if n.Mode == "generic" {
			mode = bpf.ModeGeneric
		}
		list = append(list, xdp.Network{Name: n.Name, Interfaces: n.Interfaces, Mode: mode, Media: mediaAddresses(n)})
	}
	return list
}

func mediaNetworks(cfg *config.Config, r *routes) []media.Network {
	var list []media.Network
	for _, n := range cfg.Networks {
		m := media.Network{Name: n.Name, Trust: n.Trust, Advertise: map[netip.Addr]netip.Addr{}, Ranges: map[netip.Addr][]ports.Range{}}
		for _, a := range n.Media {
			m.Media = append(m.Media, a.Address)
			m.Advertise[a.Address] = a.Advertise
			m.Ranges[a.Address] = append(m.Ranges[a.Address], a.Ports)
		}
		way := realm{m.Media[0], n.Interfaces, n.Trust}
		m.Routable = func(addr netip.Addr) bool { return r.routable(way, addr) }
		list = append(list, m)
	}
	return list
}
