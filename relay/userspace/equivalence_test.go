package userspace_test

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/relaytest"
	"github.com/tandem-relay/tandem/relay/userspace"
)

// loopback is a relaytest.World over addresses of the loopback interface.
type loopback struct {
	plane *userspace.Plane
	// sides holds the media address of each side, then the hosts' addresses.
	sides map[string][]netip.Addr
}

func (w *loopback) Plane() relay.Dataplane       { return w.plane }
func (w *loopback) Media(side string) netip.Addr { return w.sides[side][0] }
func (w *loopback) Do(f func() error) error      { return f() }

func (w *loopback) Listen(side string, host int) (*net.UDPConn, error) {
	return net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.sides[side][1+host], 0)))
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// TestEquivalence plays what the XDP plane must play as well.
func TestEquivalence(t *testing.T) {
	plane := userspace.New(userspace.Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	defer func() {
		if err := plane.Close(); err != nil {
			t.Error(err)
		}
	}()
	relaytest.Play(t, &loopback{plane: plane, sides: map[string][]netip.Addr{
		relaytest.Outside: addrs("127.21.1.1", "127.21.1.11", "127.21.1.12", "127.21.1.13"),
		relaytest.Inside:  addrs("127.21.2.1", "127.21.2.11", "127.21.2.12", "127.21.2.13"),
	}})
	if n := plane.LostEvents(); n != 0 {
		t.Errorf("%d events were lost", n)
	}
}
