// Package slowpath receives, on a few sockets, the packets of the whole media range that the fast path does not
// forward, and sends packets from any local endpoint.
//
// The receiving sockets are bound to loopback with a port of the kernel's choice, so that no stranger reaches them;
// an sk_lookup program steers the media range to them, and the kernel tells the original destination with each packet.
// Sending needs a socket per local endpoint, because the source port comes from the binding: they are bound when first
// needed, kept in a bounded cache, closed after a while of silence, and never receive anything.
package slowpath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tandem-relay/tandem/relay/internal/datagram"
	"github.com/tandem-relay/tandem/relay/internal/guard"
)

// The defaults of Config, and how senders age.
const (
	defaultSockets = 2
	defaultSenders = 1024

	senderIdle  = 30 * time.Second
	sweepPeriod = 10 * time.Second
)

// ErrFamily is returned by Send when the two endpoints are not of the same address family.
var ErrFamily = errors.New("endpoints of different address families")

// Packet is one datagram that was steered to the slow path. Fragments are already reassembled.
type Packet struct {
	// Local is the original destination, Remote the source. IPv4 addresses are unmapped.
	Local, Remote netip.AddrPort
	// TOS is the IPv4 TOS octet or the IPv6 traffic class as received.
	TOS uint8
	// Payload is the UDP payload, at most 65,535 octets. It belongs to the path: valid until handle returns.
	Payload []byte
}

// Config says how large a Path is.
type Config struct {
	// Sockets is the number of receiving sockets, each served by a goroutine of its own. Default 2.
	Sockets int
	// Senders bounds the number of bound sending sockets. Default 1024.
	Senders int
	// Logger gets what is abnormal. Default: nothing is logged.
	Logger *slog.Logger
}

// Counters are what a Path did since New.
type Counters struct {
	Received uint64 // datagrams given to handle
	Unread   uint64 // times that the kernel could not give what had arrived, for lack of memory for example
	Stray    uint64 // datagrams that reached a receiving socket without being steered, or without a destination
	Sent     uint64 // datagrams handed to the kernel
	Errors   uint64 // datagrams that could not be sent, for whatever reason
	Opened   uint64 // sending sockets opened
	Evicted  uint64 // of these, closed because the cache was full
}

// Path is a slow path. Its methods may be called concurrently.
type Path struct {
	receivers []*receiver
	senders   *senders
	done      chan struct{} // closed by Close
	closing   sync.Once
	closed    error

	logger *slog.Logger
	read   func(b *datagram.Batch, fd int) (int, error)
	panics guard.Panics

	received, unread, stray, sent, failed atomic.Uint64
}

// New opens the receiving sockets in the network namespace of the calling thread; senders follow into the same one.
func New(cfg Config) (*Path, error) {
	if cfg.Sockets <= 0 {
		cfg.Sockets = defaultSockets
	}
	if cfg.Senders <= 0 {
		cfg.Senders = defaultSenders
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ns, err := currentNamespace()
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	p := &Path{
		done: make(chan struct{}), senders: newSenders(cfg.Senders, ns),
		logger: cfg.Logger, read: (*datagram.Batch).Read,
	}
	for range cfg.Sockets {
		r, err := openReceiver()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open slow-path socket: %w", err), p.Close())
		}
		p.receivers = append(p.receivers, r)
	}
	if !p.receivers[0].v6 {
		cfg.Logger.Warn("host has no IPv6: the slow path takes IPv4 only")
	}
	return p, nil
}

// FDs returns the file descriptors of the receiving sockets, to be steered to. Each takes IPv4 packets, and IPv6 ones
// as well where the host has IPv6. They stay the path's own and are valid until Close.
func (p *Path) FDs() []int {
	fds := make([]int, len(p.receivers))
	for i, r := range p.receivers {
		fds[i] = r.fd
	}
	return fds
}

// Run calls handle for each packet until ctx ends, then returns nil. Handle is called by one goroutine per socket, so
// concurrently; packets of one socket come in order. Run may be called once.
func (p *Path) Run(ctx context.Context, handle func(Packet)) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range p.receivers {
		g.Go(func() error {
			err := p.receive(ctx, r, handle)
			select {
			case <-p.done:
				return nil
			default:
			}
			if err != nil {
				return fmt.Errorf("read slow-path socket: %w", err)
			}
			return nil
		})
	}
	g.Go(func() error {
		tick := time.NewTicker(sweepPeriod)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-p.done:
				return nil
			case now := <-tick.C:
				p.senders.sweep(now)
			}
		}
	})
	return g.Wait()
}

// Send sends payload from one of our endpoints with the given TOS octet or traffic class. It does not block: a packet
// that the kernel does not take at once is lost and counted, as on any congested link. Payload is not kept.
func (p *Path) Send(from, to netip.AddrPort, tos uint8, payload []byte) error {
	if err := p.senders.send(from, to, tos, payload); err != nil {
		p.failed.Add(1)
		return fmt.Errorf("send from %s to %s: %w", from, to, err)
	}
	p.sent.Add(1)
	return nil
}

// Counters returns what the path did since New.
func (p *Path) Counters() Counters {
	opened, evicted := p.senders.counts()
	return Counters{
		Received: p.received.Load(), Unread: p.unread.Load(), Stray: p.stray.Load(),
		Sent: p.sent.Load(), Errors: p.failed.Load(),
		Opened: opened, Evicted: evicted,
	}
}

// Panics counts the packets at which handle panicked. Such a packet is lost, and logged at most once a second.
func (p *Path) Panics() uint64 { return p.panics.Count() }

// Close closes all sockets; a running Run ends. Send fails with os.ErrClosed from then on.
func (p *Path) Close() error {
	p.closing.Do(func() {
		close(p.done)
		var errs []error
		for _, r := range p.receivers {
			errs = append(errs, r.file.Close())
		}
		p.closed = errors.Join(append(errs, p.senders.close())...)
	})
	return p.closed
}
