package xdp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/bpf"
)

// rerouteDelay gathers the changes of routes that come together.
const rerouteDelay = 20 * time.Millisecond

// resync reads interfaces and neighbours afresh. But for the start it belongs to the goroutine that reads the kernel's
// reports, so that what was read is never older than what was reported.
func (t *hops) resync() error { return t.read(true) }

// readDevices reads interfaces afresh, and the neighbours of new ones. One that is gone takes its targets out of the fast
// path, and one that is gone or down loses trust. Like resync, it belongs to the goroutine that reads the kernel's reports.
func (t *hops) readDevices() error { return t.read(false) }

func (t *hops) read(everything bool) error {
	devices := make(map[int]device)
	networks := make(map[string]map[int]bool)
	for network, names := range t.names {
		networks[network] = make(map[int]bool)
		for _, name := range names {
			d, err := t.kernel.device(name)
			if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
				continue
			}
			if err != nil {
				return fmt.Errorf("read interface %s: %w", name, err)
			}
			networks[network][d.index] = true
			devices[d.index] = d
		}
	}
	t.mu.Lock()
	before := t.devices
	t.mu.Unlock()
	table := make(map[neighbourKey]neighbour)
	for index, d := range devices {
		if _, known := before[index]; known && !everything {
			continue
		}
		found, err := t.kernel.neighbours(index)
		switch {
		case errors.Is(err, unix.ENODEV): // gone meanwhile, which will be reported
		case err != nil:
			return fmt.Errorf("interface %s: %w", d.name, err)
		}
		maps.Copy(table, found)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.table, func(k neighbourKey, _ neighbour) bool { return everything || devices[k.ifindex].index == 0 })
	maps.Copy(t.table, table)
	maps.DeleteFunc(t.trusted, func(index int, _ bool) bool { return !devices[index].up })
	t.devices, t.networks = devices, networks
	t.refreshAll()
	return nil
}

// device returns an interface as it was read last.
func (t *hops) device(name string) (device, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.devices {
		if d.name == name {
			return d, true
		}
	}
	return device{}, false
}

// trusts reports whether the program sends by an interface.
func (t *hops) trusts(index int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.trusted[index]
}

// trust lets the program send by an interface that is up, and asks for its neighbours. It reports whether it is still
// there and up.
func (t *hops) trust(index int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.devices[index].up {
		return false
	}
	t.trusted[index] = true
	for _, h := range t.byKey {
		if h.key.ifindex != index {
			continue
		}
		t.refresh(h)
		if h.targets > 0 {
			// Whoever did not answer before may do so now.
			h.silent, h.probed = 0, time.Time{}
			t.ask(h)
		}
	}
	return true
}

// distrust leaves what goes out by an interface to the slow path.
func (t *hops) distrust(index int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.trusted, index)
	t.refreshAll()
}

func (t *hops) refreshAll() {
	for _, h := range t.byKey {
		t.refresh(h)
	}
}

// neighbourChanged takes one report of the kernel.
func (t *hops) neighbourChanged(c change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ours := t.devices[c.key.ifindex]; !ours {
		return
	}
	if c.removed {
		delete(t.table, c.key)
	} else {
		t.table[c.key] = c.neighbour
	}
	for _, h := range t.byNeighbour[c.key] {
		t.refresh(h)
		if c.removed && h.targets > 0 {
			t.ask(h)
		}
	}
}

// reroute looks every target's route up again and reports whether any target now goes another way.
func (t *hops) reroute() bool {
	t.mu.Lock()
	t.epoch++
	t.dropIdle(0)
	keys := make([]targetKey, 0, len(t.targets))
	for key := range t.targets {
		keys = append(keys, key)
	}
	t.mu.Unlock()
	moved := false
	for _, key := range keys {
		w, err := t.kernel.route(key.from, key.to)
		t.mu.Lock()
		if d := t.targets[key]; d != nil && t.point(d, w, err, 0) {
			moved = true
			if d.hop != nil {
				t.ask(d.hop)
			}
		}
		t.mu.Unlock()
	}
	return moved
}

// tend does what is due from time to time: it confirms the neighbours in use, and forgets what is not used.
func (t *hops) tend() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for _, h := range t.byKey {
		due := keepAlive
		if h.silent > 1 {
			due = min(keepAlive<<min(h.silent-1, 8), maxKeepAlive)
		}
		if h.targets == 0 || now.Sub(h.probed) < due {
			continue
		}
		// Also a reachable one, so that the kernel sees it used and does not collect it.
		if t.table[h.key.neighbour()].state&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) == 0 {
			t.probe(h, now)
		}
	}
	t.dropIdle(idleTime)
}

// dropIdle forgets unused targets, of any age if there are very many, and entries that had no target for a while.
func (t *hops) dropIdle(age time.Duration) {
	now := t.now()
	if len(t.targets) > maxIdleTargets {
		age = 0
	}
	for key, d := range t.targets {
		if d.refs > 0 || now.Sub(d.idle) < age {
			continue
		}
		delete(t.targets, key)
		if d.hop != nil {
			t.leave(d.hop)
		}
	}
	for key, h := range t.byKey {
		if h.targets > 0 || now.Sub(h.idle) < idleTime {
			continue
		}
		delete(t.byKey, key)
		rest := t.byNeighbour[key.neighbour()]
		for i := range rest {
			if rest[i] == h {
				rest = append(rest[:i:i], rest[i+1:]...)
				break
			}
		}
		if t.byNeighbour[key.neighbour()] = rest; len(rest) == 0 {
			delete(t.byNeighbour, key.neighbour())
		}
		t.install(h, bpf.NextHop{})
		t.free = append(t.free, h.index)
	}
}

// follow reads the kernel's reports until ctx ends. It calls dirty after each that may change a route, and before that
// changed after each that may concern an interface or an address of this host.
func (t *hops) follow(ctx context.Context, k *kernel, dirty, changed func()) error {
	stop := context.AfterFunc(ctx, k.events.Close)
	defer stop()
	for {
		c, err := k.next()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			t.logger.Info("too many changes in routing at once, reading everything again")
			if err := t.resync(); err != nil {
				return err
			}
			changed()
			dirty()
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		case err != nil:
			return fmt.Errorf("follow netlink: %w", err)
		case c.links:
			if err := t.readDevices(); err != nil {
				t.logger.Error("read interfaces", "err", err)
			}
			changed()
			dirty()
		case c.routes:
			dirty()
		default:
			t.neighbourChanged(c)
		}
	}
}

// run reroutes after changes and tends the table until ctx ends. Moved is called when records must be written anew.
func (t *hops) run(ctx context.Context, dirty <-chan struct{}, moved func()) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			t.tend()
		case <-dirty:
			if !pause(ctx, rerouteDelay) {
				return
			}
			select {
			case <-dirty:
			default:
			}
			started := time.Now()
			if t.reroute() {
				moved()
			}
			// However often routes change, most of the time is left for other things.
			if !pause(ctx, 2*time.Since(started)) {
				return
			}
		}
	}
}

// pause waits and reports whether ctx still holds.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
