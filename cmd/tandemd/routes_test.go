package main

import (
	"net/netip"
	"testing"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
)

// The host has an outside interface with the default route, and an inside one with a private network and a route behind it.
func TestRoutable(t *testing.T) {
	l := require.Lab(t)
	ns, err := l.Namespace("tandem")
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Namespace("peer")
	if err != nil {
		t.Fatal(err)
	}
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	for name, own := range map[string][]netip.Prefix{"outside": {prefix("203.0.113.10/24")}, "inside": {prefix("10.0.0.1/24"), prefix("10.0.0.2/24")}} {
		end := lab.End{Namespace: ns, Name: name, Addrs: own, Reception: lab.Bare}
		if err := l.Connect(end, lab.End{Namespace: peer, Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	for to, via := range map[string]string{"0.0.0.0/0": "203.0.113.1", "10.7.0.0/16": "10.0.0.254"} {
		if err := ns.AddRoute(prefix(to), addr(via), 0); err != nil {
			t.Fatal(err)
		}
	}
	var r *routes
	if err := ns.Do(func() (err error) { r, err = openRoutes(); return err }); err != nil {
		t.Fatal(err)
	}
	defer r.close()
	outside, inside, loopback := addr("203.0.113.10"), addr("10.0.0.1"), addr("127.0.0.2")
	cases := []struct {
		name       string
		from       netip.Addr
		interfaces []string
		to         string
		want       bool
		trust      bool
	}{
		{"on the link", outside, []string{"outside"}, "203.0.113.20", true, false},
		{"by the default route", outside, []string{"outside"}, "198.51.100.20", true, false},
		{"by the default route, with any interface", outside, nil, "198.51.100.20", true, false},
		{"ordinary, but it leaves by another network's interface", inside, []string{"inside"}, "198.51.100.20", false, false},
		{"private, on the link", inside, []string{"inside"}, "10.0.0.20", true, false},
		{"private, by a route of its own", inside, []string{"inside"}, "10.7.1.2", true, false},
		{"private, by the default route only", outside, []string{"outside"}, "192.168.1.2", false, false},
		{"private, by the default route only, with any interface", outside, nil, "192.168.1.2", false, false},
		{"shared (RFC 6598), by the default route only", outside, []string{"outside"}, "100.64.0.9", false, false},
		{"private, but of another network", outside, []string{"outside"}, "10.0.0.20", false, false},
		{"an address of this host", outside, []string{"outside"}, "10.0.0.1", false, false},
		{"an address of this host, in the same network", outside, []string{"outside"}, "203.0.113.10", false, false},
		{"an address of this host, with any interface", outside, nil, "10.0.0.1", false, false},
		{"trusted: an address of the network's interface", inside, []string{"inside"}, "10.0.0.2", true, true},
		{"trusted: an address of another interface", inside, []string{"inside"}, "203.0.113.10", false, true},
		{"trusted, with any interface: one of the interface with our address", inside, nil, "10.0.0.2", true, true},
		{"trusted, with any interface: one of another interface", inside, nil, "203.0.113.10", false, true},
		{"loopback", outside, []string{"outside"}, "127.0.0.1", false, false},
		{"loopback, with any interface", outside, nil, "127.0.0.1", false, false},
		{"trusted: loopback all the same", inside, []string{"inside"}, "127.0.0.1", false, true},
		{"loopback of a network on loopback", loopback, []string{"lo"}, "127.0.0.9", true, false},
		{"loopback of a network on loopback, with any interface", loopback, nil, "127.0.0.9", true, false},
		{"an address of this host, of a network on loopback", loopback, []string{"lo"}, "10.0.0.1", false, false},
		{"trusted: an address of this host that is not on loopback, of a network that is", loopback, []string{"lo"}, "10.0.0.1", false, true},
		{"multicast", outside, []string{"outside"}, "224.0.0.9", false, false},
		{"broadcast of the link", outside, []string{"outside"}, "203.0.113.255", false, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := r.routable(realm{c.from, c.interfaces, c.trust}, addr(c.to)); got != c.want {
				t.Errorf("routable(%v, %v, trust %v, %s) = %v", c.from, c.interfaces, c.trust, c.to, got)
			}
		})
	}
}

func TestRoutableWithoutRoute(t *testing.T) {
	l := require.Lab(t)
	ns := connected(t, l, netip.MustParsePrefix("203.0.113.10/24"))
	var r *routes
	if err := ns.Do(func() (err error) { r, err = openRoutes(); return err }); err != nil {
		t.Fatal(err)
	}
	defer r.close()
	from := netip.MustParseAddr("203.0.113.10")
	if r.routable(realm{from: from, interfaces: []string{"eth0"}}, netip.MustParseAddr("198.51.100.20")) {
		t.Error("there is no route at all")
	}
	if !r.routable(realm{from: from, interfaces: []string{"eth0"}}, netip.MustParseAddr("203.0.113.20")) {
		t.Error("the link is a route")
	}
}
