package xdp_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/tandem-relay/tandem/relay/relaytest"
	"github.com/tandem-relay/tandem/relay/xdp"
)

// patience is how long a test waits for what must come.
const patience = 5 * time.Second

// rig is a relay between two sides, each a veth pair to a namespace of its own. It is a relaytest.World.
type rig struct {
	t        *testing.T
	lab      *lab.Lab
	relay    *lab.Namespace
	hosts    map[string]*lab.Namespace
	sides    map[string][]netip.Addr // the media address, then the hosts
	instance string
	records  uint32
	plane    *xdp.Plane
}

var instances atomic.Int32

func addrs(texts ...string) []netip.Addr {
	list := make([]netip.Addr, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParseAddr(text)
	}
	return list
}

func ipv4() map[string][]netip.Addr {
	return map[string][]netip.Addr{
		relaytest.Outside: addrs("10.71.1.1", "10.71.1.11", "10.71.1.12", "10.71.1.13"),
		relaytest.Inside:  addrs("10.71.2.1", "10.71.2.11", "10.71.2.12", "10.71.2.13"),
	}
}

func ipv6() map[string][]netip.Addr {
	return map[string][]netip.Addr{
		relaytest.Outside: addrs("fd71:1::1", "fd71:1::11", "fd71:1::12", "fd71:1::13"),
		relaytest.Inside:  addrs("fd71:2::1", "fd71:2::11", "fd71:2::12", "fd71:2::13"),
	}
}

// newRig makes the namespaces; far ends receive redirected frames as reception says.
func newRig(t *testing.T, sides map[string][]netip.Addr, reception lab.Reception) *rig {
	t.Helper()
	l := require.Lab(t)
	r := &rig{
		t: t, lab: l, sides: sides, hosts: make(map[string]*lab.Namespace), records: 4096,
		instance: fmt.Sprintf("xdptest-%d-%d", os.Getpid(), instances.Add(1)),
	}
	r.relay = r.namespace("relay")
	for side := range sides {
		r.hosts[side] = r.namespace(side)
		near, far := r.ends(side, reception)
		// The far end comes up first: whether its GRO counts is decided when ours does.
		must(t, l.Connect(far, near))
	}
	t.Cleanup(func() {
		if r.plane != nil {
			_ = r.plane.Close()
		}
		if err := bpf.Cleanup("", r.instance); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return r
}

// ends returns those of a side's cable.
func (r *rig) ends(side string, reception lab.Reception) (near, far lab.End) {
	list, bits := r.sides[side], 24
	if list[0].Is6() {
		bits = 64
	}
	near = lab.End{Namespace: r.relay, Name: side, Addrs: []netip.Prefix{netip.PrefixFrom(list[0], bits)}, Reception: lab.Bare}
	far = lab.End{Namespace: r.hosts[side], Name: "veth0", Reception: reception}
	for _, addr := range list[1:] {
		far.Addrs = append(far.Addrs, netip.PrefixFrom(addr, bits))
	}
	return near, far
}

func (r *rig) namespace(name string) *lab.Namespace {
	r.t.Helper()
	ns, err := r.lab.Namespace(name)
	must(r.t, err)
	return ns
}

func (r *rig) networks() []xdp.Network {
	var list []xdp.Network
	for _, side := range []string{relaytest.Outside, relaytest.Inside} {
		list = append(list, xdp.Network{
			Name: side, Interfaces: []string{side},
			Media: []relay.MediaAddress{{
				Addr: r.sides[side][0], Ranges: []ports.Range{{First: relaytest.FirstPort, Last: relaytest.LastPort}},
			}},
		})
	}
	return list
}

// try starts a plane in the relay's namespace.
func (r *rig) try(change func(*xdp.Config)) (plane *xdp.Plane, err error) {
	return r.tryAs(r.instance, change)
}

func (r *rig) tryAs(instance string, change func(*xdp.Config)) (plane *xdp.Plane, err error) {
	logger := slog.New(slog.NewTextHandler(r.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	err = r.relay.Do(func() error {
		maps, _, err := bpf.Open(bpf.Options{Instance: instance, Records: r.records, Logger: logger})
		if err != nil {
			return err
		}
		cfg := xdp.Config{Maps: maps, Networks: r.networks(), Logger: logger}
		if change != nil {
			change(&cfg)
		}
		if plane, err = xdp.New(context.Background(), cfg); err != nil {
			_ = maps.Close()
		}
		return err
	})
	return plane, err
}

// start starts the rig's plane, or starts it again after a Close.
func (r *rig) start() *rig {
	r.t.Helper()
	plane, err := r.try(nil)
	must(r.t, err)
	r.plane = plane
	return r
}

func (r *rig) Plane() relay.Dataplane       { return r.plane }
func (r *rig) Media(side string) netip.Addr { return r.sides[side][0] }
func (r *rig) Do(f func() error) error      { return r.relay.Do(f) }
func (r *rig) local(side string, n int) netip.AddrPort {
	return netip.AddrPortFrom(r.sides[side][0], relaytest.FirstPort+uint16(n))
}

func (r *rig) Listen(side string, host int) (*net.UDPConn, error) {
	return r.hosts[side].ListenUDP(netip.AddrPortFrom(r.sides[side][1+host], 0))
}

// reason returns the count of a reason.
func (r *rig) reason(name string) uint64 {
	r.t.Helper()
	totals, err := r.plane.Totals()
	must(r.t, err)
	for _, reason := range totals.Reasons {
		if reason.Name == name {
			return reason.Packets
		}
	}
	r.t.Fatalf("no reason %q", name)
	return 0
}

// flow returns the state of a record.
func (r *rig) flow(id relay.SessionID, local netip.AddrPort) relay.Flow {
	r.t.Helper()
	for _, f := range r.plane.Flows(id) {
		if f.Local == local {
			return f
		}
	}
	r.t.Fatalf("no flow at %s", local)
	return relay.Flow{}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-tick.C
	}
}

// TestEquivalence plays the scenarios that every data plane tells in the same way.
func TestEquivalence(t *testing.T) {
	t.Run("IPv4", func(t *testing.T) {
		r := newRig(t, ipv4(), lab.XDPPass).start()
		if w := r.plane.Warnings(); len(w) > 0 {
			t.Errorf("warnings: %s", strings.Join(w, "\n"))
		}
		relaytest.Play(t, r)
	})
	t.Run("IPv6", func(t *testing.T) { relaytest.Play(t, newRig(t, ipv6(), lab.XDPPass).start()) })
}

// pass sends a payload from a party to a local endpoint; the next packet at the other party must be it.
func pass(from *net.UDPConn, at netip.AddrPort, to *net.UDPConn, leaves netip.AddrPort, payload []byte) error {
	if _, err := from.WriteToUDPAddrPort(payload, at); err != nil {
		return err
	}
	_ = to.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1<<16)
	n, source, err := to.ReadFromUDPAddrPort(buf)
	switch {
	case err != nil:
		return err
	case netip.AddrPortFrom(source.Addr().Unmap(), source.Port()) != leaves:
		return fmt.Errorf("came from %s, want %s", source, leaves)
	case !bytes.Equal(buf[:n], payload):
		return fmt.Errorf("payload of %d bytes is not that of %d bytes that was sent", n, len(payload))
	}
	return nil
}
