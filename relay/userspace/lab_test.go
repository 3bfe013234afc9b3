package userspace_test

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/relaytest"
	"github.com/tandem-relay/tandem/relay/userspace"
)

// wires is a relaytest.World of three namespaces: the relay between the two sides.
type wires struct {
	loopback
	relay *lab.Namespace
	hosts map[string]*lab.Namespace
}

func (w *wires) Plane() relay.Dataplane  { return w.plane }
func (w *wires) Do(f func() error) error { return w.relay.Do(f) }

func (w *wires) Listen(side string, host int) (*net.UDPConn, error) {
	return w.hosts[side].ListenUDP(netip.AddrPortFrom(w.sides[side][1+host], 0))
}

func newWires(t *testing.T, bits int, sides map[string][]netip.Addr) *wires {
	t.Helper()
	l := require.Lab(t)
	namespace := func(name string) *lab.Namespace {
		ns, err := l.Namespace(name)
		if err != nil {
			t.Fatal(err)
		}
		return ns
	}
	w := &wires{relay: namespace("relay"), hosts: make(map[string]*lab.Namespace)}
	w.sides = sides
	for side, addrs := range sides {
		w.hosts[side] = namespace(side)
		near := lab.End{Namespace: w.relay, Name: side, Addrs: []netip.Prefix{netip.PrefixFrom(addrs[0], bits)}, Reception: lab.Bare}
		far := lab.End{Namespace: w.hosts[side], Name: "veth0", Reception: lab.Bare}
		for _, addr := range addrs[1:] {
			far.Addrs = append(far.Addrs, netip.PrefixFrom(addr, bits))
		}
		if err := l.Connect(near, far); err != nil {
			t.Fatal(err)
		}
	}
	w.plane = userspace.New(userspace.Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	t.Cleanup(func() { _ = w.plane.Close() })
	return w
}

// TestEquivalenceLab plays the scenarios over Ethernet, where packets are fragmented and neighbours are resolved, in both
// address families.
func TestEquivalenceLab(t *testing.T) {
	t.Run("IPv4", func(t *testing.T) {
		relaytest.Play(t, newWires(t, 24, map[string][]netip.Addr{
			relaytest.Outside: addrs("10.81.1.1", "10.81.1.11", "10.81.1.12", "10.81.1.13"),
			relaytest.Inside:  addrs("10.81.2.1", "10.81.2.11", "10.81.2.12", "10.81.2.13"),
		}))
	})
	t.Run("IPv6", func(t *testing.T) {
		relaytest.Play(t, newWires(t, 64, map[string][]netip.Addr{
			relaytest.Outside: addrs("fd81:1::1", "fd81:1::11", "fd81:1::12", "fd81:1::13"),
			relaytest.Inside:  addrs("fd81:2::1", "fd81:2::11", "fd81:2::12", "fd81:2::13"),
		}))
	})
}
