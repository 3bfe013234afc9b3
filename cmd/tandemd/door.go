package main

import (
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/tandem-relay/tandem/cmd/internal/config"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/signalling/media"
	"github.com/tandem-relay/tandem/signalling/rest"
	"github.com/tandem-relay/tandem/signalling/sip"
)

// sipConfig is the configuration as the SIP door reads it.
func sipConfig(cfg *config.Config, r *relay.Relay, engine *media.Engine, logger *slog.Logger) (sip.Config, error) {
	out := sip.Config{Relay: r, Media: engine, Logger: logger}
	nat := map[string]sip.NATMode{}
	for _, n := range cfg.Networks {
		mode, err := sip.ParseNAT(n.NAT)
		if err != nil {
			return sip.Config{}, fmt.Errorf("network %s: %w", n.Name, err)
		}
		nat[n.Name] = mode
		for _, l := range n.Listeners {
			out.Listeners = append(out.Listeners, sip.Listener{Network: n.Name, Addr: l.Addr, Advertise: l.Advertise})
		}
	}
	for _, t := range cfg.Trunks {
		words := []string{t.MediaSource}
		if t.MediaSource == "networks" {
			words = nil
			for _, p := range t.MediaNetworks {
				words = append(words, p.String())
			}
		}
		policy, err := media.ParsePolicy(words...)
		if err != nil {
			return sip.Config{}, fmt.Errorf("trunk %s: %w", t.Name, err)
		}
		out.Trunks = append(out.Trunks, sip.Trunk{
			Name: t.Name, Network: t.Network, Peer: t.Peer, Sources: t.Sources, Route: t.Route, MediaSource: policy, NAT: nat[t.Network],
		})
	}
	return out, nil
}

// door is the SIP server as the control API sees it.
type door struct {
	server   *sip.Server
	draining atomic.Bool
}

func openDoor(cfg *config.Config, r *relay.Relay, engine *media.Engine, logger *slog.Logger) (*door, error) {
	c, err := sipConfig(cfg, r, engine, logger)
	if err != nil {
		return nil, err
	}
	server, err := sip.New(c)
	if err != nil {
		return nil, fmt.Errorf("start SIP: %w", err)
	}
	return &door{server: server}, nil
}

func (d *door) CallCount() int              { return d.server.Len() }
func (d *door) Counters() map[string]uint64 { return d.server.Counters() }
func (d *door) Panics() uint64              { return d.server.Counters()["panics"] }
func (d *door) Draining() bool              { return d.draining.Load() }

func (d *door) Drain(on bool) {
	d.draining.Store(on)
	d.server.Drain(on)
}

func (d *door) Calls() map[relay.SessionID]rest.Call {
	calls := map[relay.SessionID]rest.Call{}
	for _, c := range d.server.Calls() {
		if c.Session == "" {
			continue
		}
		shown := rest.Call{
			ID: c.ID, State: string(c.State), CallIDs: c.CallIDs, From: c.From, To: c.To,
			TrunkIn: c.TrunkIn, TrunkOut: c.TrunkOut, StartedAt: c.StartedAt,
		}
		if !c.AnsweredAt.IsZero() {
			shown.AnsweredAt = &c.AnsweredAt
		}
		calls[c.Session] = shown
	}
	return calls
}
