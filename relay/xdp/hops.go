package xdp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tandem-relay/tandem/bpf"
)

// How next hops age.
const (
	idleTime       = time.Minute     // an unused one is kept this long, far beyond any run of the program
	keepAlive      = 5 * time.Second // the program's packets confirm no neighbour, so the daemon asks
	maxKeepAlive   = time.Minute     // of a neighbour that does not answer
	probeAgain     = time.Second     // the kernel's own pace
	maxIdleTargets = 16384
)

// errForeign says that the route leaves by an interface that does not belong to the network.
var errForeign = errors.New("route leaves the network's interfaces")

// errHopsFull says that the table has no entry left.
var errHopsFull = errors.New("next hop table is full")

// router is what the table asks of the kernel.
type router interface {
	device(name string) (device, error)
	route(from, to netip.Addr) (way, error)
	neighbours(ifindex int) (map[neighbourKey]neighbour, error)
	probe(neighbourKey) error
}

// nextHopMap is where entries are written.
type nextHopMap interface {
	WriteNextHop(uint32, bpf.NextHop)
	ReadNextHop(uint32) bpf.NextHop
}

// hopKey is what one entry of the next-hop table stands for.
type hopKey struct {
	from, via    netip.Addr
	ifindex, mtu int
}

func (k hopKey) neighbour() neighbourKey { return neighbourKey{k.ifindex, k.via} }

// hop is one entry of the next-hop table.
type hop struct {
	key     hopKey
	index   uint32
	targets int       // targets that go this way
	idle    time.Time // since when there are none

	mac     mac
	known   bool // a hardware address is or was known
	failed  bool // the neighbour does not answer
	silent  int  // probes in a row without success
	probed  time.Time
	asked   time.Time     // first probe; nobody waits for longer than a moment after that, ever
	settled chan struct{} // closed once known or failed
	written bpf.NextHop
}

func (h *hop) valid() bool { return h.known && !h.failed }

func (h *hop) settle() {
	select {
	case <-h.settled:
	default:
		close(h.settled)
	}
}

// targetKey names a destination of a network as seen from a media address.
type targetKey struct {
	network  string
	from, to netip.Addr
}

// target is a destination and the way to it. Its fields belong to the table.
type target struct {
	key   targetKey
	refs  int
	idle  time.Time
	hop   *hop // nil: not reached by the fast path
	local bool // it is this host
	err   error
}

// hops is the next-hop table: targets by destination, which share entries by gateway. All methods may be called
// concurrently.
type hops struct {
	kernel router
	maps   nextHopMap
	logger *slog.Logger
	now    func() time.Time
	names  map[string][]string // interfaces by network

	mu          sync.Mutex
	epoch       uint64 // rises with each reading of the routes
	devices     map[int]device
	trusted     map[int]bool // interfaces by which the program may send
	networks    map[string]map[int]bool
	table       map[neighbourKey]neighbour
	targets     map[targetKey]*target
	byKey       map[hopKey]*hop
	byNeighbour map[neighbourKey][]*hop
	free        []uint32
	reserved    map[uint32]bool
}

// newHops reads interfaces and neighbours. Entry 0 stands for none. Interfaces that are up are trusted from the start; for
// those that come up later, trust must be called.
func newHops(kernel router, names map[string][]string, capacity uint32, maps nextHopMap, logger *slog.Logger) (*hops, error) {
	t := &hops{
		kernel: kernel, maps: maps, logger: logger, now: time.Now, names: names,
		targets: make(map[targetKey]*target), byKey: make(map[hopKey]*hop), byNeighbour: make(map[neighbourKey][]*hop),
		trusted: make(map[int]bool), table: make(map[neighbourKey]neighbour),
	}
	for i := capacity - 1; i > 0; i-- {
		t.free = append(t.free, i)
	}
	for network, interfaces := range names {
		for _, name := range interfaces {
			if _, err := kernel.device(name); err != nil {
				return nil, fmt.Errorf("network %s: interface %s: %w", network, name, err)
			}
		}
	}
	if err := t.resync(); err != nil {
		return nil, err
	}
	for index, d := range t.devices {
		if d.up {
			t.trusted[index] = true
		}
	}
	return t, nil
}

// reserve takes the entries that an earlier process's records use off the free list, until they are taken over or
// unreserve is called.
func (t *hops) reserve(used map[uint32]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reserved = used
	t.free = slices.DeleteFunc(t.free, func(i uint32) bool { return used[i] })
}

// unreserve frees the entries that no hop took over.
func (t *hops) unreserve() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.reserved {
		t.maps.WriteNextHop(i, bpf.NextHop{})
		t.free = append(t.free, i)
	}
	t.reserved = nil
}

// acquire returns the target with one more reference and makes the kernel resolve its next hop. An entry that prefer
// names and that is reserved is taken over as it stands.
func (t *hops) acquire(key targetKey, prefer uint32) *target {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.targets[key]
	for d == nil {
		epoch := t.epoch
		t.mu.Unlock()
		w, err := t.kernel.route(key.from, key.to)
		t.mu.Lock()
		if d = t.targets[key]; d == nil && epoch == t.epoch {
			d = &target{key: key}
			t.targets[key] = d
			t.point(d, w, err, prefer)
		}
	}
	d.refs++
	if h := d.hop; h != nil {
		t.ask(h)
	}
	return d
}

// release gives a reference back.
func (t *hops) release(d *target) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.refs--; d.refs < 0 {
		panic("xdp: target released too often")
	}
	if d.refs == 0 {
		d.idle = t.now()
	}
}

// index returns the entry that records to the target use, 0 if none does.
func (t *hops) index(d *target) uint32 {
	if d == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.hop == nil {
		return 0
	}
	return d.hop.index
}

// foreign reports whether the kernel would send to the target by an interface of another network.
func (t *hops) foreign(d *target) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Is(d.err, errForeign)
}

// wait waits until the next hops of the targets are settled, but for none of them longer than the budget since it was
// first asked for.
func (t *hops) wait(ctx context.Context, targets []*target, budget time.Duration) {
	for _, d := range targets {
		t.mu.Lock()
		h := d.hop
		if h == nil {
			t.mu.Unlock()
			continue
		}
		settled, left := h.settled, budget-t.now().Sub(h.asked)
		t.mu.Unlock()
		select {
		case <-settled:
			continue
		default:
		}
		if left <= 0 {
			continue
		}
		timer := time.NewTimer(left)
		select {
		case <-settled:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// point makes a target go a way and reports whether that changed anything.
func (t *hops) point(d *target, w way, err error, prefer uint32) bool {
	old := d.hop
	d.hop, d.local, d.err = nil, false, nil
	switch {
	case err != nil:
		d.err = err
	case w.local:
		d.local = true
	case !t.networks[d.key.network][w.ifindex]:
		d.err = fmt.Errorf("network %s, from %s to %s: %w", d.key.network, d.key.from, d.key.to, errForeign)
	default:
		d.hop, d.err = t.hop(hopKey{d.key.from, w.via, w.ifindex, w.mtu}, prefer)
	}
	if d.hop == old {
		return false
	}
	if d.hop != nil {
		d.hop.targets++
	}
	if old != nil {
		t.leave(old)
	}
	return true
}

func (t *hops) leave(h *hop) {
	if h.targets--; h.targets == 0 {
		h.idle = t.now()
	}
}

// hop finds or makes the entry of a key.
func (t *hops) hop(key hopKey, prefer uint32) (*hop, error) {
	if h := t.byKey[key]; h != nil {
		return h, nil
	}
	h := &hop{key: key, settled: make(chan struct{}), idle: t.now()}
	switch {
	case t.takeOver(h, prefer):
	case len(t.free) == 0:
		return nil, errHopsFull
	default:
		h.index = t.free[len(t.free)-1]
		t.free = t.free[:len(t.free)-1]
	}
	t.byKey[key] = h
	t.byNeighbour[key.neighbour()] = append(t.byNeighbour[key.neighbour()], h)
	t.refresh(h)
	return h, nil
}

// takeOver makes h stand for an entry that an earlier process left and that leads the same way as far as can be told. What it
// says counts until the kernel knows better.
func (t *hops) takeOver(h *hop, index uint32) bool {
	if !t.reserved[index] {
		return false
	}
	entry := t.maps.ReadNextHop(index)
	if entry.From != h.key.from || int(entry.Ifindex) != h.key.ifindex {
		return false
	}
	delete(t.reserved, index)
	h.index, h.written, h.mac, h.known = index, entry, entry.DMAC, entry.Valid
	return true
}

// ask makes the kernel resolve or confirm a neighbour, at the kernel's own pace at most.
func (t *hops) ask(h *hop) {
	n := t.table[h.key.neighbour()]
	if n.state&(netlink.NUD_PERMANENT|netlink.NUD_NOARP|netlink.NUD_REACHABLE) != 0 {
		return
	}
	now := t.now()
	if h.asked.IsZero() {
		h.asked = now
	}
	if now.Sub(h.probed) < probeAgain {
		return
	}
	t.probe(h, now)
}

func (t *hops) probe(h *hop, now time.Time) {
	h.probed = now
	if h.failed || !h.known {
		h.silent++
	}
	if err := t.kernel.probe(h.key.neighbour()); err != nil {
		t.logger.Debug("probe neighbour", "address", h.key.via, "interface", t.devices[h.key.ifindex].name, "err", err)
	}
}

// refresh brings an entry in line with the neighbour table. A neighbour that merely vanished from it is still believed
// while it is asked again; one that failed is not, so that the kernel's own resolution takes over.
func (t *hops) refresh(h *hop) {
	device := t.devices[h.key.ifindex]
	n := t.table[h.key.neighbour()]
	switch {
	case n.state&usable != 0:
		h.mac, h.known, h.failed, h.silent = n.mac, true, false, 0
		h.settle()
	case n.state&netlink.NUD_FAILED != 0:
		h.failed = true
		h.settle()
	}
	mtu := device.mtu
	if h.key.mtu != 0 {
		mtu = min(mtu, h.key.mtu)
	}
	t.install(h, bpf.NextHop{
		Ifindex: uint32(h.key.ifindex), DMAC: h.mac, SMAC: device.mac, MTU: uint32(mtu),
		From: h.key.from, Valid: h.valid() && device.up && t.trusted[h.key.ifindex],
	})
}

func (t *hops) install(h *hop, entry bpf.NextHop) {
	if entry == h.written {
		return
	}
	if h.written.Valid != entry.Valid {
		t.logger.Debug("next hop", "address", h.key.via, "interface", t.devices[h.key.ifindex].name, "valid", entry.Valid)
	}
	h.written = entry
	t.maps.WriteNextHop(h.index, entry)
}
