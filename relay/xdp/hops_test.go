package xdp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tandem-relay/tandem/bpf"
)

// world is a kernel and a next-hop map.
type world struct {
	devices map[string]device
	routes  map[netip.Addr]way // by destination
	table   map[neighbourKey]neighbour
	probed  map[neighbourKey]int
	entries map[uint32]bpf.NextHop
}

func newWorld() *world {
	return &world{
		devices: map[string]device{
			"eth0": {index: 1, name: "eth0", mac: mac{2, 0, 0, 0, 0, 1}, mtu: 1500, up: true},
			"eth1": {index: 2, name: "eth1", mac: mac{2, 0, 0, 0, 0, 2}, mtu: 1400, up: true},
		},
		routes: make(map[netip.Addr]way), table: make(map[neighbourKey]neighbour),
		probed: make(map[neighbourKey]int), entries: make(map[uint32]bpf.NextHop),
	}
}

func (w *world) device(name string) (device, error) {
	d, ok := w.devices[name]
	if !ok {
		return d, netlink.LinkNotFoundError{}
	}
	return d, nil
}

func (w *world) route(_, to netip.Addr) (way, error) {
	r, ok := w.routes[to]
	if !ok {
		return way{}, errNoRoute
	}
	return r, nil
}

func (w *world) neighbours(ifindex int) (map[neighbourKey]neighbour, error) {
	found := maps.Clone(w.table)
	maps.DeleteFunc(found, func(k neighbourKey, _ neighbour) bool { return k.ifindex != ifindex })
	return found, nil
}

func (w *world) probe(k neighbourKey) error           { w.probed[k]++; return nil }
func (w *world) WriteNextHop(i uint32, n bpf.NextHop) { w.entries[i] = n }
func (w *world) ReadNextHop(i uint32) bpf.NextHop     { return w.entries[i] }
func (w *world) start(t *testing.T, capacity uint32) *hops {
	t.Helper()
	h, err := newHops(w, map[string][]string{"in": {"eth0"}, "out": {"eth1"}}, capacity, w, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

var media = netip.MustParseAddr("192.0.2.1")

// host n is behind gateway g.
func host(n int) netip.Addr    { return netip.MustParseAddr(fmt.Sprintf("203.0.113.%d", n)) }
func gateway(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", 100+n)) }
func key(n int) targetKey      { return targetKey{"in", media, host(n)} }
func at(g int) neighbourKey    { return neighbourKey{1, gateway(g)} }

func (w *world) behind(n, g int) { w.routes[host(n)] = way{ifindex: 1, via: gateway(g)} }

func report(k neighbourKey, state int, last byte) change {
	return change{key: k, neighbour: neighbour{state: state, mac: mac{2, 0, 0, 0, 1, last}}}
}

// TestHopsShared: destinations share entries by gateway; a neighbour's change is one write for all of them.
func TestHopsShared(t *testing.T) {
	w := newWorld()
	w.behind(1, 1)
	w.behind(2, 1)
	w.behind(3, 2)
	w.table[at(1)] = neighbour{netlink.NUD_REACHABLE, mac{2, 0, 0, 0, 1, 1}}
	h := w.start(t, 16)
	one, two, three := h.acquire(key(1), 0), h.acquire(key(2), 0), h.acquire(key(3), 0)
	if h.index(one) != h.index(two) || h.index(one) == h.index(three) || h.index(three) == 0 {
		t.Fatalf("entries %d, %d, %d", h.index(one), h.index(two), h.index(three))
	}
	want := bpf.NextHop{Ifindex: 1, DMAC: mac{2, 0, 0, 0, 1, 1}, SMAC: mac{2, 0, 0, 0, 0, 1}, MTU: 1500, From: media, Valid: true}
	if got := w.entries[h.index(one)]; got != want {
		t.Errorf("entry %+v, want %+v", got, want)
	}
	if w.entries[h.index(three)].Valid {
		t.Error("an unresolved neighbour is valid")
	}
	for _, step := range []struct {
		name  string
		c     change
		valid bool
		last  byte
	}{
		{"another hardware address", report(at(1), netlink.NUD_REACHABLE, 7), true, 7},
		{"stale is good enough", report(at(1), netlink.NUD_STALE, 7), true, 7},
		{"asked again, not yet answered", report(at(1), netlink.NUD_PROBE, 7), true, 7},
		{"vanished: believed while it is asked", change{key: at(1), removed: true}, true, 7},
		{"incomplete: still asked", report(at(1), netlink.NUD_INCOMPLETE, 0), true, 7},
		{"failed", report(at(1), netlink.NUD_FAILED, 0), false, 7},
		{"back", report(at(1), netlink.NUD_REACHABLE, 8), true, 8},
	} {
		h.neighbourChanged(step.c)
		want.Valid, want.DMAC = step.valid, mac{2, 0, 0, 0, 1, step.last}
		if got := w.entries[h.index(two)]; got != want {
			t.Errorf("%s: entry %+v, want %+v", step.name, got, want)
		}
	}
}

// TestHopsKinds: what is not reached by an interface of the network has no entry.
func TestHopsKinds(t *testing.T) {
	for _, tt := range []struct {
		name    string
		way     *way
		indexed bool
		local   bool
		err     error
		mtu     uint32
	}{
		{"on the link", &way{ifindex: 1, via: host(1)}, true, false, nil, 1500},
		{"small route", &way{ifindex: 1, via: gateway(1), mtu: 1280}, true, false, nil, 1280},
		{"large route", &way{ifindex: 1, via: gateway(1), mtu: 9000}, true, false, nil, 1500},
		{"another network's interface", &way{ifindex: 2, via: host(1)}, false, false, errForeign, 0},
		{"unknown interface", &way{ifindex: 9, via: host(1)}, false, false, errForeign, 0},
		{"this host", &way{ifindex: 3, via: host(1), local: true}, false, true, nil, 0},
		{"no route", nil, false, false, errNoRoute, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			if tt.way != nil {
				w.routes[host(1)] = *tt.way
			}
			h := w.start(t, 16)
			d := h.acquire(key(1), 0)
			if indexed := h.index(d) != 0; indexed != tt.indexed || d.local != tt.local || !errors.Is(d.err, tt.err) {
				t.Errorf("index %d, local %v, error %v", h.index(d), d.local, d.err)
			}
			if got := w.entries[h.index(d)].MTU; tt.indexed && got != tt.mtu {
				t.Errorf("MTU %d, want %d", got, tt.mtu)
			}
			if h.foreign(d) != errors.Is(tt.err, errForeign) {
				t.Errorf("foreign %v", h.foreign(d))
			}
		})
	}
}

// TestHopsReroute: a change of routes moves exactly the targets that it concerns.
func TestHopsReroute(t *testing.T) {
	w := newWorld()
	w.behind(1, 1)
	w.behind(2, 1)
	h := w.start(t, 16)
	one, two := h.acquire(key(1), 0), h.acquire(key(2), 0)
	before := h.index(one)
	if h.reroute() {
		t.Error("nothing changed, but something moved")
	}
	w.behind(1, 2)
	if !h.reroute() || h.index(one) == before || h.index(two) != before {
		t.Errorf("entries %d, %d, before %d", h.index(one), h.index(two), before)
	}
	if w.probed[at(2)] != 1 {
		t.Errorf("the new gateway was asked %d times", w.probed[at(2)])
	}
	delete(w.routes, host(2))
	if !h.reroute() || h.index(two) != 0 {
		t.Errorf("entry %d without a route", h.index(two))
	}
	d := w.devices["eth0"]
	d.up = false
	w.devices["eth0"] = d
	w.table[at(2)] = neighbour{netlink.NUD_REACHABLE, mac{2}}
	if err := h.resync(); err != nil || w.entries[h.index(one)].Valid {
		t.Errorf("an interface that is down is used: %v", err)
	}
	delete(w.devices, "eth0")
	if err := h.readDevices(); err != nil || !h.reroute() || !h.foreign(one) {
		t.Errorf("an interface that is gone is used: %v", err)
	}
}

// TestHopsWait: nobody waits for a next hop longer than the budget since it was first asked for, and for one that failed
// not at all.
func TestHopsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.behind(1, 1)
		w.behind(2, 2)
		h := w.start(t, 16)
		const budget = 20 * time.Millisecond
		wait := func(want time.Duration, targets ...*target) {
			t.Helper()
			started := time.Now()
			h.wait(t.Context(), targets, budget)
			if took := time.Since(started); took != want {
				t.Errorf("waited %v, want %v", took, want)
			}
		}
		one, two := h.acquire(key(1), 0), h.acquire(key(2), 0)
		time.Sleep(5 * time.Millisecond)
		wait(budget-5*time.Millisecond, one, two) // in sum
		wait(0, one, two)
		h.release(one)
		one = h.acquire(key(1), 0)
		wait(0, one)

		w.behind(3, 3)
		three := h.acquire(key(3), 0)
		go func() {
			time.Sleep(3 * time.Millisecond)
			h.neighbourChanged(report(at(3), netlink.NUD_REACHABLE, 3))
		}()
		wait(3*time.Millisecond, three)

		w.behind(4, 4)
		four := h.acquire(key(4), 0)
		h.neighbourChanged(report(at(4), netlink.NUD_FAILED, 0))
		wait(0, four)

		w.behind(5, 5)
		five := h.acquire(key(5), 0)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		started := time.Now()
		h.wait(ctx, []*target{five}, budget)
		if took := time.Since(started); took != 0 {
			t.Errorf("waited %v after the end", took)
		}
	})
}

// TestHopsKeptAlive: neighbours in use are asked regularly, those that do not answer less and less often, permanent ones
// never.
func TestHopsKeptAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for n := range 4 {
			w.behind(n, n)
		}
		w.table[at(0)] = neighbour{netlink.NUD_STALE, mac{2}}
		w.table[at(1)] = neighbour{netlink.NUD_PERMANENT, mac{2}}
		w.table[at(2)] = neighbour{netlink.NUD_FAILED, mac{}}
		w.table[at(3)] = neighbour{netlink.NUD_REACHABLE, mac{2}}
		h := w.start(t, 16)
		var targets []*target
		for n := range 4 {
			targets = append(targets, h.acquire(key(n), 0))
		}
		h.release(targets[3])
		seconds := func(n int) {
			for range n {
				time.Sleep(time.Second)
				h.tend()
			}
		}
		seconds(60)
		for n, want := range [][2]int{{12, 13}, {0, 0}, {3, 5}, {11, 13}} {
			if got := w.probed[at(n)]; got < want[0] || got > want[1] {
				t.Errorf("neighbour %d was asked %d times in a minute, want %v", n, got, want)
			}
		}
		before := maps.Clone(w.probed)
		seconds(600)
		if got := w.probed[at(3)] - before[at(3)]; got > 1 {
			t.Errorf("an unused neighbour was asked %d times", got)
		}
		if got := w.probed[at(2)] - before[at(2)]; got < 9 || got > 11 {
			t.Errorf("a dead neighbour was asked %d times in ten minutes", got)
		}
		if len(h.targets) != 3 || len(h.byKey) != 3 || len(h.byNeighbour) != 3 || len(h.free) != 12 {
			t.Errorf("%d targets, %d entries, %d neighbours, %d free", len(h.targets), len(h.byKey), len(h.byNeighbour), len(h.free))
		}
	})
}

// TestHopsFull: a full table says so; what idles makes room in time.
func TestHopsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for n := range 4 {
			w.behind(n, n)
		}
		h := w.start(t, 4)
		var targets []*target
		for n := range 4 {
			targets = append(targets, h.acquire(key(n), 0))
		}
		if last := targets[3]; h.index(last) != 0 || !errors.Is(last.err, errHopsFull) {
			t.Errorf("entry %d, error %v", h.index(last), last.err)
		}
		h.release(targets[0])
		h.release(targets[3])
		for range 3 {
			time.Sleep(idleTime)
			h.tend()
		}
		if got := h.acquire(key(3), 0); h.index(got) == 0 {
			t.Errorf("no entry although one was given back: %v", got.err)
		}
		defer func() {
			if recover() == nil {
				t.Error("a reference was given back twice")
			}
		}()
		h.release(targets[1])
		h.release(targets[1])
	})
}

// TestHopsTakenOver: an earlier process's entries go on as they are if they lead the same way.
func TestHopsTakenOver(t *testing.T) {
	w := newWorld()
	for n := range 4 {
		w.behind(n, n)
	}
	old := bpf.NextHop{Ifindex: 1, DMAC: mac{9}, SMAC: mac{2, 0, 0, 0, 0, 1}, MTU: 1500, From: media, Valid: true}
	other := old
	other.Ifindex = 2
	w.entries[5], w.entries[6], w.entries[7] = old, other, old
	h := w.start(t, 16)
	h.reserve(map[uint32]bool{5: true, 6: true, 7: true})
	one := h.acquire(key(0), 5)
	if h.index(one) != 5 || w.entries[5] != old {
		t.Errorf("entry %d: %+v, want 5 as it was", h.index(one), w.entries[5])
	}
	two, three, four := h.acquire(key(1), 5), h.acquire(key(2), 6), h.acquire(key(3), 12)
	indices := []uint32{5, 6, 7, h.index(two), h.index(three), h.index(four)}
	if len(slices.Compact(slices.Sorted(slices.Values(indices)))) != 6 {
		t.Errorf("entries %v are not distinct", indices)
	}
	h.unreserve()
	if w.entries[7] != (bpf.NextHop{}) || len(h.free) != 11 {
		t.Errorf("entry 7 is %+v, %d free", w.entries[7], len(h.free))
	}
	h.neighbourChanged(report(at(0), netlink.NUD_REACHABLE, 1))
	if w.entries[5].DMAC != (mac{2, 0, 0, 0, 1, 1}) {
		t.Errorf("entry %+v does not follow its neighbour", w.entries[5])
	}
}
