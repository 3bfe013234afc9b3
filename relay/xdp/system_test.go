package xdp_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/relaytest"
	"github.com/tandem-relay/tandem/relay/xdp"
)

// TestFirewall: beside a firewall that drops by default, the plane says which rule is missing, and needs no other.
func TestFirewall(t *testing.T) {
	t.Parallel()
	require.Tool(t, "nft")
	r := newRig(t, ipv4(), lab.XDPPass)
	must(t, r.relay.NFT(`table inet filter {
		chain input {
			type filter hook input priority 0; policy drop
			ct state established accept
		}
	}`))
	must(t, r.relay.Sysctl("net.ipv4.conf.all.rp_filter", "1"))
	r.start()
	warnings := r.plane.Warnings()
	if len(warnings) != 2 {
		t.Fatalf("warnings %q, want one for each media address", warnings)
	}
	var rules []string
	for i, side := range []string{relaytest.Outside, relaytest.Inside} {
		_, rule, found := strings.Cut(warnings[i], "nft ")
		if !found || !strings.Contains(rule, r.Media(side).String()) || !strings.Contains(rule, side) ||
			!strings.Contains(rule, "udp dport 20000-20999 accept") {
			t.Errorf("warning %q", warnings[i])
		}
		rules = append(rules, rule)
	}
	// XDP forwards nevertheless: the firewall does not see it.
	c := r.newCall("walled", 0)
	c.apply()
	if arrives(c.caller, c.atOut, c.callee) {
		t.Log("neighbours were resolved through the firewall")
	}
	eventually(t, "XDP forwards", func() bool { return arrives(c.caller, c.atOut, c.callee) })
	if _, err := c.caller.WriteToUDPAddrPort(relaytest.STUN(), c.atOut); err != nil {
		t.Fatal(err)
	}
	quiet(t, c.callee)
	must(t, r.plane.Close())
	must(t, r.relay.NFT(strings.Join(rules, "\n")))
	r.start()
	if w := r.plane.Warnings(); len(w) != 0 {
		t.Errorf("warnings with the rules in place: %q", w)
	}
	_, err := r.plane.Adopt(t.Context(), []relay.Compiled{c.compiled()})
	must(t, err)
	passes(t, c.caller, c.atOut, c.callee, c.atIn, relaytest.STUN())
}

// TestEgressRefused: a veth whose peer takes no redirected frames is refused, by name, and nothing stays attached.
func TestEgressRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.Bare)
	plane, err := r.try(nil)
	if !errors.Is(err, bpf.ErrEgress) || !strings.Contains(err.Error(), "network outside") || !strings.Contains(err.Error(), "GRO") {
		t.Errorf("error %v", err)
	}
	if plane != nil {
		_ = plane.Close()
	}
	r.attached(t, false)
}

// TestGRO: a peer that has GRO takes them.
func TestGRO(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.GRO).start()
	c := r.newCall("gro", 0)
	c.apply()
	c.byXDP(1)
}

// TestGeneric: generic mode works where it is asked for.
func TestGeneric(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.Bare)
	plane, err := r.try(func(c *xdp.Config) {
		for i := range c.Networks {
			c.Networks[i].Mode = bpf.ModeGeneric
		}
	})
	must(t, err)
	r.plane = plane
	c := r.newCall("generic", 0)
	c.apply()
	c.byXDP(1)
}

// TestTwoInstances: instances with interfaces and addresses of their own live side by side, and end one by one.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	second := &rig{t: t, lab: r.lab, relay: r.relay, hosts: make(map[string]*lab.Namespace), records: 4096, instance: r.instance + "b"}
	second.sides = map[string][]netip.Addr{
		relaytest.Outside: addrs("10.72.1.1", "10.72.1.11"), relaytest.Inside: addrs("10.72.2.1", "10.72.2.11"),
	}
	names := map[string]string{relaytest.Outside: "outside2", relaytest.Inside: "inside2"}
	for side, list := range second.sides {
		second.hosts[side] = r.namespace(names[side])
		must(t, r.lab.Connect(
			lab.End{Namespace: r.relay, Name: names[side], Addrs: []netip.Prefix{netip.PrefixFrom(list[0], 24)}, Reception: lab.Bare},
			lab.End{Namespace: second.hosts[side], Name: "veth0", Addrs: []netip.Prefix{netip.PrefixFrom(list[1], 24)}}))
	}
	plane, err := second.try(func(c *xdp.Config) {
		for i := range c.Networks {
			c.Networks[i].Interfaces = []string{names[c.Networks[i].Name]}
		}
	})
	must(t, err)
	second.plane = plane
	defer func() {
		_ = second.plane.Close()
		must(t, bpf.Cleanup("", second.instance))
	}()
	a, b := r.newCall("call", 0), second.newCall("call", 0)
	a.apply()
	b.apply()
	for i := range uint16(5) {
		a.byXDP(i)
		b.byXDP(i)
		passes(t, a.caller, a.atOut, a.callee, a.atIn, relaytest.STUN())
		passes(t, b.caller, b.atOut, b.callee, b.atIn, relaytest.STUN())
	}
	must(t, second.plane.Release())
	a.byXDP(9)
	passes(t, a.caller, a.atOut, a.callee, a.atIn, relaytest.STUN())
}

// TestRelease: nothing is left in the kernel.
func TestRelease(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	r.attached(t, true)
	c := r.newCall("last", 0)
	c.apply()
	c.byXDP(1)
	must(t, r.plane.Release())
	r.attached(t, false)
	if _, err := os.Stat(filepath.Join(bpf.DefaultRoot, r.instance)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins are left: %v", err)
	}
	names, err := bpf.Instances("")
	must(t, err)
	if slices.Contains(names, r.instance) {
		t.Error("the instance is still listed")
	}
	// The media range is an ordinary one again: closed ports answer.
	connected, err := r.hosts[relaytest.Outside].DialUDP(netip.AddrPort{}, c.atOut)
	must(t, err)
	defer connected.Close()
	_, err = connected.Write([]byte{0})
	must(t, err)
	_ = connected.SetReadDeadline(time.Now().Add(patience))
	if _, err := connected.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("no ICMP from a closed port: %v", err)
	}
	// After the end every method says so, or nothing.
	if err := r.plane.Apply(t.Context(), c.id, 9, []relay.Record{c.out, c.in}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("apply after release: %v", err)
	}
	if flows := r.plane.Flows(c.id); flows != nil {
		t.Errorf("flows after release: %+v", flows)
	}
	if _, err := r.plane.Totals(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("totals after release: %v", err)
	}
	must(t, r.plane.Close())
	if err := r.plane.Run(t.Context()); err != nil {
		t.Errorf("run after release: %v", err)
	}
}
