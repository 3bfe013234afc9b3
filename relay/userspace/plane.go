package userspace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/internal/guard"
)

const (
	eventBuffer = 1024
	spareWork   = 4 // memory kept for reading while nobody reads
)

// Config says how a Plane reports. The zero value is good.
type Config struct {
	// Logger gets what is abnormal; nothing per packet. Default: nothing is logged.
	Logger *slog.Logger
}

// Plane is a relay.Dataplane over UDP sockets, one for each local endpoint of a record. All methods may be called
// concurrently.
type Plane struct {
	logger   *slog.Logger
	events   chan relay.Event
	lost     atomic.Uint64 // events that nobody took in time
	counters [reasonCount]counter
	panics   guard.Panics
	spare    chan *work
	serving  sync.WaitGroup

	// mu lets one change be made at a time. Serving a packet never takes it: closing a socket waits for its packet.
	mu       sync.Mutex
	closed   bool
	sessions map[relay.SessionID]*session

	directory directory
}

// session is what the plane holds of one session.
type session struct {
	generation uint32
	locals     []*endpoint            // in the order of the records
	uses       map[*endpoint]struct{} // these, and those that it only sends from
}

var _ relay.Dataplane = (*Plane)(nil)

// New makes an empty plane.
func New(cfg Config) *Plane {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Plane{
		logger:    cfg.Logger,
		events:    make(chan relay.Event, eventBuffer),
		spare:     make(chan *work, spareWork),
		sessions:  make(map[relay.SessionID]*session),
		directory: newDirectory(),
	}
}

// Name is "userspace".
func (p *Plane) Name() string { return "userspace" }

// Apply implements relay.Dataplane. Sockets are opened in the network namespace of the calling thread; if one cannot
// be, nothing has changed. What was learnt and counted at an endpoint stays as long as the session keeps it.
func (p *Plane) Apply(ctx context.Context, id relay.SessionID, generation uint32, records []relay.Record) error {
	if err := check(records); err != nil {
		return fmt.Errorf("apply session %s: %w", id, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("apply session %s: plane: %w", id, os.ErrClosed)
	}
	former := p.sessions[id]
	if former != nil && generation < former.generation {
		return fmt.Errorf("apply session %s: generation %d after %d: %w", id, generation, former.generation, relay.ErrStale)
	}
	opened, err := p.prepare(ctx, id, records)
	if err != nil {
		return fmt.Errorf("apply session %s: %w", id, err)
	}
	for _, e := range opened {
		p.directory.add(e)
	}
	p.install(id, generation, records, former)
	for _, e := range opened {
		p.serving.Go(e.serve)
	}
	return nil
}

// check refuses records that cannot be executed.
func check(records []relay.Record) error {
	locals := make(map[netip.AddrPort]bool, len(records))
	for _, r := range records {
		if !r.Local.IsValid() || r.Local.Port() == 0 || r.Local.Addr().IsUnspecified() {
			return fmt.Errorf("local endpoint %s is not valid", r.Local)
		}
		if locals[r.Local] {
			return fmt.Errorf("local endpoint %s stands in two records", r.Local)
		}
		locals[r.Local] = true
		if r.Action < relay.Forward || r.Action > relay.Punt {
			return fmt.Errorf("record at %s: unknown action %d", r.Local, r.Action)
		}
		for _, o := range r.Outputs {
			if !o.From.IsValid() || o.From.Port() == 0 || o.From.Addr().IsUnspecified() {
				return fmt.Errorf("record at %s: output from %s is not valid", r.Local, o.From)
			}
			if o.To.IsValid() && o.To.Addr().Is4() != o.From.Addr().Is4() {
				return fmt.Errorf("record at %s: output from %s to %s: different address families", r.Local, o.From, o.To)
			}
		}
	}
	return nil
}

// prepare opens the sockets that the records need and the plane has not: all of them or none.
func (p *Plane) prepare(ctx context.Context, id relay.SessionID, records []relay.Record) (opened map[netip.AddrPort]*endpoint, err error) {
	opened = make(map[netip.AddrPort]*endpoint)
	defer func() {
		if err != nil {
			for _, e := range opened {
				err = errors.Join(err, e.conn.Close())
			}
		}
	}()
	need := func(local netip.AddrPort) error {
		if p.directory.find(local) != nil || opened[local] != nil {
			return nil
		}
		e, err := p.open(ctx, local)
		if err != nil {
			return fmt.Errorf("open local endpoint: %w", fullError(err))
		}
		opened[local] = e
		return nil
	}
	for _, r := range records {
		if e := p.directory.find(r.Local); e != nil && e.owner != "" && e.owner != id {
			return opened, fmt.Errorf("local endpoint %s belongs to session %s", r.Local, e.owner)
		}
		if err := need(r.Local); err != nil {
			return opened, err
		}
		for _, o := range r.Outputs {
			if err := need(o.From); err != nil {
				return opened, err
			}
		}
	}
	return opened, nil
}

// fullError says so when a socket could not be opened because there are too many.
func fullError(err error) error {
	for _, full := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, full) {
			return fmt.Errorf("%w: %w", relay.ErrFull, err)
		}
	}
	return err
}

// install puts the records in force; every endpoint they need is there. The caller holds mu.
func (p *Plane) install(id relay.SessionID, generation uint32, records []relay.Record, former *session) {
	next := &session{generation: generation, uses: make(map[*endpoint]struct{})}
	owned := make(map[*endpoint]struct{}, len(records))
	for _, r := range records {
		e := p.directory.find(r.Local)
		e.owner = id
		next.locals = append(next.locals, e)
		owned[e] = struct{}{}
		next.uses[e] = struct{}{}
		for _, o := range r.Outputs {
			next.uses[p.directory.find(o.From)] = struct{}{}
		}
	}
	for e := range next.uses {
		e.users++
	}
	for _, r := range records {
		e := p.directory.find(r.Local)
		next := p.rule(id, r)
		if was, l := e.rule.Load(), e.latch.Load(); l.counts(was) && !l.counts(next) {
			e.latch.Store(nil) // it does not come back with its window or its address
		}
		e.rule.Store(next)
	}
	if len(records) == 0 {
		delete(p.sessions, id)
	} else {
		p.sessions[id] = next
	}
	if former == nil {
		return
	}
	for _, e := range former.locals {
		if _, still := owned[e]; !still {
			e.forget()
			e.owner = ""
		}
	}
	for e := range former.uses {
		p.leave(e)
	}
}

// rule resolves a record. The caller holds mu.
func (p *Plane) rule(id relay.SessionID, r relay.Record) *rule {
	out := &rule{session: id, record: r}
	for _, o := range r.Outputs {
		out.outputs = append(out.outputs, output{from: p.directory.find(o.From), to: o.To})
	}
	return out
}

// leave takes one user from an endpoint and closes it after the last. The caller holds mu.
func (p *Plane) leave(e *endpoint) {
	if e.users--; e.users > 0 {
		return
	}
	p.directory.remove(e)
	if err := e.conn.Close(); err != nil {
		p.logger.Error("close local endpoint", "local", e.local, "err", err)
	}
}

// Adopt implements relay.Dataplane: the sockets of an earlier process died with it, so every record is written. Sessions that
// cannot be are refused; the others are in force.
func (p *Plane) Adopt(ctx context.Context, sessions []relay.Compiled) (relay.Adoption, error) {
	var adoption relay.Adoption
	known := make(map[relay.SessionID]bool, len(sessions))
	for _, s := range sessions {
		known[s.ID] = true
	}
	p.mu.Lock()
	for id, s := range p.sessions {
		if !known[id] {
			adoption.Removed += len(s.locals)
			p.install(id, s.generation, nil, s)
		}
	}
	p.mu.Unlock()
	for _, s := range sessions {
		if err := ctx.Err(); err != nil {
			return adoption, fmt.Errorf("adopt: %w", err)
		}
		err := p.Apply(ctx, s.ID, s.Generation, s.Records)
		switch {
		case err == nil:
			adoption.Written += len(s.Records)
		case ctx.Err() != nil || errors.Is(err, os.ErrClosed):
			return adoption, fmt.Errorf("adopt: %w", err) // it is not the session's fault
		default:
			p.logger.Error("session cannot go on", "session", s.ID, "err", err)
			adoption.Refused = append(adoption.Refused, s.ID)
		}
	}
	return adoption, nil
}

// Flows implements relay.Dataplane.
func (p *Plane) Flows(id relay.SessionID) []relay.Flow {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sessions[id]
	if s == nil {
		return nil
	}
	flows := make([]relay.Flow, len(s.locals))
	for i, e := range s.locals {
		flows[i] = e.flow(e.rule.Load())
	}
	return flows
}

// Events implements relay.Dataplane. The channel is never closed.
func (p *Plane) Events() <-chan relay.Event { return p.events }

// LostEvents counts the events that nobody took in time.
func (p *Plane) LostEvents() uint64 { return p.lost.Load() }

// Panics counts the packets whose handling ended in a panic. Such a packet is lost, and logged at most once a second.
func (p *Plane) Panics() uint64 { return p.panics.Count() }

// emit delivers an event, or counts it as lost.
func (p *Plane) emit(e relay.Event) {
	select {
	case p.events <- e:
	default:
		p.lost.Add(1)
	}
}

// Close removes every session and waits until all sockets are closed and all goroutines have ended.
func (p *Plane) Close() error {
	p.mu.Lock()
	p.closed = true
	for id, s := range p.sessions {
		p.install(id, s.generation, nil, s)
	}
	p.mu.Unlock()
	p.serving.Wait()
	return nil
}

// borrow returns memory to read with.
func (p *Plane) borrow() *work {
	select {
	case w := <-p.spare:
		return w
	default:
		return newWork()
	}
}

// giveBack keeps the memory for the next reader, unless enough is kept.
func (p *Plane) giveBack(w *work) {
	select {
	case p.spare <- w:
	default:
	}
}
