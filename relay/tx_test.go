package relay_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/tandem-relay/tandem/relay/relaytest"
)

func TestLifeOfSession(t *testing.T) {
	r, plane, store := relaytest.NewRelay(t)
	s := established(t, r)
	if s.Generation != 1 {
		t.Errorf("new session has generation %d, want 1", s.Generation)
	}
	want, err := relay.Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	if got, generation := plane.Records(s.ID); !reflect.DeepEqual(got, want) || generation != 1 {
		t.Errorf("plane holds generation %d: %+v, want %+v", generation, got, want)
	}
	wantPorts(t, r, 2, 0)

	// A third party comes, the second one goes.
	tx := r.Begin()
	edited, err := tx.Edit(s.ID)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := tx.Edit(s.ID); err != nil || again != edited {
		t.Errorf("second Edit gives another copy, %v", err)
	}
	local, err := tx.Allocate("outside")
	if err != nil {
		t.Fatal(err)
	}
	unused, err := tx.Allocate("outside")
	if err != nil {
		t.Fatal(err)
	}
	edited.Parties[1].ID, edited.Parties[1].Streams[0].Local = "third", local
	edited.Subscriptions[0].Sink.Party, edited.Subscriptions[1].Source.Party = "third", "third"
	if now, _ := r.Session(s.ID); !reflect.DeepEqual(now, s) {
		t.Error("an edit is visible before Commit")
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantPorts(t, r, 2, 1)
	now, _ := r.Session(s.ID)
	if now.Generation != 2 || now.Parties[1].Streams[0].Local != local || now.Parties[1].Streams[0].Local == unused {
		t.Errorf("committed session is %+v", now)
	}
	if s.Generation != 1 || s.Parties[1].ID != "outside" {
		t.Error("the former snapshot was modified")
	}
	edited.Parties[0].ID = "changed after commit"
	if now.Parties[0].ID != "inside" {
		t.Error("the caller's copy is the committed session")
	}

	tx = r.Begin()
	tx.End(s.ID)
	if _, err := tx.Edit(s.ID); !errors.Is(err, relay.ErrNoSession) {
		t.Errorf("edit of a session that ends: %v", err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantPorts(t, r, 0, 3)
	if _, ok := r.Session(s.ID); ok || r.Len() != 0 {
		t.Error("ended session is still there")
	}
	if len(plane.Held()) != 0 || len(plane.Problems()) != 0 {
		t.Errorf("plane holds %v, problems %v", plane.Held(), plane.Problems())
	}
	if left := store.Changes(); len(left) != 0 {
		t.Errorf("log still knows %v", left)
	}
	for i, g := range store.Groups() {
		c := g.Changes[0]
		if len(g.Changes) != 1 || c.Kind != "session" || c.Key != string(s.ID) || c.Version != uint64(i+1) || (c.Value == nil) != (i == 2) {
			t.Errorf("group %d is %+v", i, g)
		}
	}
}

// Intent is written before the maps.
func TestLogComesBeforePlane(t *testing.T) {
	r, plane, store := relaytest.NewRelay(t)
	plane.Hook(func(_ context.Context, c relaytest.Call) error {
		if got, ok, err := store.Latest("session", string(c.ID)); !ok || err != nil || got.Version != uint64(c.Generation) {
			t.Errorf("generation %d is applied while the log knows %d (%v, %v)", c.Generation, got.Version, ok, err)
		}
		return nil
	})
	established(t, r)
	if len(plane.Calls()) != 1 {
		t.Errorf("%d calls of Apply, want 1", len(plane.Calls()))
	}
}

func TestGroupHoldsOwnChanges(t *testing.T) {
	r, plane, store := relaytest.NewRelay(t)
	tx := r.Begin()
	s := tx.Create()
	call(t, tx, s)
	own := feed.Change{Kind: "call", Key: "c1", Version: 1, Value: []byte("{}")}
	tx.Put(own)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if groups := store.Groups(); len(groups) != 1 || len(groups[0].Changes) != 2 || !reflect.DeepEqual(groups[0].Changes[1], own) {
		t.Errorf("groups %+v, want one with the session and the call", groups)
	}

	// Changes of the caller's own alone, and beside a session that was looked at but not changed.
	calls := len(plane.Calls())
	tx = r.Begin()
	tx.Put(feed.Change{Kind: "call", Key: "c1", Version: 2, Value: []byte("[]")})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	tx = r.Begin()
	if _, err := tx.Edit(s.ID); err != nil {
		t.Fatal(err)
	}
	tx.Put(feed.Change{Kind: "call", Key: "c1", Version: 3})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if groups := store.Groups(); len(groups) != 3 || len(groups[1].Changes) != 1 || len(groups[2].Changes) != 1 {
		t.Errorf("groups %+v, want three, the later ones of one change", groups)
	}
	if n := len(plane.Calls()); n != calls {
		t.Errorf("%d calls of Apply for nothing", n-calls)
	}
	if now, _ := r.Session(s.ID); now.Generation != 1 {
		t.Errorf("generation %d of a session that did not change", now.Generation)
	}

	for _, kind := range []string{"session", ""} {
		tx = r.Begin()
		tx.Put(feed.Change{Kind: kind, Key: "c1"})
		if err := tx.Commit(t.Context()); err == nil {
			t.Errorf("kind %q is accepted", kind)
		}
	}
}

func TestNothingToCommit(t *testing.T) {
	r, plane, store := relaytest.NewRelay(t)
	s := established(t, r)
	tests := []struct {
		name string
		do   func(*relay.Tx)
	}{
		{"empty", func(*relay.Tx) {}},
		{"allocated only", func(tx *relay.Tx) { _, _ = tx.Allocate("inside") }},
		{"looked at", func(tx *relay.Tx) { _, _ = tx.Edit(s.ID) }},
		{"created and ended", func(tx *relay.Tx) {
			fresh := tx.Create()
			call(t, tx, fresh)
			tx.End(fresh.ID)
		}},
		{"rolled back", func(tx *relay.Tx) {
			call(t, tx, tx.Create())
			tx.Rollback()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			groups, calls := len(store.Groups()), len(plane.Calls())
			tx := r.Begin()
			tt.do(tx)
			if err := tx.Commit(t.Context()); err != nil && !errors.Is(err, relay.ErrFinished) {
				t.Fatal(err)
			}
			if len(store.Groups()) != groups || len(plane.Calls()) != calls || r.Len() != 1 {
				t.Error("something happened")
			}
			wantPorts(t, r, 2, 0)
			if err := tx.Commit(t.Context()); !errors.Is(err, relay.ErrFinished) {
				t.Errorf("second commit: %v", err)
			}
			tx.Rollback()
			wantPorts(t, r, 2, 0)
		})
	}
}

// A transaction that is refused has left nothing behind, whatever it allocated.
func TestCommitRefuses(t *testing.T) {
	r, plane, store := relaytest.NewRelay(t)
	other := established(t, r)
	alloc := func(tx *relay.Tx, network string) relay.Pair {
		p, err := tx.Allocate(network)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name string
		ctx  context.Context
		do   func(tx *relay.Tx, s *relay.Session)
		kind error
		want string
	}{
		{"foreign port", nil, func(_ *relay.Tx, s *relay.Session) {
			s.Parties[0].Streams[0].Local = other.Parties[0].Streams[0].Local
		}, relay.ErrInvalid, `party "inside" stream 0: local ports 192.0.2.1:`},
		{"port that nobody allocated", nil, func(tx *relay.Tx, s *relay.Session) {
			stolen := r.Begin()
			p := alloc(stolen, "inside")
			stolen.Rollback()
			s.Parties[0].Streams[0].Local = p
		}, relay.ErrInvalid, "not held by this session"},
		{"port of another transaction", nil, func(tx *relay.Tx, s *relay.Session) {
			another := r.Begin()
			t.Cleanup(another.Rollback)
			s.Parties[0].Streams[0].Local = alloc(another, "inside")
		}, relay.ErrInvalid, "not held by this session"},
		{"port of two sessions", nil, func(tx *relay.Tx, s *relay.Session) {
			second := tx.Create()
			second.Parties = s.Clone().Parties[:1]
		}, relay.ErrInvalid, "not held by this session"},
		{"RTCP port elsewhere", nil, func(tx *relay.Tx, s *relay.Session) {
			s.Parties[0].Streams[0].Local.RTCP += 2
		}, relay.ErrInvalid, "not held by this session"},
		{"port without address", nil, func(tx *relay.Tx, s *relay.Session) {
			s.Parties[0].Streams[0].Local = relay.Pair{RTP: 20000}
		}, relay.ErrInvalid, "not a media address"},
		{"address of nobody", nil, func(tx *relay.Tx, s *relay.Session) {
			s.Parties[0].Streams[0].Local = pair("192.0.2.99", 20000)
		}, relay.ErrInvalid, `party "inside" stream 0: local 192.0.2.99: not a media address`},
		{"address of the other network", nil, func(tx *relay.Tx, s *relay.Session) {
			s.Parties[0].Streams[0].Local = alloc(tx, "outside")
		}, relay.ErrInvalid, `belongs to network "outside", not to "inside"`},
		{"unknown network", nil, func(_ *relay.Tx, s *relay.Session) {
			s.Parties[0].Network = "nowhere"
		}, relay.ErrNoNetwork, `party "inside": network "nowhere"`},
		{"does not compile", nil, func(_ *relay.Tx, s *relay.Session) {
			s.Subscriptions[0].Sink.Party = "x"
		}, relay.ErrInvalid, `subscription 0: sink party "x"`},
		{"other id", nil, func(_ *relay.Tx, s *relay.Session) {
			s.ID = "mine"
		}, relay.ErrInvalid, `its id was changed to "mine"`},
		{"end of nothing", nil, func(tx *relay.Tx, _ *relay.Session) {
			tx.End("nothing")
		}, relay.ErrNoSession, "end session nothing"},
		{"canceled", canceled, func(*relay.Tx, *relay.Session) {}, context.Canceled, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			groups, calls := len(store.Groups()), len(plane.Calls())
			before, _ := used(r)
			tx := r.Begin()
			s := tx.Create()
			call(t, tx, s)
			tt.do(tx, s)
			ctx := tt.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			tx.Put(feed.Change{Kind: "call", Key: "c", Version: 1, Value: []byte("x")})
			if err := tx.Commit(ctx); !isError(err, tt.kind, tt.want) {
				t.Errorf("error %v, want %v with %q", err, tt.kind, tt.want)
			}
			if len(store.Groups()) != groups || len(plane.Calls()) != calls || r.Len() != 1 {
				t.Error("something happened")
			}
			after, _ := used(r)
			if tt.name == "port of another transaction" {
				after-- // it still holds its own
			}
			if after != before {
				t.Errorf("%d pairs taken, %d before", after, before)
			}
		})
	}
	if _, err := r.Begin().Edit("nothing"); !errors.Is(err, relay.ErrNoSession) {
		t.Errorf("edit of nothing: %v", err)
	}
}

func TestConflict(t *testing.T) {
	edit := func(t *testing.T, tx *relay.Tx, id relay.SessionID) {
		t.Helper()
		s, err := tx.Edit(id)
		if err != nil {
			t.Fatal(err)
		}
		s.Parties[0].Streams[0].Window++
	}
	tests := []struct {
		name          string
		first, second func(*testing.T, *relay.Tx, relay.SessionID)
		gone          bool
	}{
		{"edit, edit", edit, edit, false},
		{"edit, end", edit, func(_ *testing.T, tx *relay.Tx, id relay.SessionID) { tx.End(id) }, false},
		{"end, edit", func(_ *testing.T, tx *relay.Tx, id relay.SessionID) { tx.End(id) }, edit, true},
		{"edit, put beside a look", edit, func(t *testing.T, tx *relay.Tx, id relay.SessionID) {
			if _, err := tx.Edit(id); err != nil {
				t.Fatal(err)
			}
			tx.Put(feed.Change{Kind: "call", Key: "c", Version: 1, Value: []byte("x")})
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, _, store := relaytest.NewRelay(t)
			s := established(t, r)
			first, second := r.Begin(), r.Begin()
			tt.first(t, first, s.ID)
			tt.second(t, second, s.ID)
			if err := first.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			groups := len(store.Groups())
			err := second.Commit(t.Context())
			if !errors.Is(err, relay.ErrConflict) || errors.Is(err, relay.ErrNoSession) != tt.gone {
				t.Errorf("error %v, want ErrConflict, gone %v", err, tt.gone)
			}
			if len(store.Groups()) != groups {
				t.Error("the loser wrote to the log")
			}
		})
	}
}

// While one session waits for the data plane, others are committed, and the waiting one is not touched by anybody.
func TestCommitsAreConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, plane, store := relaytest.NewRelay(t)
		slow := established(t, r)
		release := make(chan struct{})
		plane.Hook(func(_ context.Context, c relaytest.Call) error {
			if c.ID == slow.ID {
				<-release
			}
			return nil
		})
		edit := func() (*relay.Tx, error) {
			tx := r.Begin()
			s, err := tx.Edit(slow.ID)
			if err == nil {
				s.Parties[0].Streams[0].Window++
			}
			return tx, err
		}
		waiting, err := edit()
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- waiting.Commit(t.Context()) }()
		synctest.Wait()
		if now, _ := r.Session(slow.ID); now.Generation != 1 {
			t.Error("a session is visible before the data plane has it")
		}
		established(t, r)
		second, err := edit()
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Commit(t.Context()); !errors.Is(err, relay.ErrConflict) {
			t.Errorf("commit during a commit: %v, want ErrConflict", err)
		}
		close(release)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if now, _ := r.Session(slow.ID); now.Generation != 2 || len(store.Groups()) != 3 {
			t.Errorf("generation %d after %d groups, want 2 after 3", now.Generation, len(store.Groups()))
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	r, plane, store := relaytest.NewRelay(t)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for range 100 {
				tx := r.Begin()
				s := tx.Create()
				call(t, tx, s)
				tx.Put(feed.Change{Kind: "call", Key: fmt.Sprint(w), Version: 1, Value: []byte(s.ID)})
				if err := tx.Commit(t.Context()); err != nil {
					t.Error(err)
					return
				}
				tx = r.Begin()
				tx.End(s.ID)
				if err := tx.Commit(t.Context()); err != nil && !errors.Is(err, ports.ErrExhausted) {
					t.Error(err)
				}
				r.Sessions()
			}
		})
	}
	wg.Wait()
	for i, g := range store.Groups() {
		if g.Position != uint64(i+1) {
			t.Fatalf("group %d is at position %d", i, g.Position)
		}
	}
	if taken, _ := used(r); taken != 0 || len(plane.Held()) != 0 || len(plane.Problems()) != 0 {
		t.Errorf("%d pairs taken, plane holds %v, problems %v", taken, plane.Held(), plane.Problems())
	}
}
