// Package rest is the control API of one daemon: HTTP with JSON bodies on a unix socket, described by its own OpenAPI document.
package rest

import (
	"net/netip"
	"time"
)

// The paths of the API.
const (
	PathStatus   = "/v1/status"
	PathSessions = "/v1/sessions"
	PathDrops    = "/v1/drops"
	PathDrain    = "/v1/drain"
	PathStop     = "/v1/stop"
)

// Status is the answer of GET /v1/status: the daemon at a glance.
type Status struct {
	Instance      string    `json:"instance" doc:"Name of the instance"`
	Version       string    `json:"version" doc:"Version of the running daemon"`
	PID           int       `json:"pid" doc:"Process id of the daemon"`
	StartedAt     time.Time `json:"started_at" doc:"When this process began"`
	UptimeSeconds float64   `json:"uptime_seconds" doc:"Seconds since started_at"`
	Dataplane     Dataplane `json:"dataplane" doc:"What moves the packets"`
	Draining      bool      `json:"draining" doc:"New calls are refused"`
	Calls         int       `json:"calls" doc:"SIP calls, early ones included"`
	Sessions      int       `json:"sessions" doc:"Media sessions"`
	Ports         []Ports   `json:"ports" nullable:"false" doc:"Port pairs of every media address"`
	// Forwarded counts packets by path: "xdp", "slow", "userspace".
	Forwarded map[string]uint64 `json:"forwarded" doc:"Forwarded packets by path (xdp, slow, userspace)"`
	Punted    map[string]uint64 `json:"punted" doc:"Packets given to the slow path, by reason"`
	Dropped   map[string]uint64 `json:"dropped" doc:"Dropped packets, by reason"`
	SIP       map[string]uint64 `json:"sip" doc:"Counters of the SIP door"`
	// Panics counts messages and requests whose handling was ended by a panic, by the part they happened in.
	Panics map[string]uint64 `json:"panics" doc:"Panics that ended the handling of one message, by part"`
}

// Dataplane says what moves the packets.
type Dataplane struct {
	Name     string   `json:"name" doc:"xdp or userspace"`
	Warnings []string `json:"warnings" nullable:"false" doc:"What the operator should know about it"`
}

// Ports is the use of one media address's ports, in pairs of an RTP and an RTCP port.
type Ports struct {
	Network     string     `json:"network"`
	Address     netip.Addr `json:"address"`
	Total       int        `json:"total"`
	Used        int        `json:"used"`
	Quarantined int        `json:"quarantined" doc:"Released a moment ago, not yet used again"`
}

// Sessions is the answer of GET /v1/sessions, ordered by session id.
type Sessions struct {
	Sessions   []Session `json:"sessions" nullable:"false"`
	NextCursor string    `json:"next_cursor,omitempty" doc:"Given as cursor, returns what follows; absent on the last page"`
}

// Session is one media session with the state of its flows.
type Session struct {
	ID         string  `json:"id"`
	Generation uint32  `json:"generation"`
	Call       *Call   `json:"call,omitempty" doc:"The SIP call that it belongs to, if any"`
	Parties    []Party `json:"parties" nullable:"false"`
}

// Call is the signalling side of a session.
type Call struct {
	ID      string   `json:"id"`
	State   string   `json:"state"`
	CallIDs []string `json:"call_ids" nullable:"false" doc:"SIP Call-ID of each leg, equal ones once"`
	From    string   `json:"from" doc:"From URI of the call as it came in"`
	To      string   `json:"to" doc:"To URI of the call as it came in"`
	// TrunkIn is where the call came from, TrunkOut where it went.
	TrunkIn   string    `json:"trunk_in"`
	TrunkOut  string    `json:"trunk_out"`
	StartedAt time.Time `json:"started_at"`
	// AnsweredAt is absent before the answer.
	AnsweredAt *time.Time `json:"answered_at,omitempty"`
}

// Party is one participant.
type Party struct {
	ID      string   `json:"id"`
	Network string   `json:"network"`
	Label   string   `json:"label,omitempty"`
	Tags    []string `json:"tags" nullable:"false"`
	Streams []Stream `json:"streams" nullable:"false"`
}

// Stream is one m= line of a party.
type Stream struct {
	Media string `json:"media"`
	Proto string `json:"proto"`
	// Mode is "forward", "hold", "block" or "punt".
	Mode string `json:"mode"`
	// Signalled is the RTP endpoint that the party's description names, routable or not; empty: none.
	Signalled string   `json:"signalled"`
	Accept    []string `json:"accept" nullable:"false" doc:"Networks from which media is accepted; any: everything"`
	Window    uint16   `json:"window" doc:"Number of the learning window"`
	// Flows are the stream's local endpoints: what the party sends arrives there. None while the stream has no ports.
	Flows []Flow `json:"flows" nullable:"false"`
}

// Flow is what arrives at one local endpoint.
type Flow struct {
	// Component is "rtp" or "rtcp".
	Component string            `json:"component"`
	Local     string            `json:"local" doc:"Our endpoint, on which the party's packets arrive"`
	Remote    string            `json:"remote" doc:"The party's endpoint that we would send to if none was learnt; empty: none yet"`
	Learnt    string            `json:"learnt" doc:"The party's endpoint as learnt from its packets; empty: not learnt yet"`
	Action    string            `json:"action" doc:"forward, hold, block or punt"`
	Packets   map[string]uint64 `json:"packets" doc:"Forwarded packets by path"`
	Bytes     map[string]uint64 `json:"bytes" doc:"Their UDP payload, in bytes"`
	Punted    map[string]uint64 `json:"punted" doc:"Packets that took the slow path, by reason"`
	FirstSeen *time.Time        `json:"first_seen,omitempty"`
	LastSeen  *time.Time        `json:"last_seen,omitempty"`
}

// Drops is the answer of GET /v1/drops: every reason for which a packet was dropped or given to the slow path, with its count.
type Drops struct {
	Reasons []Reason `json:"reasons" nullable:"false"`
}

// Reason is one named cause.
type Reason struct {
	Name    string `json:"name"`
	Verdict string `json:"verdict" doc:"drop or punt"`
	Help    string `json:"help" doc:"What it means, in one line"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes" doc:"Whole frames"`
}

// Drain is the body of POST /v1/drain.
type Drain struct {
	On bool `json:"on" doc:"true: refuse new calls; false: take them again"`
}

// DrainState is the answer of POST /v1/drain.
type DrainState struct {
	Draining bool `json:"draining"`
	Calls    int  `json:"calls" doc:"Calls that are left"`
}

// Stop is the body of POST /v1/stop.
type Stop struct {
	Release bool `json:"release" doc:"Also remove everything from the kernel and forget all calls"`
}

// Stopping is the answer of POST /v1/stop; the process ends right after it.
type Stopping struct {
	PID     int  `json:"pid"`
	Release bool `json:"release"`
	Calls   int  `json:"calls" doc:"Calls in progress: kept by the kernel, or cut off by a release"`
}
