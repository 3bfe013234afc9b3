package bpf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/cilium/ebpf/ringbuf"
)

// EventKind is the kind of an Event.
type EventKind uint32

// EventLearnt: the program learnt Remote at Local.
const EventLearnt EventKind = 1

// Event is something that the program tells the daemon.
type Event struct {
	Kind       EventKind
	Record     uint32 // position in the record pool
	Generation uint32 // of the record
	Local      netip.AddrPort
	Remote     netip.AddrPort
	Time       uint64 // CLOCK_MONOTONIC, ns, coarse
}

// Events calls f for every event until the context ends. Only one call may run at a time. Events are hints: each CPU sends at most 4096 per
// second, and what does not fit in the buffer is lost (EventsLost); the state of the flows is the truth.
func (p *Plane) Events(ctx context.Context, f func(Event)) error {
	r, err := ringbuf.NewReader(p.objects.Events)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer func() { _ = r.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = r.Close() })
	defer stop()
	var raw ringbuf.Record
	for {
		err := r.ReadInto(&raw)
		if errors.Is(err, os.ErrClosed) {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		e, err := decodeEvent(raw.RawSample)
		if err != nil {
			return err
		}
		f(e)
	}
}

// EventsLost tells how many events were suppressed or did not fit, since the maps were made.
func (p *Plane) EventsLost() (uint64, error) {
	var perCPU []relayEventBudget
	if err := p.objects.Budget.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read event budget: %w", err)
	}
	var lost uint64
	for _, b := range perCPU {
		lost += b.Lost
	}
	return lost, nil
}
