package xdp_test

import (
	"fmt"
	"log/slog"
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
	fast := newRig(t, ipv4(), lab.XDPPass).start()
	slow := &plainRig{
		rig:   newRig(t, ipv4(), lab.Bare),
		plain: userspace.New(userspace.Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}),
	}
	defer func() { _ = slow.plain.Close() }()
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { relaytest.Compare(t, seed, 200, fast, slow) })
	}
}
