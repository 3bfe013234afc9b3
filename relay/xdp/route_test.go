package xdp_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/relaytest"
	"github.com/tandem-relay/tandem/relay/xdp"
)

// far is a host behind gateways: not on the link.
var far = netip.MustParseAddr("10.79.0.5")

// newGateway connects the relay by another interface to a router that is the host far as well.
func (r *rig) newGateway(name, near, gateway string) *lab.Namespace {
	r.t.Helper()
	ns := r.namespace(name)
	must(r.t, r.lab.Connect(
		lab.End{Namespace: r.relay, Name: name, Addrs: []netip.Prefix{netip.MustParsePrefix(near + "/24")}, Reception: lab.Bare},
		lab.End{Namespace: ns, Name: "veth0", Addrs: []netip.Prefix{netip.MustParsePrefix(gateway + "/24")}}))
	must(r.t, ns.AddAddr("lo", netip.PrefixFrom(far, 32)))
	must(r.t, ns.AddRoute(netip.MustParsePrefix("10.71.0.0/16"), netip.MustParseAddr(near), 0))
	return ns
}

// TestRouteChange: flows follow the kernel's routes to another gateway on another interface, and out of the network's
// interfaces not even by the slow path.
func TestRouteChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass)
	gateways := []*lab.Namespace{
		r.newGateway("gw0", "10.75.0.1", "10.75.0.2"), r.newGateway("gw1", "10.75.1.1", "10.75.1.2"),
		r.newGateway("stray", "10.75.2.1", "10.75.2.2"),
	}
	via := addrs("10.75.0.2", "10.75.1.2", "10.75.2.2")
	prefix := netip.MustParsePrefix("10.79.0.0/16")
	must(t, r.relay.AddRoute(prefix, via[0], 0))
	plane, err := r.try(func(c *xdp.Config) { c.Networks[1].Interfaces = []string{"inside", "gw0", "gw1"} })
	must(t, err)
	r.plane = plane
	const port = 6000
	var callees []*net.UDPConn
	for _, gw := range gateways {
		conn, err := gw.ListenUDP(netip.AddrPortFrom(far, port))
		must(t, err)
		defer conn.Close()
		callees = append(callees, conn)
	}
	c := r.newCall("moved", 0)
	c.out.Outputs[0].To = netip.AddrPortFrom(far, port)
	c.apply()
	forwarded := func() uint64 { return r.flow(c.id, c.atOut).Packets[relay.PathXDP] }
	passes(t, c.caller, c.atOut, callees[0], c.atIn, relaytest.RTP(0, 160))
	before := forwarded()
	must(t, r.relay.AddRoute(prefix, via[1], 0))
	eventually(t, "the flow moves to the second gateway", func() bool { return arrives(c.caller, c.atOut, callees[1]) })
	eventually(t, "by XDP", func() bool { return arrives(c.caller, c.atOut, callees[1]) && forwarded() > before+1 })
	// Policy routing for the media address decides, not the main table.
	must(t, r.relay.AddRoute(prefix, via[0], 77))
	must(t, r.relay.AddRule(netip.PrefixFrom(c.atIn.Addr(), 32), 77, 1000))
	before = forwarded()
	eventually(t, "the flow moves by rule", func() bool { return arrives(c.caller, c.atOut, callees[0]) && forwarded() > before+1 })
	must(t, r.relay.AddRoute(prefix, via[2], 77))
	eventually(t, "the route leads out of the network", func() bool {
		_, err := c.caller.WriteToUDPAddrPort(relaytest.RTP(1, 160), c.atOut)
		return err == nil && r.reason("slow_foreign_route") > 0
	})
	quiet(t, callees[2])
}

// TestMACChange: flows follow a neighbour to another hardware address, and the relay's own.
func TestMACChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	c := r.newCall("mac", 0)
	c.apply()
	c.byXDP(1)
	inside, err := r.relay.Ifindex(relaytest.Inside)
	must(t, err)
	for i, ns := range []*lab.Namespace{r.hosts[relaytest.Inside], r.relay} {
		name, mac := "veth0", net.HardwareAddr{2, 0, 0, 0, 7, byte(i + 1)}
		if ns == r.relay {
			name = relaytest.Inside
		}
		must(t, ns.SetMAC(name, mac))
		if ns == r.relay {
			// The far host must learn it too.
			peer := r.hosts[relaytest.Inside]
			index, err := peer.Ifindex("veth0")
			must(t, err)
			must(t, peer.Handle().NeighSet(&netlink.Neigh{
				LinkIndex: index, IP: r.Media(relaytest.Inside).AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT,
			}))
		} else {
			// As after a gratuitous ARP.
			must(t, r.relay.Handle().NeighSet(&netlink.Neigh{
				LinkIndex: inside, IP: addrOf(c.callee).Addr().AsSlice(), HardwareAddr: mac, State: netlink.NUD_REACHABLE,
			}))
		}
		eventually(t, "the flow follows", func() bool {
			before := r.flow(c.id, c.atOut).Packets[relay.PathXDP]
			return arrives(c.caller, c.atOut, c.callee) && r.flow(c.id, c.atOut).Packets[relay.PathXDP] == before+1
		})
		c.byXDP(2)
	}
}

// TestNeighbours: XDP traffic alone confirms no neighbour, so the plane keeps those in use alive. One that fails is left to
// the slow path, where the kernel finds it again.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass)
	for name, value := range map[string]string{
		"base_reachable_time_ms": "1000", "delay_first_probe_time": "0", "retrans_time_ms": "100", "gc_stale_time": "2",
	} {
		must(t, r.relay.Sysctl("net.ipv4.neigh.inside."+name, value))
	}
	r.start()
	c := r.newCall("alive", 0)
	c.apply()
	c.exchange(0)
	index, err := r.relay.Ifindex(relaytest.Inside)
	must(t, err)
	state := func() int {
		list, err := r.relay.Handle().NeighList(index, netlink.FAMILY_V4)
		must(t, err)
		for _, n := range list {
			if n.IP.Equal(addrOf(c.callee).Addr().AsSlice()) {
				return n.State
			}
		}
		return 0
	}
	// Reachable, stale, and reachable again: somebody asked.
	deadline := time.Now().Add(30 * time.Second)
	for _, want := range []int{netlink.NUD_STALE, netlink.NUD_REACHABLE} {
		for state() != want {
			if time.Now().After(deadline) {
				t.Fatalf("nobody confirmed the neighbour; state %#x, want %#x; %+v", state(), want, r.flow(c.id, c.atOut))
			}
			if !arrives(c.caller, c.atOut, c.callee) {
				t.Fatal("a packet was lost meanwhile")
			}
		}
	}
	// The host goes away without a word.
	host := r.hosts[relaytest.Inside]
	prefix := netip.PrefixFrom(addrOf(c.callee).Addr(), 24)
	must(t, host.DelAddr("veth0", prefix))
	must(t, r.relay.Handle().NeighSet(&netlink.Neigh{
		LinkIndex: index, IP: addrOf(c.callee).Addr().AsSlice(), State: netlink.NUD_FAILED,
	}))
	eventually(t, "packets are punted", func() bool {
		_, err := c.caller.WriteToUDPAddrPort(relaytest.RTP(1, 160), c.atOut)
		return err == nil && r.flow(c.id, c.atOut).Punted["punt_no_next_hop"] > 0
	})
	must(t, host.AddAddr("veth0", prefix))
	eventually(t, "the flow comes back to XDP", func() bool {
		before := r.flow(c.id, c.atOut).Packets[relay.PathXDP]
		return arrives(c.caller, c.atOut, c.callee) && r.flow(c.id, c.atOut).Packets[relay.PathXDP] > before
	})
}

// TestPermanentNeighbour: an entry that the operator made stays as it is.
func TestPermanentNeighbour(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass)
	index, err := r.relay.Ifindex(relaytest.Inside)
	must(t, err)
	mac, err := r.hosts[relaytest.Inside].MAC("veth0")
	must(t, err)
	callee := r.sides[relaytest.Inside][1]
	must(t, r.relay.Handle().NeighSet(&netlink.Neigh{
		LinkIndex: index, IP: callee.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT,
	}))
	r.start()
	c := r.newCall("static", 0)
	c.apply()
	c.byXDP(0)
	list, err := r.relay.Handle().NeighList(index, netlink.FAMILY_V4)
	must(t, err)
	for _, n := range list {
		if n.IP.Equal(callee.AsSlice()) && n.State != netlink.NUD_PERMANENT {
			t.Errorf("the entry is no longer permanent: %#x", n.State)
		}
	}
}
