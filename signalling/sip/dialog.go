package sip

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-relay/tandem/relay"
)

// side tells the two legs of a call apart.
type side uint8

const (
	caller side = iota // leg A: we are the UAS of its first INVITE
	callee             // leg B: we are the UAC
)

func (s side) other() side { return 1 - s }

// parties are the ids of the two legs in the relay session.
var parties = [2]relay.PartyID{"a", "b"}

// State is where a call stands.
type State string

// The states of a call.
const (
	StateCalling    State = "calling"    // the INVITE went out
	StateRinging    State = "ringing"    // a provisional response with a To tag came
	StateChallenged State = "challenged" // 401 or 407 went back; the INVITE is expected again
	StateAnswered   State = "answered"   // 2xx went back, its ACK is expected
	StateTalking    State = "established"
	StateCancelled  State = "cancelled" // given up; leg B has yet to say so
	StateEnding     State = "ending"    // BYE went by
)

// Record is everything about a call that outlives the process: plain data, journalled and restored as it stands.
type Record struct {
	ID       string          `json:"id"`
	State    State           `json:"state"`
	Session  relay.SessionID `json:"session,omitempty"`
	Started  time.Time       `json:"started"`
	Answered time.Time       `json:"answered,omitzero"`
	// URI is the Request-URI of the first INVITE.
	URI  string `json:"uri"`
	Legs [2]Leg `json:"legs"`
	// Forks are the dialogs with those who answered the INVITE; after the 2xx only the one that it made.
	Forks []Fork `json:"forks,omitempty"`
	// Setup is what the first INVITE's transactions need; nil once the call is established.
	Setup *Setup `json:"setup,omitempty"`
}

// Leg is our side of the dialogs with one party.
type Leg struct {
	Token    string         `json:"token"`
	Trunk    string         `json:"trunk"`
	Listener netip.AddrPort `json:"listener"`
	// Source is from where the party's messages come.
	Source netip.AddrPort `json:"source"`
	CallID string         `json:"call_id"`
	// Tag is the caller's tag: of the party on leg A, our own on leg B.
	Tag string `json:"tag"`
	// From and To are the values of the first INVITE, as received on leg A, or sent on leg B.
	From string `json:"from"`
	To   string `json:"to"`
	// Target and Routes lead to the caller (leg A only; those to the callee stand in its fork).
	Target string   `json:"target,omitempty"`
	Routes []string `json:"routes,omitempty"`
}

// Fork is a pair of dialogs, one on each leg, that a To tag of leg B made. CSeq numbers are per direction: what a party sends
// leaves on the other leg with the same number plus that leg's offset, which counts the requests of our own.
type Fork struct {
	Tag    string   `json:"tag"`
	Target string   `json:"target,omitempty"`
	Routes []string `json:"routes,omitempty"`
	// Received is the highest number that the party of a leg used, Sent the highest that was sent to it, Offset the
	// difference between what goes out to it and what came in on the other leg.
	Received [2]uint32 `json:"received"`
	Sent     [2]uint32 `json:"sent"`
	Offset   [2]uint32 `json:"offset"`
	// Gone says that the party ended the early dialog.
	Gone bool `json:"gone,omitempty"`
}

// Setup is the state of the first INVITE between its arrival and its ACK.
type Setup struct {
	// Invite is what the responses to the INVITE repeat of it (message.head); From is its source.
	Invite []byte         `json:"invite"`
	From   netip.AddrPort `json:"from"`
	// Branch and URI are those of the INVITE on leg B, To is where it went.
	Branch string         `json:"branch"`
	URI    string         `json:"uri"`
	To     netip.AddrPort `json:"to"`
	// In and Out are its CSeq numbers on the legs; Offered says that it carried an offer.
	In      uint32 `json:"in"`
	Out     uint32 `json:"out"`
	Offered bool   `json:"offered"`
	// Answer is the 2xx that waits for its ACK, without credentials; empty if it is very long.
	Answer []byte `json:"answer,omitempty"`
}

// fork returns the fork of a tag, or nil.
func (r *Record) fork(tag string) *Fork {
	for i := range r.Forks {
		if r.Forks[i].Tag == tag {
			return &r.Forks[i]
		}
	}
	return nil
}

// leg is a Leg with what was derived from it.
type leg struct {
	*Leg
	call  *call
	side  side
	trunk *trunk
	ln    *listener
}

// contact is the URI that leads requests to the leg.
func (l *leg) contact() string { return "sip:" + l.Token + "@" + l.ln.shown }

// way returns Request-URI, Route elements and next hop of a request to the party in a dialog.
func (l *leg) way(f *Fork) (uri string, routes []string, to netip.AddrPort) {
	target, set := l.Target, l.Routes
	if l.side == callee {
		target, set = f.Target, f.Routes
	}
	if target == "" { // a party without Contact: what it was called by
		target = "sip:" + l.Source.String()
	}
	uri, routes, next := routed(target, set)
	return uri, routes, l.trunk.hop(next, l.Source)
}

// matches reports whether a request of the leg's party belongs to the fork.
func (l *leg) matches(m *message, f *Fork) bool {
	mine, theirs := m.fromTag, m.toTag
	if l.side == callee {
		mine, theirs = theirs, mine
	}
	return m.callID == l.CallID && mine == l.Tag && theirs == f.Tag
}

// ownRequest builds a request of our own in a dialog, without body, and counts its number.
func (l *leg) ownRequest(f *Fork, method, branch, extra string) (raw []byte, to netip.AddrPort) {
	step := 1 + l.call.jump
	f.Sent[l.side] += step
	f.Offset[l.side] += step
	uri, routes, to := l.way(f)
	from, toValue := l.From, withTag(l.To, f.Tag)
	if l.side == caller {
		from, toValue = toValue, from
	}
	b := append(append(append([]byte(method+" "), uri...), " SIP/2.0\r\n"...), l.ln.viaLine(branch)...)
	b = appendRoutes(b, routes)
	return appendCore(b, from, toValue, l.CallID, f.Sent[l.side], method, extra), to
}

// withTag gives a From or To value another tag, or its first; everything else stays as written.
func withTag(value, tag string) string {
	if tag == "" {
		return value
	}
	at := len(value) - len(parseAddress(value).params)
	for at < len(value) {
		one, rest := nextParameter(value[at:])
		end := len(value) - len(rest)
		if key, _, _ := strings.Cut(one, "="); strings.EqualFold(strings.TrimSpace(key), "tag") {
			return value[:end-len(one)] + "tag=" + tag + value[end:]
		}
		at = end
	}
	return value + ";tag=" + tag
}

// appendCore ends a request of our own: the fields that every request has, and no body.
func appendCore(b []byte, from, to, callID string, cseq uint32, method, extra string) []byte {
	b = append(append(append(b, "Max-Forwards: 70\r\nFrom: "...), from...), "\r\nTo: "...)
	b = append(append(append(b, to...), "\r\nCall-ID: "...), callID...)
	b = strconv.AppendUint(append(b, "\r\nCSeq: "...), uint64(cseq), 10)
	b = append(append(append(b, ' '), method...), "\r\n"...)
	return append(append(b, extra...), "Content-Length: 0\r\n\r\n"...)
}
