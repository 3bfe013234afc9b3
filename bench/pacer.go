package bench

import (
	"container/heap"
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Pacer sends the packets of many sources, each every FrameInterval from its start on, by absolute deadlines: one that is late
// does not delay those after it, so nothing drifts. One thread serves all, which keeps the load of many streams low.
type Pacer struct {
	mu      sync.Mutex
	queue   schedule
	added   chan struct{}
	stopped bool
	late    Histogram
}

// playing is a source that a pacer plays.
type playing struct {
	source *Source
	conn   *net.UDPConn
	to     netip.AddrPort
	next   time.Time
}

// NewPacer returns a pacer without sources.
func NewPacer() *Pacer { return &Pacer{added: make(chan struct{}, 1)} }

// Play sends the source's packets over the connection from the time start on, until Stop.
func (p *Pacer) Play(source *Source, conn *net.UDPConn, to netip.AddrPort, start time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	heap.Push(&p.queue, &playing{source: source, conn: conn, to: to, next: start})
	select {
	case p.added <- struct{}{}:
	default:
	}
}

// Stop ends all sources: when it returns, no packet is sent any more.
func (p *Pacer) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue, p.stopped = nil, true
}

// Lateness tells by how much packets were sent after their deadline.
func (p *Pacer) Lateness() Histogram {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.late
}

// Run sends until the context ends. It occupies a thread of its own with a precise timer.
func (p *Pacer) Run(ctx context.Context) error {
	runtime.LockOSThread() // and never unlocked: the timer slack ends with the thread
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set timer slack: %w", err)
	}
	buf := make([]byte, 0, packetSize)
	for ctx.Err() == nil {
		wait, idle := p.sendDue(buf)
		if idle {
			select {
			case <-ctx.Done():
			case <-p.added:
			}
			continue
		}
		// A source that is added meanwhile waits for one interval at most.
		pause := unix.NsecToTimespec(int64(min(wait, FrameInterval)))
		if err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &pause, nil); err != nil && err != unix.EINTR {
			return fmt.Errorf("sleep: %w", err)
		}
	}
	return nil
}

// sendDue sends everything whose time has come, and returns how long it is to the next, or that there is none.
func (p *Pacer) sendDue(buf []byte) (wait time.Duration, idle bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > 0 {
		first := p.queue[0]
		ahead := time.Until(first.next)
		if ahead > 0 {
			return ahead, false
		}
		p.late.Add(-ahead)
		first.source.send(first.conn, first.to, buf)
		first.next = first.next.Add(FrameInterval)
		heap.Fix(&p.queue, 0)
	}
	return 0, true
}

// schedule is a heap with the earliest deadline first.
type schedule []*playing

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].next.Before(s[j].next) }
func (s schedule) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *schedule) Push(x any)        { *s = append(*s, x.(*playing)) }
func (s *schedule) Pop() any {
	old := *s
	last := old[len(old)-1]
	*s = old[:len(old)-1]
	return last
}
