package bpf

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
)

// cable makes a namespace "tandem" with a bare end eth0, and a peer with the given reception.
func cable(t *testing.T, reception lab.Reception) (tandem, peer *lab.Namespace) {
	t.Helper()
	l := require.Lab(t)
	var err error
	if tandem, err = l.Namespace("tandem"); err != nil {
		t.Fatal(err)
	}
	if peer, err = l.Namespace("peer"); err != nil {
		t.Fatal(err)
	}
	// The peer's end first: whether its GRO counts is decided when ours comes up.
	err = l.Connect(
		lab.End{Namespace: peer, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}, Reception: reception},
		lab.End{Namespace: tandem, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}, Reception: lab.Bare},
	)
	if err != nil {
		t.Fatal(err)
	}
	return tandem, peer
}

func TestProveEgress(t *testing.T) {
	for _, c := range []struct {
		name      string
		reception lab.Reception
		want      error
		reason    string
	}{
		{"native peer", lab.XDPPass, nil, "a native XDP program receives redirected frames"},
		{"GRO peer", lab.GRO, nil, "GRO runs the same NAPI"},
		{"bare peer", lab.Bare, ErrEgress, "a veth drops redirected frames silently where the peer has neither"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tandem, _ := cable(t, c.reception)
			index, err := tandem.Ifindex("eth0")
			if err != nil {
				t.Fatal(err)
			}
			mac, err := tandem.MAC("eth0")
			if err != nil {
				t.Fatal(err)
			}
			plane, _, err := openIn(tandem, Options{Root: require.PinDir(t), Records: 64})
			if err != nil {
				t.Fatal(err)
			}
			defer plane.Release()
			if err := tandem.Do(func() error { return plane.Attach(index, "eth0", ModeNative) }); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			err = tandem.Do(func() error { return ProveEgress(uint32(index), mac) })
			t.Logf("%v after %v", err, time.Since(start).Round(time.Millisecond))
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v: %s", err, c.want, c.reason)
			}
		})
	}
}

func openIn(ns *lab.Namespace, o Options) (p *Plane, adopted bool, err error) {
	err = ns.Do(func() error {
		p, adopted, err = Open(o)
		return err
	})
	return p, adopted, err
}
