// Package relay is the domain: it owns every media session and is the only writer of session records in the data plane.
package relay

import (
	"net/netip"
	"slices"
)

// SessionID identifies a media session. It is opaque and unique for the life of the instance.
type SessionID string

// PartyID identifies a party within its session. It is opaque.
type PartyID string

// Session is the intent of one media session: who takes part, with which streams, and who hears whom.
// It is plain data: it is journalled and replicated as it stands, and compiled on every box by itself.
type Session struct {
	ID SessionID `json:"id"`
	// Generation rises by one with every committed change. Records and events quote it.
	Generation uint32 `json:"generation"`
	// Tenant is a label that later isolation hangs on; empty for now.
	Tenant        string         `json:"tenant,omitempty"`
	Parties       []Party        `json:"parties"`
	Subscriptions []Subscription `json:"subscriptions"`

	// damage says why the session could not be read from the journal. All it can do then is end.
	damage error
}

// Party is one participant of a session, reached over one network.
type Party struct {
	ID      PartyID  `json:"id"`
	Network string   `json:"network"`
	Label   string   `json:"label,omitempty"`
	Tags    []string `json:"tags,omitempty"`
	Streams []Stream `json:"streams"`
}

// Stream is one m= line of a party. Its position in Party.Streams is the position of the m= line.
type Stream struct {
	// Media and Proto are the m= line's first and third field, as received.
	Media string `json:"media"`
	Proto string `json:"proto"`
	// Local is the port pair on which this party's packets arrive. Zero while the stream has none.
	Local Pair `json:"local"`
	// Remote is what the party's session description says.
	Remote Remote `json:"remote"`
	// Accept says from where this party's packets may come.
	Accept AcceptSet `json:"accept"`
	// Window numbers the learning windows of this stream. A new number reopens learning;
	// an equal one keeps the endpoint that was learnt.
	Window uint16 `json:"window"`
	// Mode says what becomes of packets that this party sends. The zero value is Forward.
	Mode Action `json:"mode,omitempty"`
}

// Pair is a local RTP port, even, with the RTCP port that belongs to it.
type Pair struct {
	Addr netip.Addr `json:"addr"`
	RTP  uint16     `json:"rtp"`
	RTCP uint16     `json:"rtcp"`
}

// IsValid reports whether the pair holds ports.
func (p Pair) IsValid() bool { return p.Addr.IsValid() && p.RTP != 0 }

// Remote is a party's endpoint as its session description gives it. An endpoint that is zero is not known
// or must not be sent to before an address was learnt (an address that cannot be routed in that network).
type Remote struct {
	RTP  netip.AddrPort `json:"rtp"`
	RTCP netip.AddrPort `json:"rtcp"`
	// Signalled is the RTP endpoint as the description said it, routable or not, for display.
	Signalled netip.AddrPort `json:"signalled"`
}

// AcceptSet is the set of source addresses from which a party's media is accepted, from any port.
// The zero value accepts nothing.
type AcceptSet struct {
	Any  bool           `json:"any,omitempty"`
	Nets []netip.Prefix `json:"nets,omitempty"`
}

// Contains reports whether media from addr is accepted.
func (a AcceptSet) Contains(addr netip.Addr) bool {
	if a.Any {
		return true
	}
	addr = addr.Unmap()
	return slices.ContainsFunc(a.Nets, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// Single returns the one address of the set, if it holds exactly one. Only such a set is learnt in the fast path.
func (a AcceptSet) Single() (netip.Addr, bool) {
	if a.Any || len(a.Nets) != 1 || !a.Nets[0].IsSingleIP() {
		return netip.Addr{}, false
	}
	return a.Nets[0].Addr(), true
}

// StreamRef names a stream of a session.
type StreamRef struct {
	Party  PartyID `json:"party"`
	Stream int     `json:"stream"`
}

// Subscription connects a source stream to a sink: what Source's party sends leaves from Sink's local ports
// towards Sink's party. Transforms is the chain between them, empty for a plain relay.
type Subscription struct {
	Source     StreamRef `json:"source"`
	Sink       StreamRef `json:"sink"`
	Transforms []string  `json:"transforms,omitempty"`
}

// Party returns the party with the given id, or nil.
func (s *Session) Party(id PartyID) *Party {
	for i := range s.Parties {
		if s.Parties[i].ID == id {
			return &s.Parties[i]
		}
	}
	return nil
}

// Clone returns a deep copy.
func (s *Session) Clone() *Session {
	c := *s
	c.Parties = slices.Clone(s.Parties)
	for i := range c.Parties {
		p := &c.Parties[i]
		p.Tags = slices.Clone(p.Tags)
		p.Streams = slices.Clone(p.Streams)
		for j := range p.Streams {
			p.Streams[j].Accept.Nets = slices.Clone(p.Streams[j].Accept.Nets)
		}
	}
	c.Subscriptions = slices.Clone(s.Subscriptions)
	for i := range c.Subscriptions {
		c.Subscriptions[i].Transforms = slices.Clone(c.Subscriptions[i].Transforms)
	}
	return &c
}
