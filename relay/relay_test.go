package relay_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/tandem-relay/tandem/relay/relaytest"
)

func endpoint(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// call fills a session with two parties of one audio stream each that hear each other.
func call(t testing.TB, tx *relay.Tx, s *relay.Session) {
	t.Helper()
	for _, network := range []string{"inside", "outside"} {
		local, err := tx.Allocate(network)
		if err != nil {
			t.Fatal(err)
		}
		s.Parties = append(s.Parties, relay.Party{
			ID: relay.PartyID(network), Network: network,
			Streams: []relay.Stream{{
				Media: "audio", Proto: "RTP/AVP", Local: local, Window: 1,
				Remote: relay.Remote{RTP: endpoint("198.51.100.7:4000"), RTCP: endpoint("198.51.100.7:4001")},
				Accept: relay.AcceptSet{Nets: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}},
			}},
		})
	}
	a, b := relay.StreamRef{Party: "inside"}, relay.StreamRef{Party: "outside"}
	s.Subscriptions = []relay.Subscription{{Source: a, Sink: b}, {Source: b, Sink: a}}
}

// established commits a new call.
func established(t testing.TB, r *relay.Relay) *relay.Session {
	t.Helper()
	tx := r.Begin()
	defer tx.Rollback()
	s := tx.Create()
	call(t, tx, s)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	committed, ok := r.Session(s.ID)
	if !ok {
		t.Fatal("committed session is not there")
	}
	return committed
}

// used is the number of taken and quarantined pairs of all media addresses.
func used(r *relay.Relay) (taken, quarantined int) {
	for _, p := range r.Ports() {
		taken += p.Used
		quarantined += p.Quarantined
	}
	return taken, quarantined
}

func wantPorts(t testing.TB, r *relay.Relay, taken, quarantined int) {
	t.Helper()
	if gotTaken, gotQuarantined := used(r); gotTaken != taken || gotQuarantined != quarantined {
		t.Errorf("%d pairs taken and %d in quarantine, want %d and %d", gotTaken, gotQuarantined, taken, quarantined)
	}
}

func TestNewRefuses(t *testing.T) {
	ranges := []ports.Range{{First: 20000, Last: 20099}}
	media := func(addrs ...string) []relay.MediaAddress {
		var all []relay.MediaAddress
		for _, a := range addrs {
			addr, _ := netip.ParseAddr(a)
			all = append(all, relay.MediaAddress{Addr: addr, Ranges: ranges})
		}
		return all
	}
	tests := []struct {
		name     string
		networks []relay.Network
		want     string // in the message
	}{
		{"fine", []relay.Network{{Name: "a", Media: media("192.0.2.1", "192.0.2.2")}, {Name: "b"}}, ""},
		{"no name", []relay.Network{{Media: media("192.0.2.1")}}, "no name"},
		{"network twice", []relay.Network{{Name: "a"}, {Name: "a"}}, `"a" stands twice`},
		{"address twice", []relay.Network{{Name: "a", Media: media("192.0.2.1")}, {Name: "b", Media: media("192.0.2.1")}},
			`network "b": media address 192.0.2.1 belongs to network "a"`},
		{"address twice in disguise", []relay.Network{{Name: "a", Media: media("192.0.2.1", "::ffff:192.0.2.1")}}, "belongs to"},
		{"no address", []relay.Network{{Name: "a", Media: media("")}}, "not a unicast address"},
		{"any address", []relay.Network{{Name: "a", Media: media("0.0.0.0")}}, "not a unicast address"},
		{"multicast", []relay.Network{{Name: "a", Media: media("224.0.0.1")}}, "not a unicast address"},
		{"no ports", []relay.Network{{Name: "a", Media: []relay.MediaAddress{{Addr: netip.MustParseAddr("192.0.2.1")}}}}, "192.0.2.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := relay.New(relay.Config{Networks: tt.networks, Log: feed.New(1, 0), Plane: relaytest.New()})
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := relay.New(relay.Config{Plane: relaytest.New()}); err == nil {
		t.Error("a relay without a log is accepted")
	}
	if _, err := relay.New(relay.Config{Log: feed.New(1, 0)}); err == nil {
		t.Error("a relay without a data plane is accepted")
	}
}

// Released ports rest for the quarantine, those that carried nothing do not.
func TestQuarantine(t *testing.T) {
	tests := []struct {
		name           string
		config, effect time.Duration
	}{
		{"default", 0, relay.DefaultQuarantine},
		{"configured", 5 * time.Second, 5 * time.Second},
		{"none", -1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, err := relay.New(relay.Config{
					Networks: relaytest.Networks(), Log: feed.New(1, 0), Plane: relaytest.New(), Quarantine: tt.config,
				})
				if err != nil {
					t.Fatal(err)
				}
				s := established(t, r)
				tx := r.Begin()
				tx.End(s.ID)
				if err := tx.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
				if tt.effect > 0 {
					time.Sleep(tt.effect - time.Nanosecond)
					wantPorts(t, r, 0, 2)
					time.Sleep(time.Nanosecond)
				}
				wantPorts(t, r, 0, 0)
			})
		})
	}
}

func TestAllocate(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	r, _, _ := relaytest.NewRelay(t,
		relay.Network{Name: "a", Media: []relay.MediaAddress{
			{Addr: addrs[0], Ranges: []ports.Range{{First: 20000, Last: 20007}}},
			{Addr: addrs[1], Ranges: []ports.Range{{First: 30000, Last: 30001}}},
		}},
		relay.Network{Name: "empty"})
	tx := r.Begin()
	defer tx.Rollback()
	perAddr := map[netip.Addr]int{}
	for range 5 {
		p, err := tx.Allocate("a")
		if err != nil {
			t.Fatal(err)
		}
		if p.RTP%2 != 0 || p.RTCP != p.RTP+1 || !p.IsValid() {
			t.Errorf("allocated %v, want an even port and the next", p)
		}
		perAddr[p.Addr]++
	}
	if perAddr[addrs[0]] != 4 || perAddr[addrs[1]] != 1 {
		t.Errorf("pairs per address: %v, want 4 and 1", perAddr)
	}
	if _, err := tx.Allocate("a"); !isError(err, ports.ErrExhausted, `network "a"`) {
		t.Errorf("full pool: %v", err)
	}
	for _, name := range []string{"empty", "nowhere"} {
		if _, err := tx.Allocate(name); !isError(err, relay.ErrNoNetwork, name) {
			t.Errorf("network %s: %v", name, err)
		}
	}
	tx.Rollback()
	wantPorts(t, r, 0, 0)
	if _, err := tx.Allocate("a"); !isError(err, relay.ErrFinished, "") {
		t.Errorf("after rollback: %v", err)
	}
}

func TestSessionsAreOrdered(t *testing.T) {
	r, _, _ := relaytest.NewRelay(t)
	for range 20 {
		established(t, r)
	}
	all := r.Sessions()
	if len(all) != 20 || r.Len() != 20 || !slices.IsSortedFunc(all, func(a, b *relay.Session) int {
		return strings.Compare(string(a.ID), string(b.ID))
	}) {
		t.Errorf("%d sessions, Len %d, want 20 by id", len(all), r.Len())
	}
}
