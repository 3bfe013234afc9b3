package relaytest

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
	"github.com/tandem-relay/tandem/relay/ports"
)

// Networks are "inside" at 192.0.2.1 and "outside" at 203.0.113.1, each with 1,000 pairs from port 20000 on.
func Networks() []relay.Network {
	ranges := []ports.Range{{First: 20000, Last: 21999}}
	return []relay.Network{
		{Name: "inside", Media: []relay.MediaAddress{{Addr: netip.MustParseAddr("192.0.2.1"), Ranges: ranges}}},
		{Name: "outside", Media: []relay.MediaAddress{{Addr: netip.MustParseAddr("203.0.113.1"), Ranges: ranges}}},
	}
}

// NewRelay makes a relay over a plane and a store of its own; without networks, over Networks.
func NewRelay(t testing.TB, networks ...relay.Network) (*relay.Relay, *Plane, *Store) {
	t.Helper()
	if len(networks) == 0 {
		networks = Networks()
	}
	plane, store := New(), new(Store)
	r, err := relay.New(relay.Config{
		Networks: networks,
		Log:      feed.New(1, 0, store),
		Plane:    plane,
		Logger:   slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, plane, store
}
