package relay_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
	"github.com/tandem-relay/tandem/relay/relaytest"
)

// world is a relay with everything around it, and what should be in it.
type world struct {
	r        *relay.Relay
	plane    *relaytest.Plane
	store    *relaytest.Store
	sessions map[relay.SessionID]*relay.Session // generation 0
	calls    map[string]string
}

// restart makes the next process out of what the plane and the store hold.
func (w *world) restart(t *testing.T, plane *relaytest.Plane, store *relaytest.Store) {
	t.Helper()
	position := uint64(0)
	if groups := store.Groups(); len(groups) > 0 {
		position = groups[len(groups)-1].Position
	}
	r, err := relay.New(relay.Config{
		Networks: relaytest.Networks(), Log: feed.New(1, position, store), Plane: plane, Quarantine: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := relay.DecodeSessions(store.Changes())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Restore(t.Context(), sessions); err != nil {
		t.Fatal(err)
	}
	w.r, w.plane, w.store = r, plane, store
}

func (w *world) check(t *testing.T) {
	t.Helper()
	consistent(t, w.r, w.plane, w.store)
	if w.r.Len() != len(w.sessions) {
		t.Errorf("%d sessions, want %d", w.r.Len(), len(w.sessions))
	}
	for id, want := range w.sessions {
		got, ok := w.r.Session(id)
		if !ok {
			t.Errorf("session %s is gone", id)
			continue
		}
		got = got.Clone()
		got.Generation = 0
		if !reflect.DeepEqual(got, want) {
			t.Errorf("session is %+v, want %+v", got, want)
		}
	}
	if got := known(w.store, "call"); !reflect.DeepEqual(got, w.calls) {
		t.Errorf("calls are %v, want %v", got, w.calls)
	}
}

// fate is what happens to a transaction.
type fate int

const (
	succeeds fate = iota
	planeRefuses
	logRefuses
	crashes // after the log has it, before or while the plane gets it
	abandoned
)

var errFate = errors.New("fate")

// Random transactions on several sessions, of which some are refused, abandoned or cut short by a crash: always all of
// a transaction is there or nothing, in the relay, the plane, the log and the port pools alike.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(25) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		w := &world{sessions: map[relay.SessionID]*relay.Session{}, calls: map[string]string{}}
		w.restart(t, relaytest.New(), new(relaytest.Store))
		for n := range 120 {
			w.transaction(t, rnd, fmt.Sprint(n))
			w.check(t)
			if rnd.IntN(20) == 0 {
				w.restart(t, w.plane.Clone(), w.store.Clone())
				w.check(t)
			}
			if t.Failed() {
				t.Fatalf("seed %d, transaction %d", seed, n)
			}
		}
	}
}

// transaction runs one transaction to its fate.
func (w *world) transaction(t *testing.T, rnd *rand.Rand, value string) {
	t.Helper()
	tx := w.r.Begin()
	defer tx.Rollback()
	after := map[relay.SessionID]*relay.Session{}
	for range 1 + rnd.IntN(3) {
		id, s := w.operation(t, rnd, tx)
		after[id] = s
	}
	puts := map[string]string{}
	for range rnd.IntN(3) {
		key := fmt.Sprint(rnd.IntN(4))
		c := feed.Change{Kind: "call", Key: key, Version: 1}
		if rnd.IntN(3) > 0 {
			c.Value = []byte(value)
		}
		puts[key] = string(c.Value)
		tx.Put(c)
	}
	f := fate(rnd.IntN(5))
	at, count := rnd.IntN(3), 0
	var plane *relaytest.Plane
	var store *relaytest.Store
	w.plane.Hook(func(context.Context, relaytest.Call) error {
		count++
		if count != at+1 {
			return nil
		}
		switch f {
		case planeRefuses:
			return errFate
		case crashes:
			plane, store = w.plane.Clone(), w.store.Clone()
		}
		return nil
	})
	if f == abandoned {
		return
	}
	if f == logRefuses {
		w.store.Fail(errFate)
	}
	err := tx.Commit(t.Context())
	w.store.Fail(nil)
	w.plane.Hook(nil)
	if err != nil {
		if !errors.Is(err, errFate) || f == succeeds || f == crashes {
			t.Errorf("fate %d: %v", f, err)
		}
		return
	}
	for id, s := range after {
		if s == nil {
			delete(w.sessions, id)
			continue
		}
		w.sessions[id] = s.Clone()
		w.sessions[id].Generation = 0
	}
	for key, v := range puts {
		if v == "" {
			delete(w.calls, key)
		} else {
			w.calls[key] = v
		}
	}
	if plane != nil {
		w.restart(t, plane, store)
	}
}

// operation does one thing to one session and returns what it should be afterwards; nil: ended.
func (w *world) operation(t *testing.T, rnd *rand.Rand, tx *relay.Tx) (relay.SessionID, *relay.Session) {
	t.Helper()
	if len(w.sessions) < 3 || rnd.IntN(3) == 0 {
		s := tx.Create()
		call(t, tx, s)
		if rnd.IntN(4) == 0 {
			tx.End(s.ID)
			return s.ID, nil
		}
		return s.ID, s
	}
	all := w.r.Sessions()
	id := all[rnd.IntN(len(all))].ID
	s, err := tx.Edit(id)
	if errors.Is(err, relay.ErrNoSession) {
		return id, nil // ended in this transaction
	}
	if err != nil {
		t.Fatal(err)
	}
	party := &s.Parties[rnd.IntN(2)]
	stream := &party.Streams[0]
	switch rnd.IntN(5) {
	case 0:
		tx.End(id)
		return id, nil
	case 1:
		stream.Mode = relay.Action(rnd.IntN(5))
	case 2:
		stream.Window++
	case 3:
		stream.Local = relay.Pair{}
	case 4:
		if stream.Local, err = tx.Allocate(party.Network); err != nil {
			t.Fatal(err)
		}
	}
	return id, s
}
