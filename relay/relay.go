package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tandem-relay/tandem/relay/feed"
	"github.com/tandem-relay/tandem/relay/ports"
)

// Errors that callers tell apart.
var (
	// ErrNoSession: no session has this id.
	ErrNoSession = errors.New("no such session")
	// ErrNoNetwork: the relay has no network of this name, or it has no media address.
	ErrNoNetwork = errors.New("no such network")
	// ErrConflict: the session was changed, or is being changed, by another transaction.
	ErrConflict = errors.New("session changed meanwhile")
	// ErrInvalid: a session does not hold together.
	ErrInvalid = errors.New("invalid session")
	// ErrFinished: the transaction was committed or rolled back before.
	ErrFinished = errors.New("transaction is finished")
	// ErrFull: the log or the data plane has no room for more. Ending sessions makes room.
	ErrFull = errors.New("relay is full")
	// ErrStale: the data plane holds a higher generation of the session.
	ErrStale = errors.New("generation is stale")
)

// KindSession is the kind of the changes that tell of sessions. Their key is the session's id, their version its
// generation, their value its JSON; without value the session has ended.
const KindSession = "session"

// DefaultQuarantine is how long released ports stay out of use.
const DefaultQuarantine = 2 * time.Second

// Network is a network as the relay sees it: a name and where media arrives.
type Network struct {
	Name  string
	Media []MediaAddress
}

// MediaAddress is a local address with the port ranges that belong to media.
type MediaAddress struct {
	Addr   netip.Addr
	Ranges []ports.Range
}

// Config is what a relay is made of. Networks, Log and Plane are required.
type Config struct {
	Networks []Network
	// Log takes every change before the data plane sees it.
	Log *feed.Log
	// Plane moves the packets. The relay is its only caller.
	Plane Dataplane
	// Quarantine is how long released ports stay out of use; zero means DefaultQuarantine, below zero none.
	Quarantine time.Duration
	// Logger reports what no caller can be told; nil discards it.
	Logger *slog.Logger
}

// Relay owns every media session. All methods may be called concurrently; transactions of different sessions
// are committed concurrently.
type Relay struct {
	log     *feed.Log
	plane   Dataplane
	logger  *slog.Logger
	pools   []*pool
	byAddr  map[netip.Addr]*pool
	network map[string]*network

	mu       sync.RWMutex
	sessions map[SessionID]*Session // never modified, only replaced
	// changing holds the sessions of which a transaction is being committed.
	changing map[SessionID]struct{}
}

// pool is a media address with its ports.
type pool struct {
	*ports.Pool
	addr    netip.Addr
	network string
}

// New makes a relay without sessions. A media address may stand in one network only.
func New(cfg Config) (*Relay, error) {
	if cfg.Log == nil || cfg.Plane == nil {
		return nil, errors.New("relay needs a log and a data plane")
	}
	switch {
	case cfg.Quarantine == 0:
		cfg.Quarantine = DefaultQuarantine
	case cfg.Quarantine < 0:
		cfg.Quarantine = 0
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Relay{
		log:      cfg.Log,
		plane:    cfg.Plane,
		logger:   cfg.Logger,
		byAddr:   make(map[netip.Addr]*pool),
		network:  make(map[string]*network),
		sessions: make(map[SessionID]*Session),
		changing: make(map[SessionID]struct{}),
	}
	for _, n := range cfg.Networks {
		if err := r.addNetwork(n, cfg.Quarantine); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *Relay) addNetwork(n Network, quarantine time.Duration) error {
	if n.Name == "" {
		return errors.New("network has no name")
	}
	if r.network[n.Name] != nil {
		return fmt.Errorf("network %q stands twice", n.Name)
	}
	own := &network{}
	r.network[n.Name] = own
	for _, m := range n.Media {
		addr := m.Addr.Unmap()
		if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() {
			return fmt.Errorf("network %q: media address %v is not a unicast address", n.Name, m.Addr)
		}
		if other := r.byAddr[addr]; other != nil {
			return fmt.Errorf("network %q: media address %v belongs to network %q already", n.Name, addr, other.network)
		}
		made, err := ports.New(quarantine, m.Ranges...)
		if err != nil {
			return fmt.Errorf("network %q: media address %v: %w", n.Name, addr, err)
		}
		p := &pool{Pool: made, addr: addr, network: n.Name}
		r.byAddr[addr] = p
		r.pools = append(r.pools, p)
		own.pools = append(own.pools, p)
	}
	return nil
}

// Session returns the committed state of a session. It is shared and must not be modified.
func (r *Relay) Session(id SessionID) (*Session, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s, ok := r.sessions[id]
	return s, ok
}

// Sessions returns the committed state of all sessions, ordered by id. They are shared and must not be modified.
func (r *Relay) Sessions() []*Session {
	r.mu.RLock()
	all := make([]*Session, 0, len(r.sessions))
	for _, s := range r.sessions {
		all = append(all, s)
	}
	r.mu.RUnlock()
	slices.SortFunc(all, func(a, b *Session) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Len is the number of sessions.
func (r *Relay) Len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.sessions)
}

// PoolStatus counts the port pairs of a media address. Total is Used, Quarantined and what is free.
type PoolStatus struct {
	Network     string     `json:"network"`
	Addr        netip.Addr `json:"addr"`
	Total       int        `json:"total"`
	Used        int        `json:"used"`
	Quarantined int        `json:"quarantined"`
}

// Ports returns the status of every media address in the order of the configuration.
func (r *Relay) Ports() []PoolStatus {
	all := make([]PoolStatus, 0, len(r.pools))
	for _, p := range r.pools {
		s := p.Status(time.Now())
		all = append(all, PoolStatus{
			Network: p.network, Addr: p.addr, Total: s.Total, Used: s.Used, Quarantined: s.Quarantined,
		})
	}
	return all
}

// PlaneName is the name of the data plane.
func (r *Relay) PlaneName() string { return r.plane.Name() }

// Flows tells the state of every record of a session in the data plane; nil for an unknown session.
func (r *Relay) Flows(id SessionID) []Flow { return r.plane.Flows(id) }

// Totals tells the counters of the data plane.
func (r *Relay) Totals() (Totals, error) { return r.plane.Totals() }

// Begin starts a transaction.
func (r *Relay) Begin() *Tx {
	return &Tx{relay: r, edits: make(map[SessionID]*edit)}
}

// apply compiles a session and gives its records to the data plane; an ended session has none.
func (r *Relay) apply(ctx context.Context, id SessionID, generation uint32, s *Session) error {
	var records []Record
	if s != nil {
		var err error
		if records, err = Compile(s); err != nil {
			return err
		}
	}
	if err := r.plane.Apply(ctx, id, generation, records); err != nil {
		return fmt.Errorf("install session %s: %w", id, err)
	}
	return nil
}
