// Package xdp is the data plane that forwards in the kernel: it turns logical records into those of package bpf, keeps
// their next hops in line with the kernel's routes and neighbours, and relays what the program punts.
package xdp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/internal/guard"
	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/tandem-relay/tandem/relay/slowpath"
)

const (
	lifePeriod = time.Second
	// aliveFor bridges a daemon that is late, not one that is gone.
	aliveFor     = 4 * time.Second
	noticePeriod = 5 * time.Second
)

var _ relay.Dataplane = (*Plane)(nil)

// Plane is the relay.Dataplane over XDP. Its methods may be called concurrently.
type Plane struct {
	maps     *bpf.Plane
	kernel   *kernel
	hops     *hops
	slow     *slowpath.Path
	selftest *selftest
	logger   *slog.Logger
	ranges   map[netip.Addr][]ports.Range // the media range
	orphan   time.Duration
	wait     time.Duration
	reserve  int      // record slots that new endpoints leave free
	warnings []string // found by New
	watch    watch
	netns    *namespace

	mu        sync.RWMutex
	closed    bool
	sessions  map[relay.SessionID]*session
	endpoints map[netip.AddrPort]*endpoint
	untold    map[*endpoint]struct{} // where nothing was learnt yet
	records   *slots
	flows     *slots

	adopted    atomic.Bool // Adopt was called
	unmoved    atomic.Bool // some session must still be moved to other next hops
	events     chan relay.Event
	eventsLost atomic.Uint64
	panics     guard.Panics
	tallies    [outcomes]tally

	stop   context.CancelFunc
	ended  chan struct{}
	failed error // once ended
}

// New starts the plane in the network namespace of the calling thread: it attaches the program to every interface and
// proves that frames leave by it, opens the media addresses, starts the slow path and tests that packets reach it, and
// from then on follows the kernel's routes and neighbours. Records that an earlier process left go on as they are until
// Adopt. ctx bounds New alone. On an error nothing stays attached that was not before.
func New(ctx context.Context, cfg Config) (*Plane, error) {
	cfg, err := cfg.normalize()
	if err != nil {
		return nil, fmt.Errorf("data plane: %w", err)
	}
	p := &Plane{
		maps: cfg.Maps, logger: cfg.Logger, selftest: newSelftest(),
		ranges: cfg.ranges(), orphan: cfg.Orphan, wait: cfg.Wait,
		sessions:  make(map[relay.SessionID]*session),
		endpoints: make(map[netip.AddrPort]*endpoint),
		untold:    make(map[*endpoint]struct{}),
		watch:     watch{kick: make(chan struct{}, 1)},
		events:    make(chan relay.Event, eventBuffer),
		ended:     make(chan struct{}),
	}
	before := p.maps.Attached()
	if err := p.start(ctx, cfg); err != nil {
		for _, name := range p.maps.Attached() {
			if !slices.Contains(before, name) {
				err = errors.Join(err, p.maps.Detach(name))
			}
		}
		p.closeParts()
		return nil, fmt.Errorf("data plane: %w", err)
	}
	return p, nil
}

func (p *Plane) start(ctx context.Context, cfg Config) (err error) {
	if p.netns, err = currentNamespace(); err != nil {
		return err
	}
	if p.kernel, err = openKernel(); err != nil {
		return err
	}
	if err := p.checkAddresses(cfg.Networks); err != nil {
		return err
	}
	records, nextHops := p.maps.Capacity()
	if p.hops, err = newHops(p.kernel, cfg.interfaces(), nextHops, p.maps, p.logger); err != nil {
		return err
	}
	if err := p.attach(ctx, cfg.Networks); err != nil {
		return err
	}
	if err := p.openMedia(); err != nil {
		return err
	}
	usedRecords, usedFlows, usedHops := p.scan()
	p.records = newSlots(bpf.FirstRecord, records, usedRecords, time.Now)
	p.flows = newSlots(0, records, usedFlows, time.Now)
	p.reserve = int(min(records/8, 1024))
	p.hops.reserve(usedHops)

	if p.slow, err = slowpath.New(slowpath.Config{Sockets: cfg.Sockets, Senders: cfg.Senders, Logger: p.logger}); err != nil {
		return err
	}
	if err := p.maps.AttachLookup(); err != nil {
		return err
	}
	if err := p.maps.SteerTo(p.slow.FDs()); err != nil {
		return err
	}
	p.maps.SetRole(bpf.Role{ForwardUntil: bpf.Never, OwnUntil: bpf.Never, State: bpf.StateStandalone})
	p.alive()
	p.look()
	p.background()
	p.testFirewall(ctx, cfg.Networks)
	return nil
}

// background starts the plane's tasks. They end together.
func (p *Plane) background() {
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	g, ctx := errgroup.WithContext(ctx)
	dirty := make(chan struct{}, 1)
	g.Go(func() error { return p.slow.Run(ctx, p.handle) })
	g.Go(func() error {
		return p.hops.follow(ctx, p.kernel, func() {
			select {
			case dirty <- struct{}{}:
			default:
			}
		}, p.look)
	})
	g.Go(func() error { return p.mend(ctx) })
	g.Go(func() error { p.hops.run(ctx, dirty, p.rewrite); return nil })
	g.Go(func() error { p.live(ctx); return nil })
	g.Go(func() error {
		err := p.maps.Events(ctx, func(e bpf.Event) { p.noticed(e.Local) })
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	go func() {
		p.failed = g.Wait()
		close(p.ended)
	}()
}

// Run waits until ctx ends, and then returns nil, or until one of the plane's tasks fails. Then XDP goes on forwarding,
// but Apply and the slow path are of no more use: the process should be started anew.
func (p *Plane) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.ended:
		if p.failed != nil {
			return fmt.Errorf("data plane: %w", p.failed)
		}
		return nil
	}
}

// live gives signs of life, without which flows end after the orphan time, and repairs what events missed.
func (p *Plane) live(ctx context.Context) {
	life, notice := time.NewTicker(lifePeriod), time.NewTicker(noticePeriod)
	defer life.Stop()
	defer notice.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-life.C:
			p.alive()
			if p.unmoved.Swap(false) {
				p.rewrite()
			}
		case <-notice.C:
			p.notice()
		}
	}
}

func (p *Plane) alive() { p.maps.SetDaemon(p.orphanAt(), bpf.Deadline(aliveFor)) }

func (p *Plane) orphanAt() uint64 {
	if p.orphan < 0 {
		return bpf.Never
	}
	return bpf.Deadline(p.orphan)
}

// Warnings are what lets calls suffer now, each with its cure: what New found that did not keep it from starting, and
// interfaces and media addresses that are missing or of no use to XDP at the moment.
func (p *Plane) Warnings() []string { return append(slices.Clone(p.warnings), p.watch.warnings()...) }

// Panics counts the packets and timers whose handling ended in a panic, which is logged at most once a second.
func (p *Plane) Panics() uint64 { return p.panics.Count() + p.slow.Panics() }

// Close ends the plane and leaves the program forwarding, for the orphan time. It closes Config.Maps.
func (p *Plane) Close() error { return p.end((*bpf.Plane).Close) }

// Release ends the plane and removes everything of the instance from the kernel.
func (p *Plane) Release() error { return p.end((*bpf.Plane).Release) }

func (p *Plane) end(maps func(*bpf.Plane) error) error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	p.stop()
	<-p.ended
	// Nobody answers what is punted from here on, and a closed socket must not answer with ICMP.
	p.maps.SetDaemon(p.orphanAt(), 0)
	p.closeParts()
	return maps(p.maps)
}

func (p *Plane) closeParts() {
	if p.slow != nil {
		if err := p.slow.Close(); err != nil {
			p.logger.Error("close slow path", "err", err)
		}
	}
	if p.kernel != nil {
		p.kernel.close()
	}
	if p.netns != nil {
		p.netns.close()
	}
}
