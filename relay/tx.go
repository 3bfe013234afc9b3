package relay

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-relay/tandem/relay/feed"
)

// Tx is a transaction: changes to sessions, and of the caller's own, that happen together or not at all. It is used
// by one goroutine. End it with Commit or Rollback; the pattern is
//
//	tx := relay.Begin()
//	defer tx.Rollback()
//	...
//	return tx.Commit(ctx)
type Tx struct {
	relay     *Relay
	edits     map[SessionID]*edit
	order     []*edit // in the order of the first touch
	allocated []Pair
	puts      []feed.Change
	finished  bool
}

// edit is what a transaction does to one session.
type edit struct {
	id      SessionID
	created bool
	base    *Session // committed state at the first touch; nil for a new session
	next    *Session // the caller's copy, then the one to be committed; nil when the session ends

	generation uint32
	records    []Record // of next
	dropped    []Pair   // those of base that next no longer has
}

// Create makes a new, empty session with a random id. The caller edits it freely until Commit.
func (tx *Tx) Create() *Session {
	s := &Session{ID: SessionID(strings.ToLower(rand.Text()))}
	tx.touch(&edit{id: s.ID, created: true, next: s})
	return s
}

// Edit returns a copy of a session to be edited until Commit; the same one when called again. It returns ErrNoSession.
// The relay sets the generation by itself; the id must stay.
func (tx *Tx) Edit(id SessionID) (*Session, error) {
	if e := tx.edits[id]; e != nil {
		if e.next == nil {
			return nil, fmt.Errorf("edit session %s: %w", id, ErrNoSession)
		}
		return e.next, nil
	}
	base, ok := tx.relay.Session(id)
	if !ok {
		return nil, fmt.Errorf("edit session %s: %w", id, ErrNoSession)
	}
	e := &edit{id: id, base: base, next: base.Clone()}
	tx.touch(e)
	return e.next, nil
}

// Allocate takes a port pair in the named network. What no session uses after Commit is free again at once. It returns
// ErrNoNetwork or ports.ErrExhausted.
func (tx *Tx) Allocate(network string) (Pair, error) {
	if tx.finished {
		return Pair{}, ErrFinished
	}
	pair, err := tx.relay.allocate(network)
	if err == nil {
		tx.allocated = append(tx.allocated, pair)
	}
	return pair, err
}

// End ends a session. Commit returns ErrNoSession if there is none of this id.
func (tx *Tx) End(id SessionID) {
	e := tx.edits[id]
	if e == nil {
		e = &edit{id: id}
		e.base, _ = tx.relay.Session(id)
		tx.touch(e)
	}
	e.next = nil
}

// Put adds a change of the caller's own to the group. Its kind must not be KindSession. If the data plane refuses the
// sessions, the latest change of the same thing is put again.
func (tx *Tx) Put(c feed.Change) { tx.puts = append(tx.puts, c) }

func (tx *Tx) touch(e *edit) {
	tx.edits[e.id] = e
	tx.order = append(tx.order, e)
}

// Rollback gives up the transaction and frees what it allocated. After Commit it does nothing.
func (tx *Tx) Rollback() {
	if !tx.finished {
		tx.finished = true
		tx.relay.giveBack(tx.allocated...)
	}
}

// Commit validates and compiles the sessions, writes the group to the log and then gives the records to the data plane.
// On any error nothing has changed: what the log and the data plane took already is undone by a further group and the
// former records. It returns ErrConflict, ErrInvalid, ErrNoSession, ErrFinished, ErrFull, or what log and plane
// said. The context bounds only the wait for the data plane.
func (tx *Tx) Commit(ctx context.Context) error {
	if tx.finished {
		return ErrFinished
	}
	defer tx.Rollback()
	if err := ctx.Err(); err != nil {
		return err
	}
	// Sessions that were created and ended here were never there.
	tx.order = slices.DeleteFunc(tx.order, func(e *edit) bool { return e.created && e.next == nil })
	if len(tx.order)+len(tx.puts) == 0 {
		return nil
	}
	unused, err := tx.validate()
	if err != nil {
		return err
	}
	r := tx.relay
	if err := r.reserve(tx.order); err != nil {
		return err
	}
	defer r.unreserve(tx.order)
	edits := slices.DeleteFunc(slices.Clone(tx.order), func(e *edit) bool { return !e.changes() })
	if len(edits)+len(tx.puts) == 0 {
		return nil
	}
	if err := tx.carryOut(ctx, edits); err != nil {
		return err
	}
	tx.allocated = unused
	return nil
}
