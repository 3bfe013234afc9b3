package relay

import (
	"context"
	"net/netip"
	"time"
)

// Dataplane moves packets after records. Relay is its only caller. All methods may be called concurrently.
type Dataplane interface {
	// Name is "xdp" or "userspace".
	Name() string
	// Apply makes the plane hold exactly these records for the session. It is idempotent for one generation, refuses
	// a lower generation than it holds with ErrStale, more than it has room for with ErrFull, and leaves the former
	// records in force when it fails. No records remove the session. Apply prepares next hops and waits a short, bounded time for them.
	Apply(ctx context.Context, id SessionID, generation uint32, records []Record) error
	// Adopt is called once, before anything else, with every session of the journal. Records that the plane still holds
	// from an earlier process go on without a gap, missing ones are written, unknown ones are removed. A session that
	// cannot be is refused by itself, and its reason logged; an error means that nothing can be adopted.
	Adopt(ctx context.Context, sessions []Compiled) (Adoption, error)
	// Flows tells the state of every record of a session; nil for an unknown one.
	Flows(id SessionID) []Flow
	// Totals tells the counters of the whole plane since its maps were made.
	Totals() (Totals, error)
	// Events delivers what the plane noticed by itself. The channel is bounded: the plane counts what it had to drop.
	Events() <-chan Event
}

// Compiled is a session with its records.
type Compiled struct {
	ID         SessionID
	Generation uint32
	Records    []Record
}

// Adoption is what Adopt found.
type Adoption struct {
	Kept    int // records that went on unchanged
	Written int // records that were missing or differed
	Removed int // records of no session
	// Refused are the sessions of which the plane holds nothing now, because they cannot be.
	Refused []SessionID
}

// Path is the way a packet took.
type Path string

// The paths.
const (
	PathXDP       Path = "xdp"
	PathSlow      Path = "slow"
	PathUserspace Path = "userspace"
)

// Flow is the state of one record in the plane.
type Flow struct {
	Local     netip.AddrPort    `json:"local"`
	Component Component         `json:"component"`
	Action    Action            `json:"action"`
	Learnt    netip.AddrPort    `json:"learnt"` // zero: nothing learnt yet
	Packets   map[Path]uint64   `json:"packets"`
	Bytes     map[Path]uint64   `json:"bytes"` // UDP payload
	FirstSeen time.Time         `json:"first_seen"`
	LastSeen  time.Time         `json:"last_seen"`
	Punted    map[string]uint64 `json:"punted,omitempty"` // packets that took the slow path, by reason
}

// Totals are the counters of the plane.
type Totals struct {
	Forwarded map[Path]uint64 `json:"forwarded"`
	Reasons   []Reason        `json:"reasons"`
}

// Reason is one named cause of a verdict with its count.
type Reason struct {
	Name    string `json:"name"`    // stable, lower case, underscores
	Verdict string `json:"verdict"` // "forward", "pass", "punt" or "drop"
	Help    string `json:"help"`    // one line for the operator
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"` // whole frames
}

// EventKind is a kind of Event.
type EventKind string

// The kinds of events.
const (
	// EventLearnt: an endpoint was learnt at Local.
	EventLearnt EventKind = "learnt"
)

// Event is something that the plane noticed.
type Event struct {
	Kind    EventKind      `json:"kind"`
	Session SessionID      `json:"session"`
	Local   netip.AddrPort `json:"local"`
	Remote  netip.AddrPort `json:"remote"`
	Time    time.Time      `json:"time"`
}
