package relay_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
	"github.com/tandem-relay/tandem/relay/journal"
	"github.com/tandem-relay/tandem/relay/relaytest"
)

var errPlane = errors.New("plane is full")

// known tells which things the log knows, with their values.
func known(store *relaytest.Store, kind string) map[string]string {
	m := map[string]string{}
	for _, c := range store.Changes() {
		if c.Kind == kind {
			m[c.Key] = string(c.Value)
		}
	}
	return m
}

// A call whose records are refused has never been: no session, no port, no record, nothing in the log's state.
func TestHalfFailedCallLeavesNothing(t *testing.T) {
	r, plane, store := relaytest.NewRelay(t)
	plane.FailNext(1, errPlane)
	tx := r.Begin()
	s := tx.Create()
	call(t, tx, s)
	tx.Put(feed.Change{Kind: "call", Key: "c", Version: 1, Value: []byte("new")})
	if err := tx.Commit(t.Context()); !errors.Is(err, errPlane) {
		t.Fatalf("error %v", err)
	}
	wantPorts(t, r, 0, 0)
	if r.Len() != 0 || len(plane.Held()) != 0 || len(store.Changes()) != 0 {
		t.Errorf("left: %v, %v, %v", r.Sessions(), plane.Held(), store.Changes())
	}
	groups := store.Groups()
	if len(groups) != 2 {
		t.Fatalf("%d groups, want the call and what undoes it", len(groups))
	}
	for i, want := range []feed.Change{
		{Kind: "session", Key: string(s.ID), Version: 2}, {Kind: "call", Key: "c", Version: 2},
	} {
		if got := groups[1].Changes[i]; !reflect.DeepEqual(got, want) {
			t.Errorf("undone by %+v, want %+v", got, want)
		}
	}
	calls := plane.Calls()
	if last := calls[len(calls)-1]; last.Generation != 2 || len(last.Records) != 0 {
		t.Errorf("last call of Apply is %+v", last)
	}
}

// When a change of a call in progress is refused, the call goes on as it was.
func TestRefusedChangeKeepsCall(t *testing.T) {
	change := func(t *testing.T, tx *relay.Tx, id relay.SessionID) {
		t.Helper()
		s, err := tx.Edit(id)
		if err != nil {
			t.Fatal(err)
		}
		if s.Parties[0].Streams[0].Local, err = tx.Allocate("inside"); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		do   func(*testing.T, *relay.Tx, relay.SessionID)
	}{
		{"edit", change},
		{"end", func(_ *testing.T, tx *relay.Tx, id relay.SessionID) { tx.End(id) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, plane, store := relaytest.NewRelay(t)
			s := established(t, r)
			tx := r.Begin()
			tx.Put(feed.Change{Kind: "call", Key: "c", Version: 7, Value: []byte("old")})
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			records, _ := plane.Records(s.ID)

			plane.FailNext(1, errPlane)
			tx = r.Begin()
			tt.do(t, tx, s.ID)
			tx.Put(feed.Change{Kind: "call", Key: "c", Version: 8, Value: []byte("new")})
			tx.Put(feed.Change{Kind: "call", Key: "d", Version: 1, Value: []byte("new")})
			if err := tx.Commit(t.Context()); !errors.Is(err, errPlane) {
				t.Fatalf("error %v", err)
			}
			wantPorts(t, r, 2, 0)
			now, ok := r.Session(s.ID)
			if !ok || now.Generation != 3 {
				t.Fatalf("session is %+v, want generation 3", now)
			}
			same := now.Clone()
			same.Generation = s.Generation
			if !reflect.DeepEqual(same, s) {
				t.Errorf("session is %+v, want %+v", now, s)
			}
			if got, generation := plane.Records(s.ID); generation != 3 || !reflect.DeepEqual(got, records) {
				t.Errorf("plane holds generation %d: %+v, want 3: %+v", generation, got, records)
			}
			if got := known(store, "call"); !reflect.DeepEqual(got, map[string]string{"c": "old"}) {
				t.Errorf("log knows the calls %v, want c as of old", got)
			}
			if decoded, err := relay.DecodeSessions(store.Changes()); err != nil || len(decoded) != 1 || !reflect.DeepEqual(decoded[0], now) {
				t.Errorf("log knows the sessions %+v, %v; want %+v", decoded, err, now)
			}

			// And the same is possible once the plane takes it.
			tx = r.Begin()
			tt.do(t, tx, s.ID)
			if err := tx.Commit(t.Context()); err != nil {
				t.Errorf("second attempt: %v", err)
			}
			if len(plane.Problems()) != 0 {
				t.Error(plane.Problems())
			}
		})
	}
}

// With several sessions in one transaction the refusal of one undoes all, whichever it is.
func TestGroupIsUndoneTogether(t *testing.T) {
	for failing := range 3 {
		r, plane, store := relaytest.NewRelay(t)
		edited, ended := established(t, r), established(t, r)
		count := 0
		plane.Hook(func(context.Context, relaytest.Call) error {
			if count++; count == failing+1 {
				return errPlane
			}
			return nil
		})
		tx := r.Begin()
		s, err := tx.Edit(edited.ID)
		if err != nil {
			t.Fatal(err)
		}
		s.Parties[0].Streams[0].Mode = relay.Hold
		tx.End(ended.ID)
		call(t, tx, tx.Create())
		if err := tx.Commit(t.Context()); !errors.Is(err, errPlane) {
			t.Fatalf("error %v", err)
		}
		wantPorts(t, r, 4, 0)
		consistent(t, r, plane, store)
		if r.Len() != 2 {
			t.Errorf("%d sessions, want 2", r.Len())
		}
		if now, _ := r.Session(edited.ID); now.Parties[0].Streams[0].Mode != 0 {
			t.Error("edit was not undone")
		}
	}
}

// consistent checks that relay, data plane and log tell the same.
func consistent(t *testing.T, r *relay.Relay, plane *relaytest.Plane, store *relaytest.Store) {
	t.Helper()
	sessions := r.Sessions()
	decoded, err := relay.DecodeSessions(store.Changes())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(sessions, decoded, func(a, b *relay.Session) bool { return reflect.DeepEqual(a, b) }) {
		t.Errorf("relay has %+v, log %+v", sessions, decoded)
	}
	held := plane.Held()
	pairs := 0
	for _, s := range sessions {
		records, err := relay.Compile(s)
		if err != nil {
			t.Fatal(err)
		}
		pairs += len(records) / 2
		c, ok := held[s.ID]
		if ok != (len(records) > 0) || ok && (c.Generation != s.Generation || !reflect.DeepEqual(c.Records, records)) {
			t.Errorf("plane holds %+v, want generation %d: %+v", c, s.Generation, records)
		}
		delete(held, s.ID)
	}
	if len(held) > 0 {
		t.Errorf("plane holds %v, which the relay does not know", held)
	}
	if taken, _ := used(r); taken != pairs {
		t.Errorf("%d pairs are taken, sessions have %d", taken, pairs)
	}
	if p := plane.Problems(); len(p) > 0 {
		t.Error(p)
	}
}

// When undoing fails as well, the error says so, and ports on which the plane may still forward go to nobody else.
func TestUndoFails(t *testing.T) {
	r, plane, _ := relaytest.NewRelay(t)
	count := 0
	plane.Hook(func(context.Context, relaytest.Call) error {
		if count++; count > 1 {
			return errPlane
		}
		return nil
	})
	tx := r.Begin()
	taken, refused := tx.Create(), tx.Create()
	call(t, tx, taken)
	call(t, tx, refused)
	err := tx.Commit(t.Context())
	if !isError(err, errPlane, "undo: install session "+string(taken.ID)) {
		t.Errorf("error %v", err)
	}
	wantPorts(t, r, 2, 0)
	if r.Len() != 0 {
		t.Errorf("%d sessions", r.Len())
	}
}

func TestLogFails(t *testing.T) {
	r, plane, store := relaytest.NewRelay(t)
	s := established(t, r)
	calls := len(plane.Calls())
	full := errors.New("no space")
	store.Fail(full)
	tx := r.Begin()
	tx.End(s.ID)
	call(t, tx, tx.Create())
	if err := tx.Commit(t.Context()); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
	if len(plane.Calls()) != calls {
		t.Error("records were changed without the log")
	}
	store.Fail(nil)
	wantPorts(t, r, 2, 0)
	consistent(t, r, plane, store)
}

// Callers tell a relay that is full from one that is broken, whichever part is full; ending goes on.
func TestFull(t *testing.T) {
	t.Run("log", func(t *testing.T) {
		r, plane, store := relaytest.NewRelay(t)
		store.Fail(fmt.Errorf("write: %w", journal.ErrFull))
		tx := r.Begin()
		call(t, tx, tx.Create())
		if err := tx.Commit(t.Context()); !isError(err, relay.ErrFull, "journal is full") {
			t.Errorf("error %v", err)
		}
		store.Fail(errors.New("broken"))
		tx = r.Begin()
		call(t, tx, tx.Create())
		if err := tx.Commit(t.Context()); err == nil || errors.Is(err, relay.ErrFull) {
			t.Errorf("error %v", err)
		}
		store.Fail(nil)
		wantPorts(t, r, 0, 0)
		consistent(t, r, plane, store)
	})
	t.Run("plane", func(t *testing.T) {
		r, plane, store := relaytest.NewRelay(t)
		plane.FailNext(1, fmt.Errorf("%w: table", relay.ErrFull))
		tx := r.Begin()
		call(t, tx, tx.Create())
		if err := tx.Commit(t.Context()); !errors.Is(err, relay.ErrFull) {
			t.Errorf("error %v", err)
		}
		wantPorts(t, r, 0, 0)
		consistent(t, r, plane, store)
	})
}

// The caller's context may be the reason for the failure: undoing goes on without it.
func TestCanceledWhileInstalling(t *testing.T) {
	r, plane, store := relaytest.NewRelay(t)
	s := established(t, r)
	ctx, cancel := context.WithCancel(t.Context())
	plane.Hook(func(applying context.Context, _ relaytest.Call) error {
		cancel()
		return applying.Err()
	})
	tx := r.Begin()
	tx.End(s.ID)
	if err := tx.Commit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	consistent(t, r, plane, store)
	if _, ok := r.Session(s.ID); !ok {
		t.Error("session is gone")
	}
}

// A panic in the data plane ends the transaction like an error, and the next one is not in its way.
func TestPlanePanics(t *testing.T) {
	r, plane, store := relaytest.NewRelay(t)
	s := established(t, r)
	plane.Hook(func(_ context.Context, c relaytest.Call) error {
		if c.Generation == 2 {
			panic("boom")
		}
		return nil
	})
	func() {
		defer func() {
			if v := recover(); v != "boom" {
				t.Errorf("recovered %v", v)
			}
		}()
		tx := r.Begin()
		defer tx.Rollback()
		tx.End(s.ID)
		_ = tx.Commit(t.Context())
	}()
	consistent(t, r, plane, store)
	tx := r.Begin()
	tx.End(s.ID)
	if err := tx.Commit(t.Context()); err != nil {
		t.Errorf("after the panic: %v", err)
	}
	consistent(t, r, plane, store)
}
