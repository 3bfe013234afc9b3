package userspace_test

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/relaytest"
)

// TestFullQueue: a packet that the kernel does not take at once is dropped. Those to a party that does not answer ARP fill
// the socket's buffer, and must not hold up what comes after them.
func TestFullQueue(t *testing.T) {
	w := newWires(t, 24, map[string][]netip.Addr{
		relaytest.Outside: addrs("10.81.1.1", "10.81.1.11"),
		relaytest.Inside:  addrs("10.81.2.1", "10.81.2.11"),
	})
	local := netip.AddrPortFrom(w.Media(relaytest.Outside), 20000)
	r := relay.Record{
		Local: local, Network: relaytest.Outside, Action: relay.Forward, Accept: relay.AcceptSet{Any: true},
		Outputs: []relay.Output{{
			From:    netip.AddrPortFrom(w.Media(relaytest.Inside), 20000),
			To:      netip.MustParseAddrPort("10.81.2.99:4000"), // nobody
			Network: relaytest.Inside,
		}},
	}
	if err := w.Do(func() error {
		// Else the queue for the party drops its oldest packets before the socket's buffer is full.
		err := os.WriteFile("/proc/sys/net/ipv4/neigh/inside/unres_qlen_bytes", []byte("100000000"), 0)
		return errors.Join(err, w.plane.Apply(t.Context(), "call", 1, []relay.Record{r}))
	}); err != nil {
		t.Fatal(err)
	}
	from, err := w.Listen(relaytest.Outside, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	const packets = 300
	payload := make([]byte, 1200)
	// The kernel takes 3 seconds to find that the party is not there.
	deadline := time.Now().Add(2 * time.Second)
	pace := time.NewTicker(200 * time.Microsecond) // the relay's receive buffer must not be what drops
	defer pace.Stop()
	for range packets {
		<-pace.C
		if _, err := from.WriteToUDPAddrPort(payload, local); err != nil {
			t.Fatal(err)
		}
	}
	var handled, failed uint64
	for handled != packets && time.Now().Before(deadline) {
		totals, err := w.plane.Totals()
		if err != nil {
			t.Fatal(err)
		}
		handled, failed = 0, 0
		for _, reason := range totals.Reasons {
			handled += reason.Packets
			if reason.Name == "send_failed" {
				failed = reason.Packets
			}
		}
		time.Sleep(time.Millisecond)
	}
	if handled != packets || failed == 0 {
		t.Errorf("%d of %d packets handled, %d of them as send_failed", handled, packets, failed)
	}
}
