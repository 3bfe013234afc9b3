package sip

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
)

// KindCall is the kind of the changes that tell of calls. Their key is the call's id, their value the JSON of its Record.
// Values hold who called whom and how to act in their dialogs: whoever passes changes on to others filters them first.
// Authorization and Proxy-Authorization are never in them; nothing needs them after a restart.
const KindCall = "call"

// call is a Record at work.
type call struct {
	Record
	sh      *shard
	home    uint8
	sibling *call // the next one with the same Call-ID
	legs    [2]leg
	version uint64
	// initial is the exchange of the first INVITE; nil while challenged and after its ACK.
	initial   *exchange
	exchanges []*exchange // in progress, initial included
	// deadline ends what would wait for ever: a challenged call, a cancelled one, one that ends.
	deadline timer
	lastSeq  uint32 // of the INVITE that was challenged
	byes     int    // of our own, under way
	jump     uint32 // is added to the next CSeq number of our own, after a restart; else 0
	ending   string // the reason of a hang-up that waits for the deadline
	dead     bool   // destroyed, though its session may not be released yet
	waits    bool   // for its release
	gone     bool   // out of every table
}

// newCall makes a call for an INVITE.
func (sh *shard) newCall(m *message, home uint8) *call {
	out := m.trunk.route
	c := &call{sh: sh, home: home}
	id := strings.Clone(m.callID)
	c.Record = Record{
		ID: newToken(home), State: StateCalling, Started: sh.now.UTC(), URI: strings.Clone(m.uri),
		Legs: [2]Leg{
			{Token: newToken(home), Trunk: m.trunk.Name, Listener: m.ln.addr, Source: m.from, CallID: id},
			{Token: newToken(home), Trunk: out.Name, Listener: out.ln.addr, Source: out.Peer, CallID: id},
		},
	}
	c.bind([2]*trunk{m.trunk, out}, [2]*listener{m.ln, out.ln})
	return c
}

// bind ties the record's legs to trunks and listeners and makes the call known.
func (c *call) bind(trunks [2]*trunk, listeners [2]*listener) {
	for i := range c.legs {
		c.legs[i] = leg{Leg: &c.Legs[i], call: c, side: side(i), trunk: trunks[i], ln: listeners[i]}
		c.sh.legs[c.Legs[i].Token] = &c.legs[i]
	}
	c.sh.calls[c.ID] = c
	id := c.Legs[caller].CallID
	c.sibling, c.sh.sameID[id] = c.sh.sameID[id], c
	c.sh.srv.calls.Add(1)
}

// learn takes identifiers and the way to the caller from an INVITE that begins a dialog.
func (c *call) learn(m *message) {
	a, b := &c.Legs[caller], &c.Legs[callee]
	a.Tag = strings.Clone(m.fromTag)
	a.From, a.To = strings.Clone(m.text(fieldFrom)), strings.Clone(m.text(fieldTo))
	a.Target, a.Routes = strings.Clone(m.contact), m.routeSet(maxRoutes)
	a.Source = m.from
	b.Tag, b.From, b.To = a.Tag, a.From, a.To
}

// maxRoutes bounds a route set, maxForks the answers to one INVITE, maxForkText what is kept of all of them, in bytes.
const (
	maxRoutes   = 16
	maxForks    = 16
	maxForkText = 16 << 10
)

// change is the call as the journal keeps it.
func (c *call) change() (feed.Change, error) {
	c.version++
	value, err := json.Marshal(&c.Record)
	return feed.Change{Kind: KindCall, Key: c.ID, Version: c.version, Value: value}, err
}

// commit runs edit, if any, within a relay transaction that also takes the call's record.
func (c *call) commit(edit func(tx *relay.Tx) error) error {
	tx := c.sh.srv.relay.Begin()
	defer tx.Rollback()
	if edit == nil {
		change, err := c.change()
		if err != nil {
			return err
		}
		tx.Put(change)
		return notCommitted(tx.Commit(context.Background())) // nothing in it for the data plane to wait for
	}
	if err := edit(tx); err != nil {
		return err
	}
	change, err := c.change()
	if err != nil {
		return err
	}
	tx.Put(change)
	return c.sh.srv.commit(tx)
}

// commit commits within the time that a shard may be held up.
func (s *Server) commit(tx *relay.Tx) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Timers.Commit)
	defer cancel()
	return notCommitted(tx.Commit(ctx))
}

// errCommit: journal or data plane did not take a change, for now.
var errCommit = errors.New("commit")

// notCommitted marks an error of Commit as one.
func notCommitted(err error) error {
	if err == nil || errors.Is(err, relay.ErrInvalid) {
		return err
	}
	return fmt.Errorf("%w: %w", errCommit, err)
}

// note writes the record without a change of media. A journal that refuses is reported; the call goes on.
func (c *call) note() {
	if err := c.commit(nil); err != nil {
		c.sh.srv.log.Error("call record not written", "call", c.ID, "call_id", c.Legs[caller].CallID, "err", err)
	}
}

// unchain takes the call out of those with its Call-ID.
func (c *call) unchain() {
	id := c.Legs[caller].CallID
	first := c.sh.sameID[id]
	if first == c {
		if c.sibling == nil {
			delete(c.sh.sameID, id)
		} else {
			c.sh.sameID[id] = c.sibling
		}
	}
	for e := first; e != nil; e = e.sibling {
		if e.sibling == c {
			e.sibling = c.sibling
		}
	}
	c.sibling = nil
}

// fail ends a call whose handling panicked: everybody is told, and everything goes.
func (c *call) fail() {
	if c.dead {
		c.destroy()
		return
	}
	c.sh.srv.counts.add(cCallsFailed)
	c.hangup(500, reasonHeader(500, "Server Internal Error"))
}

// expire is the deadline of a call that waits for somebody.
func (c *call) expire(*timer) {
	c.sh.current.call = c
	if reason := c.ending; reason != "" {
		c.ending = ""
		if c.State == StateEnding {
			c.State = StateTalking
		}
		c.hangup(500, reason)
		return
	}
	c.destroy()
}

// hangup ends a call by our own decision: a call in set-up gets the status and CANCEL, an answered one BYE on both legs.
func (c *call) hangup(status int, reason string) {
	switch {
	case c.dead, c.State == StateEnding:
		return
	case c.State == StateCancelled && c.initial != nil:
		return
	case c.State == StateChallenged, c.State == StateCancelled:
		c.destroy()
	case c.initial != nil && !c.initial.won:
		c.abandon(status, reason, nil)
	case c.State != StateAnswered && c.State != StateTalking || len(c.Forks) == 0:
		c.destroy()
	default:
		c.byeBoth(reason)
	}
}

// reasonHeader is a Reason header line (RFC 3326).
func reasonHeader(cause int, text string) string {
	return "Reason: SIP;cause=" + strconv.Itoa(cause) + ";text=\"" + text + "\"\r\n"
}

// challengeKey finds the call to which an INVITE with credentials belongs.
func (c *call) challengeKey() string {
	l := &c.Legs[caller]
	return challengeKey(l.Trunk, l.CallID, l.Tag, c.URI)
}

func challengeKey(trunk, callID, tag, uri string) string {
	return trunk + "\n" + callID + "\n" + tag + "\n" + uri
}

// Call is a call as the status shows it.
type Call struct {
	ID      string
	State   State
	Session relay.SessionID
	// CallIDs are the Call-ID of each leg, equal ones once.
	CallIDs []string
	// From and To are the URIs of these headers as the call came in.
	From, To string
	// TrunkIn is where the call came from, TrunkOut where it went.
	TrunkIn, TrunkOut string
	StartedAt         time.Time
	AnsweredAt        time.Time // zero: not answered
}

// Calls returns all calls, the oldest first.
func (s *Server) Calls() []Call {
	var all []Call
	for _, sh := range s.shards {
		sh.mu.Lock()
		for _, c := range sh.calls {
			all = append(all, c.show())
		}
		sh.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b Call) int {
		return cmp.Or(a.StartedAt.Compare(b.StartedAt), cmp.Compare(a.ID, b.ID))
	})
	return all
}

func (c *call) show() Call {
	a, b := &c.Legs[caller], &c.Legs[callee]
	ids := []string{a.CallID}
	if b.CallID != a.CallID {
		ids = append(ids, b.CallID)
	}
	return Call{
		ID: c.ID, State: c.State, Session: c.Session, CallIDs: ids,
		From: parseAddress(a.From).uri, To: parseAddress(a.To).uri,
		TrunkIn: a.Trunk, TrunkOut: b.Trunk, StartedAt: c.Started, AnsweredAt: c.Answered,
	}
}

// Hangup ends a call: BYE on both legs, or CANCEL and 480 before the answer. It reports whether there is such a call. The
// reason goes into a Reason header (RFC 3326).
func (s *Server) Hangup(id, reason string) bool {
	home, ok := tokenHome(id)
	if !ok {
		return false
	}
	sh, found := s.shardOf(home), false
	sh.do(func() {
		c := sh.calls[id]
		if found = c != nil; found {
			sh.current.call = c
			c.hangup(480, reasonHeader(480, quotable(reason)))
		}
	})
	return found
}

// quotable makes text fit for a quoted string in a header.
func quotable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, text)
}
