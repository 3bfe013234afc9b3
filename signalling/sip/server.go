// Package sip is the SIP door: a B2BUA over UDP that anchors every call's media in the relay.
//
// Each call lives in one shard, a goroutine with a bounded queue, which handles the call's messages and timers in the
// order of their arrival. A message finds its shard by the leg token in its Request-URI, by our own Via branch, or by its Call-ID.
package sip

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/tandem-relay/tandem/relay"
)

// Methods that the program treats in a way of their own.
const (
	methodINVITE  = "INVITE"
	methodACK     = "ACK"
	methodBYE     = "BYE"
	methodCANCEL  = "CANCEL"
	methodOPTIONS = "OPTIONS"
	methodPRACK   = "PRACK"
	methodUPDATE  = "UPDATE"
)

// Server is the SIP side of one daemon. All methods may be called concurrently, except Restore, which comes before Run.
type Server struct {
	cfg       Config
	log       *slog.Logger
	relay     *relay.Relay
	listeners []*listener
	trunks    map[string]*trunk
	shards    []*shard
	ready     chan struct{}
	started   atomic.Bool
	draining  atomic.Bool
	calls     atomic.Int64
	transact  atomic.Int64 // server transactions
	counts    counts
	seed      tagSeed
	patience  patience

	complaints complaintLog
}

// New makes a server that does not listen yet. It returns what is wrong with the configuration.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger, relay: cfg.Relay, ready: make(chan struct{}),
		seed:       tagSeed{maphash.MakeSeed()},
		patience:   patience{perSecond: float64(cfg.Limits.Complaints)},
		complaints: complaintLog{last: make(map[string]*complaint)},
	}
	for _, c := range cfg.Listeners {
		ln := &listener{srv: s, network: c.Network, addr: netip.AddrPortFrom(c.Addr.Addr().Unmap(), c.Addr.Port())}
		shown := c.Advertise
		if !shown.IsValid() {
			shown = ln.addr
		}
		if !ln.addr.IsValid() || shown.Addr().IsUnspecified() || shown.Port() == 0 {
			return nil, fmt.Errorf("listener %v of network %q: a peer cannot reach %v", c.Addr, c.Network, shown)
		}
		ln.shown = shown.String()
		s.listeners = append(s.listeners, ln)
	}
	if s.trunks, err = makeTrunks(cfg.Trunks, s.listeners); err != nil {
		return nil, err
	}
	for i := range cfg.Shards {
		s.shards = append(s.shards, newShard(s, i))
	}
	return s, nil
}

// Run opens the sockets and serves until the context ends. Calls are left as they are: the journal has them, and the
// next process goes on with them. It returns an error if a socket cannot be opened. It is called once.
func (s *Server) Run(ctx context.Context) error {
	if !s.started.CompareAndSwap(false, true) {
		return errors.New("sip: run twice")
	}
	for i, ln := range s.listeners {
		conn, err := s.cfg.Listen(ctx, ln.addr)
		if err != nil {
			s.close(s.listeners[:i])
			return fmt.Errorf("listen for sip on %v in network %q: %w", ln.addr, ln.network, err)
		}
		ln.conn = conn
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for _, sh := range s.shards {
		wg.Go(func() { sh.run(ctx) })
	}
	for _, ln := range s.listeners {
		wg.Go(func() { ln.read(ctx) })
	}
	close(s.ready)
	<-ctx.Done()
	s.close(s.listeners)
	wg.Wait()
	return nil
}

func (s *Server) close(listeners []*listener) {
	for _, ln := range listeners {
		if err := ln.conn.Close(); err != nil {
			s.log.Warn("close sip socket", "network", ln.network, "err", err)
		}
	}
}

// Ready is closed once every socket is open.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// String names the task.
func (s *Server) String() string { return "sip" }

// Drain makes the server refuse new calls with 503, or take them again. Calls in progress are not touched.
func (s *Server) Drain(on bool) { s.draining.Store(on) }

// Draining reports whether new calls are refused.
func (s *Server) Draining() bool { return s.draining.Load() }

// Len is the number of calls, early and challenged ones included.
func (s *Server) Len() int { return int(s.calls.Load()) }

// Counters returns every counter by name.
func (s *Server) Counters() map[string]uint64 { return s.counts.snapshot() }

// shardOf returns the shard in which a home lies.
func (s *Server) shardOf(home uint8) *shard { return s.shards[int(home)%len(s.shards)] }

// listenerAt finds the listener of a restored leg, or another of its network.
func (s *Server) listenerAt(addr netip.AddrPort, t *trunk) *listener {
	for _, ln := range s.listeners {
		if ln.addr == addr && ln.network == t.Network {
			return ln
		}
	}
	return t.ln
}
