package xdp

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// TestHopsTrust: an interface that came up, or came back, is used once it is trusted, not before, with the neighbours that
// the kernel knows by then.
func TestHopsTrust(t *testing.T) {
	w := newWorld()
	w.behind(1, 1)
	known := neighbour{netlink.NUD_REACHABLE, mac{2, 0, 0, 0, 1, 1}}
	w.table[at(1)] = known
	h := w.start(t, 16)
	one := h.acquire(key(1), 0)
	valid := func() bool { return w.entries[h.index(one)].Valid }
	if !valid() {
		t.Fatal("an interface that was up at the start is not trusted")
	}
	set := func(d device) {
		w.devices["eth0"] = d
		if err := h.readDevices(); err != nil {
			t.Fatal(err)
		}
		h.reroute()
	}
	d := w.devices["eth0"]
	d.up = false
	set(d)
	if h.trust(d.index) || h.trusts(d.index) || valid() {
		t.Error("an interface that is down is trusted")
	}
	d.up = true
	set(d)
	if h.trusts(d.index) || valid() {
		t.Error("an interface that came up is trusted without proof")
	}
	if !h.trust(d.index) || !valid() {
		t.Error("a proved interface is not used")
	}
	h.distrust(d.index)
	if valid() {
		t.Error("a distrusted interface is used")
	}
	// Another one of that name. Its neighbour was reported before the interface was read.
	d.index = 7
	w.routes[host(1)] = way{ifindex: 7, via: gateway(1)}
	w.table[neighbourKey{7, gateway(1)}] = known
	set(d)
	if h.trust(1) || valid() {
		t.Error("another interface is trusted without proof")
	}
	if !h.trust(7) || !valid() {
		t.Error("the neighbour of another interface is not known")
	}
	if entry := w.entries[h.index(one)]; entry.Ifindex != 7 {
		t.Errorf("entry %+v", entry)
	}
}
