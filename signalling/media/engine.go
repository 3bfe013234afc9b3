// Package media is the one offer/answer engine: a party's session description in, relay calls, session description out.
package media

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/ports"
)

// ErrUnacceptable says that a session description is well formed but cannot be anchored (488 in SIP).
// Malformed descriptions are sdp.ErrSyntax (400), a full port pool is ports.ErrExhausted (503).
var ErrUnacceptable = errors.New("session description not acceptable")

// Ports is what the engine needs of a relay transaction; *relay.Tx is one.
type Ports interface {
	// Allocate takes a port pair of the network; it goes back by itself if the session does not hold it in the end.
	Allocate(network string) (relay.Pair, error)
}

// Network is what the engine must know of a network.
type Network struct {
	Name string
	// Trust says that the parties of the network are believed: with policy auto, a private address that can be
	// routed there is taken as the source of media.
	Trust bool
	// Routable tells whether an address can be reached in the network. It must say no to special addresses (see
	// Special) that only a default route covers, and to those of this host at which the network's parties have no
	// business. It is called concurrently, and not for media addresses of ours. Nil: every address that is not special.
	Routable func(netip.Addr) bool
	// Media are our own media addresses in the network, so that a description that gives one of them back is known.
	Media []netip.Addr
	// Ranges are the ports that are relayed at a media address; nothing is sent to its other ones. A missing key: all.
	Ranges map[netip.Addr][]ports.Range
	// Advertise maps a media address to the one that descriptions show (1:1 NAT). A missing key: itself.
	Advertise map[netip.Addr]netip.Addr
}

// Config is what an Engine is made of.
type Config struct {
	Networks []Network
	Logger   *slog.Logger // nil: silent
}

// Side is one side of an exchange.
type Side struct {
	// Party is the side's party in the session. It is created by the first Offer that names it.
	Party relay.PartyID
	// Network is the party's network; it does not change within a session.
	Network string
	// From is the source address of the signalling message that carried the description. Of the side that receives
	// the description it is not read, and neither is Source.
	From   netip.Addr
	Source Policy
	// Label is for display. Empty: the party keeps what it has.
	Label string
}

// Engine anchors session descriptions. It holds no state of calls and may be used concurrently;
// one session is edited by one caller at a time.
type Engine struct {
	networks map[string]*Network
	// own holds our media addresses and, mapped to them, what they are advertised as.
	own    map[netip.Addr]netip.Addr
	ranges map[netip.Addr][]ports.Range
	log    *slog.Logger
}

// New returns an engine over the given networks. The maps and slices of c must not change afterwards.
func New(c Config) *Engine {
	e := &Engine{networks: make(map[string]*Network), own: make(map[netip.Addr]netip.Addr), ranges: make(map[netip.Addr][]ports.Range), log: c.Logger}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	for i := range c.Networks {
		n := &c.Networks[i]
		e.networks[n.Name] = n
		for local, shown := range n.Advertise {
			e.own[shown.Unmap()] = local.Unmap()
		}
	}
	for i := range c.Networks {
		n := &c.Networks[i]
		for _, a := range n.Media { // after the advertised ones: an address that is both is itself
			e.own[a.Unmap()] = a.Unmap()
		}
		for local := range n.Advertise {
			e.own[local.Unmap()] = local.Unmap()
		}
		for local, ranges := range n.Ranges {
			e.ranges[local.Unmap()] = append(e.ranges[local.Unmap()], ranges...)
		}
	}
	return e
}

func (e *Engine) network(name string) (*Network, error) {
	n := e.networks[name]
	if n == nil {
		return nil, fmt.Errorf("unknown network %q", name)
	}
	return n, nil
}

// shown is the address that a description shows for a media address.
func (n *Network) shown(local netip.Addr) netip.Addr {
	if a, ok := n.Advertise[local]; ok {
		return a.Unmap()
	}
	return local
}
