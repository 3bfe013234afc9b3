package xdp_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/relaytest"
	"github.com/tandem-relay/tandem/relay/userspace"
)

// plainRig is a rig whose plane is the one over sockets.
type plainRig struct {
	*rig
	plain *userspace.Plane
}

func (r *plainRig) Plane() relay.Dataplane { return r.plain }

// TestUserspaceAgrees plays random stories on both planes: after every step receivers, drops, flows and what was learnt
// are the same.
func TestUserspaceAgrees(t *testing.T) {
	families := []struct {
		name   string
		sides  map[string][]netip.Addr
		memory string
	}{
		{"IPv4", ipv4(), "net.ipv4.ipfrag_high_thresh"},
		{"IPv6", ipv6(), "net.ipv6.ip6frag_high_thresh"},
	}
	for _, family := range families {
		t.Run(family.name, func(t *testing.T) {
			fast := newRig(t, family.sides, lab.XDPPass).start()
			// The program drops the first fragment of what it refuses; the others wait in the kernel until they time out.
			must(t, fast.relay.Sysctl(family.memory, "67108864"))
			slow := &plainRig{
				rig:   newRig(t, family.sides, lab.Bare),
				plain: userspace.New(userspace.Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}),
			}
			defer func() { _ = slow.plain.Close() }()
			for seed := range uint64(6) {
				t.Run(fmt.Sprint(seed), func(t *testing.T) { relaytest.Compare(t, seed, 200, fast, slow) })
			}
		})
	}
}
