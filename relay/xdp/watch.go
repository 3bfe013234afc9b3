package xdp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tandem-relay/tandem/bpf"
)

// How often an interface that XDP cannot use is tried again, and how often all are looked at although the kernel
// reported nothing.
const (
	mendPause    = 500 * time.Millisecond // doubles up to mendMaxPause
	mendMaxPause = 5 * time.Second
	mendPeriod   = 5 * time.Second
)

// condition says what use an interface is.
type condition uint8

const (
	inUse condition = iota
	gone
	down
	unplugged
	unproved // XDP does not send by it yet
	faulty   // nor can it
	kept     // taken over from an earlier process, and in use although the proof failed
)

// watched is a configured interface. But for name, network and mode, its fields belong to the watch.
type watched struct {
	name, network string
	mode          bpf.Mode
	device        device // as last looked at; index 0: gone
	fault         error  // of the last attempt to use it
	kept          bool
	pause         time.Duration
	due           time.Time // of the next attempt
	state         condition
}

// watch keeps an eye on the configured interfaces and media addresses.
type watch struct {
	kick chan struct{} // something is to be mended

	mu         sync.Mutex
	interfaces []*watched
	absent     []string // a warning for each media address that is missing
}

func (w *watch) names(name string) bool {
	return slices.ContainsFunc(w.interfaces, func(i *watched) bool { return i.name == name })
}

func (w *watch) warnings() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, i := range w.interfaces {
		if text := i.warning(); text != "" {
			list = append(list, text)
		}
	}
	return append(list, w.absent...)
}

// warning says what is wrong and what helps, or nothing.
func (i *watched) warning() string {
	where := fmt.Sprintf("network %s: interface %s", i.network, i.name)
	switch i.state {
	case gone:
		return where + " is gone: calls over it are without sound until an interface of that name, with its addresses, is back"
	case down:
		return fmt.Sprintf("%s is down: calls over it are without sound; bring it up: ip link set %s up", where, i.name)
	case unplugged:
		return where + " has no carrier: calls over it are without sound; connect the cable, or bring the other end up"
	case unproved:
		return where + " is not used by XDP yet: calls over it take the slow path for a moment"
	case faulty:
		return fmt.Sprintf("%s cannot be used by XDP, calls over it take the slow path: %v; it is tried again every %s", where, i.fault, mendMaxPause)
	case kept:
		return fmt.Sprintf("network %s: %v; calls over %s may be without sound", i.network, i.fault, i.name)
	default:
		return ""
	}
}

// look takes note of how interfaces and addresses are now, as soon as the kernel reports a change. It does not block.
func (p *Plane) look() {
	missing, err := p.missingMedia()
	if err != nil {
		p.logger.Error("read addresses", "err", err)
	}
	p.watch.mu.Lock()
	for _, i := range p.watch.interfaces {
		d, _ := p.hops.device(i.name)
		if !sameLink(i.device, d) {
			i.fault, i.pause, i.due = nil, 0, time.Time{} // whatever failed before may do now
		}
		i.device = d
		p.assess(i)
	}
	if err == nil {
		for _, text := range missing {
			if !slices.Contains(p.watch.absent, text) {
				p.logger.Warn(text)
			}
		}
		p.watch.absent = missing
	}
	p.watch.mu.Unlock()
	select {
	case p.watch.kick <- struct{}{}:
	default:
	}
}

func sameLink(a, b device) bool { return a.index == b.index && a.up == b.up && a.carrier == b.carrier }

// assess decides on the state of an interface, and logs it if it is another one than before. The watch is locked.
func (p *Plane) assess(i *watched) {
	before := i.state
	trusted := p.hops.trusts(i.device.index)
	switch {
	case i.device.index == 0:
		i.state = gone
	case !i.device.up:
		i.state = down
	case !i.device.carrier:
		i.state = unplugged
	case i.fault != nil && i.kept && trusted:
		i.state = kept
	case i.fault != nil:
		i.state = faulty
	case !trusted:
		i.state = unproved
	default:
		i.state = inUse
	}
	switch {
	case i.state == before, i.state == unproved:
	case i.state == inUse:
		p.logger.Info("interface is used by XDP again", "network", i.network, "interface", i.name)
	default:
		p.logger.Warn(i.warning())
	}
}

// missingMedia returns a warning for each media address that this host does not have.
func (p *Plane) missingMedia() ([]string, error) {
	byInterface, err := p.kernel.addresses()
	if err != nil {
		return nil, err
	}
	exists := make(map[netip.Addr]bool)
	for _, prefixes := range byInterface {
		for _, prefix := range prefixes {
			exists[prefix.Addr()] = true
		}
	}
	var list []string
	for addr := range p.ranges {
		if !exists[addr] {
			list = append(list, fmt.Sprintf("media address %s does not exist on this host any more: calls over it are without sound until it is back", addr))
		}
	}
	slices.Sort(list)
	return list, nil
}

// mend brings interfaces that XDP does not use back into use, until ctx ends.
func (p *Plane) mend(ctx context.Context) error {
	if err := p.netns.enter(); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.watch.kick:
		case <-timer.C:
		}
		next := mendPeriod
		for _, i := range p.watch.interfaces {
			if ctx.Err() != nil {
				return nil
			}
			next = min(next, p.mendOne(i, time.Now()))
		}
		timer.Reset(next)
	}
}

// mendOne does what is due for an interface and returns when to come again.
func (p *Plane) mendOne(i *watched, now time.Time) time.Duration {
	p.watch.mu.Lock()
	if i.state == inUse && p.maps.AttachedTo(i.name) != i.device.index {
		p.logger.Warn("XDP was detached by somebody else", "network", i.network, "interface", i.name)
		p.hops.distrust(i.device.index)
		p.assess(i)
	}
	d, state, due := i.device, i.state, i.due
	p.watch.mu.Unlock()
	switch {
	case state == gone:
		// Its link has no use any more, and a pin left would be one for nothing.
		if err := p.maps.Detach(i.name); err != nil {
			p.logger.Error("give up link of a missing interface", "interface", i.name, "err", err)
		}
		return mendPeriod
	case state != unproved && state != faulty && state != kept:
		return mendPeriod
	case now.Before(due):
		return due.Sub(now)
	}
	err := p.attachTo(d, i.mode)
	if current, readErr := p.kernel.device(i.name); readErr != nil || !sameLink(current, d) {
		return mendPause // what failed or worked is not there any more, which will be reported
	}
	p.watch.mu.Lock()
	defer p.watch.mu.Unlock()
	if !sameLink(i.device, d) {
		return 0
	}
	if err == nil && !p.hops.trust(d.index) {
		return mendPause
	}
	if i.fault = err; err != nil {
		i.pause = min(max(2*i.pause, mendPause), mendMaxPause)
		i.due = time.Now().Add(i.pause)
		p.logger.Debug("interface is of no use to XDP", "interface", i.name, "err", err, "again", i.pause)
		p.assess(i)
		return i.pause
	}
	i.kept, i.pause, i.due = false, 0, time.Time{}
	p.assess(i)
	return mendPeriod
}
