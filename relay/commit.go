package relay

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/tandem-relay/tandem/relay/feed"
)

// undoTimeout bounds the work of undoing, which goes on when the caller has given up.
const undoTimeout = 5 * time.Second

// validate checks what the transaction would make of the sessions and leaves only those edits that change something.
// It returns the allocated pairs that no session uses.
func (tx *Tx) validate() ([]Pair, error) {
	for _, c := range tx.puts {
		if c.Kind == KindSession || c.Kind == "" {
			return nil, fmt.Errorf("put change %q: kind %q is not the caller's", c.Key, c.Kind)
		}
	}
	fresh := make(map[Pair]bool, len(tx.allocated))
	for _, pair := range tx.allocated {
		fresh[pair] = true
	}
	for _, e := range tx.order {
		if err := tx.validateEdit(e, fresh); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(slices.Clone(tx.allocated), func(p Pair) bool { return !fresh[p] }), nil
}

// validateEdit checks and compiles one session. The pairs it uses for the first time are taken out of fresh.
func (tx *Tx) validateEdit(e *edit, fresh map[Pair]bool) error {
	if e.base == nil && e.next == nil {
		return fmt.Errorf("end session %s: %w", e.id, ErrNoSession)
	}
	e.generation = 1
	if e.base != nil {
		e.generation = e.base.Generation + 1
		e.dropped = e.base.pairs()
	}
	if e.next == nil {
		return nil
	}
	if e.next.ID != e.id {
		return fmt.Errorf("session %s: %w: its id was changed to %q", e.id, ErrInvalid, e.next.ID)
	}
	// The caller keeps his copy; from here on nobody modifies this one.
	e.next = e.next.Clone()
	e.next.Generation = e.generation
	held := func(p Pair) bool {
		if i := slices.Index(e.dropped, p); i >= 0 {
			e.dropped = slices.Delete(e.dropped, i, i+1)
			return true
		}
		ok := fresh[p]
		delete(fresh, p)
		return ok
	}
	var err error
	if e.records, err = Compile(e.next); err != nil {
		return err
	}
	if err := tx.relay.checkPlaces(e.next, held); err != nil {
		return fmt.Errorf("session %s: %w: %w", e.id, ErrInvalid, err)
	}
	return nil
}

// changes reports whether the edit makes a difference.
func (e *edit) changes() bool {
	if e.base == nil || e.next == nil {
		return true
	}
	same := *e.next
	same.Generation = e.base.Generation
	return !reflect.DeepEqual(&same, e.base)
}

// checkPlaces checks a session against the networks: every local pair belongs to its party's network and is held.
func (r *Relay) checkPlaces(s *Session, held func(Pair) bool) error {
	for i := range s.Parties {
		party := &s.Parties[i]
		if r.network[party.Network] == nil {
			return fmt.Errorf("party %q: network %q: %w", party.ID, party.Network, ErrNoNetwork)
		}
		for j := range party.Streams {
			local := party.Streams[j].Local
			if local == (Pair{}) {
				continue
			}
			here := StreamRef{Party: party.ID, Stream: j}
			pool := r.byAddr[local.Addr]
			switch {
			case pool == nil:
				return fmt.Errorf("%v: local %v: not a media address", here, local.Addr)
			case pool.network != party.Network:
				return fmt.Errorf("%v: local %v: belongs to network %q, not to %q", here, local.Addr, pool.network, party.Network)
			case !held(local):
				return fmt.Errorf("%v: local ports %v and %d: not held by this session", here, local.endpoint(RTP), local.RTCP)
			}
		}
	}
	return nil
}

// pairs lists the local pairs of a session.
func (s *Session) pairs() []Pair {
	var all []Pair
	for i := range s.Parties {
		for j := range s.Parties[i].Streams {
			if local := s.Parties[i].Streams[j].Local; local != (Pair{}) {
				all = append(all, local)
			}
		}
	}
	return all
}

// reserve keeps the sessions for one transaction, if none of them changed since it saw them.
func (r *Relay) reserve(edits []*edit) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range edits {
		now := r.sessions[e.id]
		if _, busy := r.changing[e.id]; busy {
			return fmt.Errorf("commit session %s: %w", e.id, ErrConflict)
		}
		if now == nil && e.base != nil {
			return fmt.Errorf("commit session %s: %w: %w", e.id, ErrConflict, ErrNoSession)
		}
		if now != e.base {
			return fmt.Errorf("commit session %s: %w: generation %d", e.id, ErrConflict, now.Generation)
		}
	}
	for _, e := range edits {
		r.changing[e.id] = struct{}{}
	}
	return nil
}

func (r *Relay) unreserve(edits []*edit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range edits {
		delete(r.changing, e.id)
	}
}

// show makes a session's state visible; nil removes it.
func (r *Relay) show(id SessionID, s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s == nil {
		delete(r.sessions, id)
	} else {
		r.sessions[id] = s
	}
}

// carryOut writes the group and then the records. The sessions are reserved.
func (tx *Tx) carryOut(ctx context.Context, edits []*edit) error {
	r := tx.relay
	group := make([]feed.Change, 0, len(edits)+len(tx.puts))
	var formerPuts []feed.Change
	for _, e := range edits {
		now, err := encodeSession(e.id, e.generation, e.next)
		if err != nil {
			return err
		}
		group = append(group, now)
	}
	if len(edits) > 0 {
		// Only the data plane can refuse once the group is written.
		for _, c := range tx.puts {
			before, err := r.former(c)
			if err != nil {
				return err
			}
			formerPuts = append(formerPuts, before)
		}
	}
	if _, err := r.log.Append(append(group, tx.puts...)...); errors.Is(err, feed.ErrFull) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	} else if err != nil {
		return err
	}
	if err := tx.install(ctx, edits, formerPuts); err != nil {
		return err
	}
	for _, e := range edits {
		r.show(e.id, e.next)
		r.release(e.dropped...)
	}
	return nil
}

// install gives the records to the data plane, and undoes everything when that fails or panics.
func (tx *Tx) install(ctx context.Context, edits []*edit, formerPuts []feed.Change) (err error) {
	applied := 0
	defer func() {
		if applied < len(edits) {
			err = errors.Join(err, tx.undo(ctx, edits, applied, formerPuts))
		}
	}()
	for _, e := range edits {
		if err := tx.relay.plane.Apply(ctx, e.id, e.generation, e.records); err != nil {
			return fmt.Errorf("install session %s: %w", e.id, err)
		}
		applied++
	}
	return nil
}

// before is the state to go back to, under the generation that undoing gives it.
func (e *edit) before() *Session {
	if e.base == nil {
		return nil
	}
	s := *e.base
	s.Generation = e.generation + 1
	return &s
}

// former is the change that undoes a change of a caller's own.
func (r *Relay) former(c feed.Change) (feed.Change, error) {
	before, ok, err := r.log.Latest(c.Kind, c.Key)
	if err != nil {
		return feed.Change{}, fmt.Errorf("read former %s %s: %w", c.Kind, c.Key, err)
	}
	if !ok {
		before = feed.Change{Kind: c.Kind, Key: c.Key}
	}
	before.Version = c.Version + 1
	return before, nil
}

// undo takes the log and the data plane back to where they were before the edits, the first applied ones of which the
// data plane has taken. Generations rise all the same, so that nothing takes the former state for a stale one.
func (tx *Tx) undo(ctx context.Context, edits []*edit, applied int, formerPuts []feed.Change) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	r := tx.relay
	var errs []error
	group := make([]feed.Change, 0, len(edits)+len(formerPuts))
	for _, e := range edits {
		before, err := encodeSession(e.id, e.generation+1, e.before())
		if err != nil {
			errs = append(errs, fmt.Errorf("undo: %w", err))
			continue
		}
		group = append(group, before)
	}
	if _, err := r.log.Append(append(group, formerPuts...)...); err != nil {
		errs = append(errs, fmt.Errorf("undo: %w", err))
	}
	for i, e := range edits {
		before := e.before()
		if before != nil {
			r.show(e.id, before)
		}
		if err := r.apply(ctx, e.id, e.generation+1, before); err != nil {
			errs = append(errs, fmt.Errorf("undo: %w", err))
			if i < applied {
				// The plane goes on with the new records: nobody else may be given their ports.
				tx.keep(e.next)
			}
		}
	}
	return errors.Join(errs...)
}

// keep lets the pairs that a session would have used stay taken until the next start.
func (tx *Tx) keep(s *Session) {
	if s == nil {
		return
	}
	held := s.pairs()
	tx.allocated = slices.DeleteFunc(tx.allocated, func(p Pair) bool { return slices.Contains(held, p) })
}
