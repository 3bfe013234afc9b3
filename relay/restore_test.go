package relay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
	"github.com/tandem-relay/tandem/relay/journal"
	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/tandem-relay/tandem/relay/relaytest"
)

// process is a relay on a journal, as a daemon has it.
type process struct {
	*relay.Relay
	adoption relay.Adoption
	journal  *journal.Journal
	dir      string
	plane    *relaytest.Plane
}

// start starts a process on what an earlier one left.
func start(t *testing.T, dir string, plane *relaytest.Plane) *process {
	t.Helper()
	j, state, err := journal.Open(dir, "boot", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	r, err := relay.New(relay.Config{
		Networks: relaytest.Networks(), Log: feed.New(state.Epoch, state.Position, j), Plane: plane,
	})
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := relay.DecodeSessions(state.Changes)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Relay: r, journal: j, dir: dir, plane: plane}
	if p.adoption, err = r.Restore(t.Context(), sessions); err != nil {
		t.Fatal(err)
	}
	return p
}

// crash starts a process on what this one would leave if it were gone now.
func (p *process) crash(t *testing.T) *process {
	t.Helper()
	dir := t.TempDir()
	data, err := os.ReadFile(filepath.Join(p.dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "journal"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, dir, p.plane.Clone())
}

// The next process goes on with everything: sessions, records, ports.
func TestRestart(t *testing.T) {
	first := start(t, t.TempDir(), relaytest.New())
	kept, ended := established(t, first.Relay), established(t, first.Relay)
	empty := first.Begin()
	empty.Create()
	empty.End(ended.ID)
	if err := empty.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	records, _ := first.plane.Records(kept.ID)

	next := first.crash(t)
	if want := (relay.Adoption{Kept: len(records)}); !reflect.DeepEqual(next.adoption, want) {
		t.Errorf("adoption %+v, want %+v", next.adoption, want)
	}
	if !reflect.DeepEqual(next.Sessions(), first.Sessions()) {
		t.Errorf("sessions are %+v, want %+v", next.Sessions(), first.Sessions())
	}
	if _, ok := next.Session(kept.ID); !ok {
		t.Error("session is gone")
	}
	wantPorts(t, next.Relay, 2, 0)
	// Nobody else gets the ports of the call that goes on.
	tx := next.Begin()
	defer tx.Rollback()
	for range 999 {
		p, err := tx.Allocate("inside")
		if err != nil || p == kept.Parties[0].Streams[0].Local {
			t.Fatalf("allocated %v, %v", p, err)
		}
	}
	if _, err := tx.Allocate("inside"); !errors.Is(err, ports.ErrExhausted) {
		t.Errorf("error %v, want ErrExhausted", err)
	}
	tx.Rollback()
	// And the call that goes on can be changed and ended.
	tx = next.Begin()
	tx.End(kept.ID)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantPorts(t, next.Relay, 0, 2)
}

// Between journal and records nothing can be lost: the next process installs what the journal says.
func TestCrashBeforeRecords(t *testing.T) {
	tests := []struct {
		name string
		do   func(*testing.T, *relay.Tx, *relay.Session)
		want relay.Adoption
	}{
		{"new call", func(t *testing.T, tx *relay.Tx, _ *relay.Session) {
			call(t, tx, tx.Create())
		}, relay.Adoption{Kept: 4, Written: 4}},
		{"changed call", func(t *testing.T, tx *relay.Tx, s *relay.Session) {
			edited, err := tx.Edit(s.ID)
			if err != nil {
				t.Fatal(err)
			}
			edited.Parties[0].Streams[0].Mode = relay.Hold
		}, relay.Adoption{Kept: 2, Written: 2}},
		{"moved call", func(t *testing.T, tx *relay.Tx, s *relay.Session) {
			edited, err := tx.Edit(s.ID)
			if err != nil {
				t.Fatal(err)
			}
			if edited.Parties[0].Streams[0].Local, err = tx.Allocate("inside"); err != nil {
				t.Fatal(err)
			}
		}, relay.Adoption{Written: 4, Removed: 2}},
		{"ended call", func(_ *testing.T, tx *relay.Tx, s *relay.Session) {
			tx.End(s.ID)
		}, relay.Adoption{Removed: 4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			first := start(t, t.TempDir(), relaytest.New())
			s := established(t, first.Relay)
			var next *process
			first.plane.Hook(func(context.Context, relaytest.Call) error {
				next = first.crash(t)
				return nil
			})
			tx := first.Begin()
			tt.do(t, tx, s)
			tx.Put(feed.Change{Kind: "call", Key: "c", Version: 1, Value: []byte("x")})
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(next.adoption, tt.want) {
				t.Errorf("adoption %+v, want %+v", next.adoption, tt.want)
			}
			// The world is the one in which there was no crash.
			if !reflect.DeepEqual(next.Sessions(), first.Sessions()) {
				t.Errorf("sessions are %+v, want %+v", next.Sessions(), first.Sessions())
			}
			if !reflect.DeepEqual(next.plane.Held(), first.plane.Held()) {
				t.Errorf("plane holds %+v, want %+v", next.plane.Held(), first.plane.Held())
			}
			if c, ok, err := next.journal.Latest("call", "c"); !ok || err != nil || string(c.Value) != "x" {
				t.Errorf("the caller's change is %v, %v, %v", c, ok, err)
			}
			before, _ := used(first.Relay)
			if after, _ := used(next.Relay); after != before {
				t.Errorf("%d pairs taken, want %d", after, before)
			}
		})
	}
}

// A refusal by the plane that is not undone yet when the process ends is not a loss either: the call is installed.
func TestCrashBeforeUndo(t *testing.T) {
	first := start(t, t.TempDir(), relaytest.New())
	var next *process
	first.plane.Hook(func(_ context.Context, c relaytest.Call) error {
		if next != nil {
			return nil
		}
		next = first.crash(t)
		return errPlane
	})
	tx := first.Begin()
	s := tx.Create()
	call(t, tx, s)
	if err := tx.Commit(t.Context()); !errors.Is(err, errPlane) {
		t.Fatal(err)
	}
	if _, ok := next.Session(s.ID); !ok || next.adoption.Written != 4 {
		t.Errorf("session there %v, adoption %+v", ok, next.adoption)
	}
	// After the undo, nothing is left for the next process.
	if after := first.crash(t); after.Len() != 0 || !reflect.DeepEqual(after.adoption, relay.Adoption{}) {
		t.Errorf("%d sessions, adoption %+v", after.Len(), after.adoption)
	}
}

// What does not fit the configuration any more is ended, and said; the rest goes on.
func TestRestoreDropsWhatDoesNotFit(t *testing.T) {
	good := func(id string, port uint16) *relay.Session {
		s := twoParties()
		s.ID, s.Generation = relay.SessionID(id), 4
		s.Parties[0].Streams[0].Local = pair("192.0.2.1", port)
		s.Parties[1].Streams[0].Local = pair("203.0.113.1", port)
		return s
	}
	tests := []struct {
		name string
		edit func(*relay.Session)
		want string
	}{
		{"address is gone", func(s *relay.Session) { s.Parties[1].Streams[0].Local = pair("203.0.113.2", 20000) },
			"not a media address"},
		{"port is gone", func(s *relay.Session) { s.Parties[1].Streams[0].Local = pair("203.0.113.1", 40000) },
			"not the even port of a pair of this pool"},
		{"port is taken", func(s *relay.Session) { s.Parties[1].Streams[0].Local = pair("203.0.113.1", 20002) },
			"port pair is not free"},
		{"odd pair", func(s *relay.Session) { s.Parties[1].Streams[0].Local.RTCP = 21001 }, "not held"},
		{"network is gone", func(s *relay.Session) { s.Parties[1].Network = "nowhere" }, "no such network"},
		{"makes no sense", func(s *relay.Session) { s.Subscriptions[0].Sink.Party = "x" }, "does not exist"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plane, store, out := relaytest.New(), new(relaytest.Store), new(bytes.Buffer)
			r, err := relay.New(relay.Config{
				Networks: relaytest.Networks(), Log: feed.New(1, 0, store), Plane: plane,
				Logger: slog.New(slog.NewTextHandler(out, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			bad := good("bad", 20010)
			tt.edit(bad)
			adoption, err := r.Restore(t.Context(), []*relay.Session{good("first", 20002), bad, good("last", 20004)})
			if err != nil {
				t.Fatal(err)
			}
			if adoption.Written != 8 || r.Len() != 2 {
				t.Errorf("adoption %+v, %d sessions", adoption, r.Len())
			}
			if _, ok := r.Session("bad"); ok {
				t.Error("session goes on")
			}
			wantPorts(t, r, 4, 0)
			if got := out.String(); !strings.Contains(got, "session=bad") || !strings.Contains(got, tt.want) {
				t.Errorf("log %q lacks the session or %q", got, tt.want)
			}
			want := []feed.Change{{Kind: "session", Key: "bad", Version: 5}}
			if g := store.Groups(); len(g) != 1 || !reflect.DeepEqual(g[0].Changes, want) {
				t.Errorf("groups %+v, want %+v", g, want)
			}
		})
	}
}

// refusing is a plane that does not adopt.
type refusing struct{ *relaytest.Plane }

func (refusing) Adopt(context.Context, []relay.Compiled) (relay.Adoption, error) {
	return relay.Adoption{}, errPlane
}

func TestRestoreFails(t *testing.T) {
	s := twoParties()
	s.Parties[0].Streams[0].Local, s.Parties[1].Streams[0].Local = pair("192.0.2.1", 20000), pair("203.0.113.1", 20000)
	tests := []struct {
		name     string
		plane    relay.Dataplane
		sessions []*relay.Session
		want     string
	}{
		{"plane refuses", refusing{relaytest.New()}, []*relay.Session{s}, "adopt records: plane is full"},
		{"session twice", relaytest.New(), []*relay.Session{s, s}, "session s stands twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := relay.New(relay.Config{Networks: relaytest.Networks(), Log: feed.New(1, 0), Plane: tt.plane})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Restore(t.Context(), tt.sessions); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			wantPorts(t, r, 0, 0)
			if r.Len() != 0 {
				t.Errorf("%d sessions", r.Len())
			}
		})
	}
	r, _, _ := relaytest.NewRelay(t)
	established(t, r)
	if _, err := r.Restore(t.Context(), nil); err == nil {
		t.Error("a relay with sessions is restored")
	}
}

func TestDecodeSessions(t *testing.T) {
	tests := []struct {
		name   string
		change feed.Change
		ok     bool
		count  int
	}{
		{"session", feed.Change{Kind: "session", Key: "a", Version: 2, Value: []byte(`{"id":"a","generation":2}`)}, true, 1},
		{"field of a later version", feed.Change{Kind: "session", Key: "a", Version: 2, Value: []byte(`{"id":"a","generation":2,"x":1}`)}, true, 1},
		{"ended", feed.Change{Kind: "session", Key: "a", Version: 3}, true, 0},
		{"other kind", feed.Change{Kind: "call", Key: "a", Version: 1, Value: []byte("?")}, true, 0},
		{"no JSON", feed.Change{Kind: "session", Key: "a", Version: 2, Value: []byte("?")}, false, 1},
		{"other id", feed.Change{Kind: "session", Key: "b", Version: 2, Value: []byte(`{"id":"a","generation":2}`)}, false, 1},
		{"other generation", feed.Change{Kind: "session", Key: "a", Version: 3, Value: []byte(`{"id":"a","generation":2}`)}, false, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := relay.DecodeSessions([]feed.Change{tt.change})
			if err != nil || len(got) != tt.count {
				t.Fatalf("%v, %v; want %d", got, err, tt.count)
			}
			if tt.count == 0 {
				return
			}
			if s := got[0]; string(s.ID) != tt.change.Key || uint64(s.Generation) != tt.change.Version {
				t.Errorf("session %s generation %d", s.ID, s.Generation)
			}
			if _, err := relay.Compile(got[0]); (err == nil) != tt.ok {
				t.Errorf("compiled with error %v, want ok %v", err, tt.ok)
			}
		})
	}
	c := feed.Change{Kind: "session", Key: "a", Version: 2, Value: []byte(`{"id":"a","generation":2}`)}
	if _, err := relay.DecodeSessions([]feed.Change{c, c}); err == nil {
		t.Error("a session stands twice")
	}
}

// One value that makes no sense, and one session that the plane cannot hold, cost no other session anything.
func TestRestoreGoesOnWithTheRest(t *testing.T) {
	stored := func(id string, port uint16) feed.Change {
		s := twoParties()
		s.ID, s.Generation = relay.SessionID(id), 4
		s.Parties[0].Streams[0].Local, s.Parties[1].Streams[0].Local = pair("192.0.2.1", port), pair("203.0.113.1", port)
		value, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return feed.Change{Kind: "session", Key: id, Version: 4, Value: value}
	}
	damaged := stored("damaged", 20008)
	damaged.Value = damaged.Value[:len(damaged.Value)/2]
	changes := []feed.Change{stored("first", 20002), damaged, stored("refused", 20004), stored("last", 20006)}
	sessions, err := relay.DecodeSessions(changes)
	if err != nil {
		t.Fatal(err)
	}
	plane, store, out := relaytest.New(), new(relaytest.Store), new(bytes.Buffer)
	plane.Hook(func(_ context.Context, c relaytest.Call) error {
		if c.ID == "refused" {
			return errPlane
		}
		return nil
	})
	r, err := relay.New(relay.Config{
		Networks: relaytest.Networks(), Log: feed.New(1, 0, store), Plane: plane,
		Logger: slog.New(slog.NewTextHandler(out, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	adoption, err := r.Restore(t.Context(), sessions)
	if err != nil {
		t.Fatal(err)
	}
	if want := (relay.Adoption{Written: 8, Refused: []relay.SessionID{"refused"}}); !reflect.DeepEqual(adoption, want) {
		t.Errorf("adoption %+v, want %+v", adoption, want)
	}
	for id, want := range map[relay.SessionID]bool{"first": true, "last": true, "damaged": false, "refused": false} {
		if _, ok := r.Session(id); ok != want {
			t.Errorf("session %s goes on: %v", id, ok)
		}
		if records, _ := plane.Records(id); (records != nil) != want {
			t.Errorf("session %s has %d records", id, len(records))
		}
	}
	var ends []feed.Change
	for _, g := range store.Groups() {
		ends = append(ends, g.Changes...)
	}
	want := []feed.Change{{Kind: "session", Key: "damaged", Version: 5}, {Kind: "session", Key: "refused", Version: 5}}
	if !reflect.DeepEqual(ends, want) {
		t.Errorf("changes %+v, want %+v", ends, want)
	}
	if got := out.String(); !strings.Contains(got, "session=damaged") || !strings.Contains(got, "decode") {
		t.Errorf("log %q does not tell of the damage", got)
	}
	// Two calls hold their ports; those of the refused one are not handed out at once.
	wantPorts(t, r, 4, 2)
}
