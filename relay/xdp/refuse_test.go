package xdp_test

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"testing"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/relaytest"
	"github.com/tandem-relay/tandem/relay/xdp"
)

// TestAdoptRefuses: a session that cannot be is told and leaves nothing behind; the others go on.
func TestAdoptRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	kept, moved := r.newCall("kept", 0), r.newCall("moved", 1)
	for _, c := range []*call{kept, moved} {
		c.apply()
		c.exchange(0)
	}
	must(t, r.plane.Close())
	r.start()
	local := moved.in.Local
	moved.in.Local = netip.AddrPortFrom(local.Addr(), relaytest.LastPort+1)
	result, err := r.plane.Adopt(context.Background(), []relay.Compiled{moved.compiled(), kept.compiled()})
	must(t, err)
	if want := (relay.Adoption{Kept: 2, Removed: 2, Refused: []relay.SessionID{"moved"}}); !reflect.DeepEqual(result, want) {
		t.Errorf("adoption %+v, want %+v", result, want)
	}
	if r.plane.Flows("moved") != nil || r.plane.Sessions() != 1 {
		t.Errorf("%d sessions, flows of the refused one: %+v", r.plane.Sessions(), r.plane.Flows("moved"))
	}
	kept.byXDP(1)
	_, err = moved.caller.WriteToUDPAddrPort(relaytest.RTP(1, 160), moved.atOut)
	must(t, err)
	eventually(t, "its packets find no session", func() bool { return r.reason("no_session") == 1 })
	if !errors.Is(xdp.ErrFull, relay.ErrFull) {
		t.Error("a full table is not told as a full relay")
	}
}
