package xdp

import (
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandem-relay/tandem/relay/slowpath"
)

// TestSettlePanics: a panic in the timer that hands a stream over ends neither the process nor the plane.
func TestSettlePanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := netip.MustParseAddrPort("192.0.2.1:20000")
		p := &Plane{ // without maps, so that looking at the flow panics
			logger: slog.New(slog.DiscardHandler), slow: new(slowpath.Path),
			endpoints: map[netip.AddrPort]*endpoint{local: {settling: true}},
		}
		p.settle(local)
		time.Sleep(settlePause)
		synctest.Wait()
		if n := p.Panics(); n != 1 {
			t.Errorf("%d panics, want 1", n)
		}
		if !p.mu.TryLock() {
			t.Fatal("the plane is locked")
		}
		p.mu.Unlock()
	})
}
