package feed

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// small makes a log that keeps few groups.
func small(groups, bytes int, sinks ...Sink) *Log {
	l := New(1, 0, sinks...)
	l.maxGroups, l.maxBytes = groups, bytes
	return l
}

func change(key string, size int) Change {
	return Change{Kind: "k", Key: key, Version: 1, Value: make([]byte, size)}
}

func mustAppend(t *testing.T, l *Log, changes ...Change) Group {
	t.Helper()
	g, err := l.Append(changes...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// From any position a reader either sees every later group, in order and unchanged, or is told that it is behind;
// and it is told so only when the bounds leave no other way.
func TestReadersAgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		maxGroups, maxBytes := 1<<rnd.IntN(6), 1+rnd.IntN(4000)
		first := uint64(rnd.IntN(100))
		l := New(7, first)
		l.maxGroups, l.maxBytes = maxGroups, maxBytes
		var model []Group
		for range 300 {
			var changes []Change
			for i := range 1 + rnd.IntN(4) {
				changes = append(changes, change(fmt.Sprint(i), rnd.IntN(100)))
			}
			g := mustAppend(t, l, changes...)
			model = append(model, g)
			if want := (Group{7, first + uint64(len(model)), changes}); !reflect.DeepEqual(g, want) {
				t.Fatalf("appended %+v, want %+v", g, want)
			}
		}
		kept, size := 0, 0
		for i := len(model) - 1; i >= 0 && kept < maxGroups; i-- {
			if size += model[i].size(); size > maxBytes && kept > 0 {
				break
			}
			kept++
		}
		last := first + uint64(len(model))
		for from := range last + 3 {
			r := l.Subscribe(from)
			if from < last-uint64(kept) {
				if _, err := r.Next(t.Context()); !errors.Is(err, ErrBehind) {
					t.Fatalf("seed %d: from %d of %d, %d kept: error %v, want ErrBehind", seed, from, last, kept, err)
				}
				continue
			}
			for want := from + 1; want <= last; want++ {
				g, err := r.Next(t.Context())
				if err != nil || !reflect.DeepEqual(g, model[want-first-1]) || r.Position() != want {
					t.Fatalf("seed %d: position %d: %+v, %v", seed, want, g, err)
				}
			}
		}
		if l.bytes > maxBytes && l.count > 1 {
			t.Fatalf("log keeps %d bytes of at most %d", l.bytes, maxBytes)
		}
		if len(l.ring) > max(16, maxGroups) {
			t.Fatalf("ring of %d for %d groups", len(l.ring), maxGroups)
		}
	}
}

// With writers and readers at once, positions are dense and each writer's groups keep their order.
func TestConcurrentUse(t *testing.T) {
	const writers, each = 4, 500
	l := New(1, 0)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := l.Append(Change{Kind: "w", Key: fmt.Sprint(w), Version: uint64(i), Value: []byte{1}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 3 {
		wg.Go(func() {
			r := l.Subscribe(0)
			next := map[string]uint64{}
			for position := uint64(1); position <= writers*each; position++ {
				g, err := r.Next(t.Context())
				if err != nil || g.Position != position {
					t.Errorf("position %d, %v; want %d", g.Position, err, position)
					return
				}
				c := g.Changes[0]
				if c.Version != next[c.Key] {
					t.Errorf("writer %s: version %d, want %d", c.Key, c.Version, next[c.Key])
				}
				next[c.Key]++
			}
		})
	}
	wg.Wait()
}

func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1, 0)
		got := make(chan Group)
		for range 2 {
			go func() {
				g, err := l.Subscribe(0).Next(t.Context())
				if err != nil {
					t.Error(err)
				}
				got <- g
			}()
		}
		synctest.Wait()
		mustAppend(t, l, change("a", 1))
		for range 2 {
			if g := <-got; g.Position != 1 {
				t.Errorf("position %d, want 1", g.Position)
			}
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if _, err := l.Subscribe(1).Next(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("error %v after %v, want the deadline after a minute", err, time.Since(start))
		}
	})
}

func TestSlowReaderIsTold(t *testing.T) {
	l := small(4, 1<<20)
	r := l.Subscribe(0)
	for range 4 {
		mustAppend(t, l, change("a", 1))
	}
	if g, err := r.Next(t.Context()); err != nil || g.Position != 1 {
		t.Fatal(g, err)
	}
	for range 4 {
		mustAppend(t, l, change("a", 1))
	}
	if _, err := r.Next(t.Context()); !errors.Is(err, ErrBehind) {
		t.Fatalf("error %v, want ErrBehind", err)
	}
	if r.Position() != 1 {
		t.Errorf("position %d, want 1", r.Position())
	}
	_, last := l.Last()
	mustAppend(t, l, change("a", 1))
	if g, err := l.Subscribe(last).Next(t.Context()); err != nil || g.Position != 9 {
		t.Errorf("after a new subscription: %v, %v", g, err)
	}
}

func TestOneLargeGroupIsKept(t *testing.T) {
	l := small(4, 10)
	mustAppend(t, l, change("a", 1))
	mustAppend(t, l, change("b", 1000))
	if g, err := l.Subscribe(1).Next(t.Context()); err != nil || g.Changes[0].Key != "b" {
		t.Errorf("%v, %v", g, err)
	}
}

// sink is a Sink and Withdrawer that remembers.
type sink struct {
	fail   error
	groups []Group
	seen   func(Group)
}

func (s *sink) Write(g Group) error {
	if s.seen != nil {
		s.seen(g)
	}
	if s.fail != nil {
		return s.fail
	}
	s.groups = append(s.groups, g)
	return nil
}

func (s *sink) Withdraw(g Group) error {
	if n := len(s.groups); n == 0 || s.groups[n-1].Position != g.Position {
		return errors.New("not the last")
	}
	s.groups = s.groups[:len(s.groups)-1]
	return nil
}

// A group that a sink refuses is nowhere: not in the sinks before, not with the readers, and its position is used again.
func TestSinkFails(t *testing.T) {
	for failing := range 3 {
		sinks := []*sink{{}, {}, {}}
		l := New(1, 0, sinks[0], sinks[1], sinks[2])
		mustAppend(t, l, change("a", 1))
		boom := errors.New("boom")
		sinks[failing].fail = boom
		if _, err := l.Append(change("b", 1)); !errors.Is(err, boom) || strings.Contains(err.Error(), "not the last") {
			t.Fatalf("error %v, want only that of the sink", err)
		}
		sinks[failing].fail = nil
		if _, last := l.Last(); last != 1 {
			t.Errorf("last is %d, want 1", last)
		}
		mustAppend(t, l, change("c", 1))
		r := l.Subscribe(0)
		for i, key := range []string{"a", "c"} {
			g, err := r.Next(t.Context())
			if err != nil || g.Position != uint64(i+1) || g.Changes[0].Key != key {
				t.Errorf("reader got %v, %v; want %s", g, err, key)
			}
			for n, s := range sinks {
				if len(s.groups) != 2 || !reflect.DeepEqual(s.groups[i], g) {
					t.Errorf("sink %d has %v", n, s.groups)
				}
			}
		}
	}
}

// What a reader sees, every sink has taken before.
func TestSinksComeFirst(t *testing.T) {
	var l *Log
	s := &sink{seen: func(g Group) {
		if _, last := l.Last(); last >= g.Position {
			t.Errorf("position %d is published before it is written", g.Position)
		}
	}}
	l = New(1, 0, s)
	for range 5 {
		mustAppend(t, l, change("a", 1))
	}
}

func TestAppendNothing(t *testing.T) {
	l := New(1, 0)
	if _, err := l.Append(); err == nil {
		t.Error("accepted")
	}
}

// keeper is a Sink that knows one thing.
type keeper struct{ sink }

func (*keeper) Latest(kind, key string) (Change, bool, error) {
	return Change{Kind: kind, Key: key, Version: 42, Value: []byte("kept")}, true, nil
}

func TestLatest(t *testing.T) {
	l := small(4, 1<<20)
	if _, ok, err := l.Latest("k", "a"); ok || err != nil {
		t.Errorf("empty log knows something: %v, %v", ok, err)
	}
	mustAppend(t, l, Change{Kind: "k", Key: "a", Version: 1, Value: []byte("1")})
	mustAppend(t, l, Change{Kind: "k", Key: "a", Version: 2, Value: []byte("2")}, Change{Kind: "k", Key: "b", Version: 1, Value: []byte("b")})
	mustAppend(t, l, Change{Kind: "k", Key: "b", Version: 2})
	if c, ok, err := l.Latest("k", "a"); !ok || err != nil || c.Version != 2 {
		t.Errorf("latest a is %v, %v, %v", c, ok, err)
	}
	if c, ok, err := l.Latest("k", "b"); ok || err != nil {
		t.Errorf("b was deleted, but is %v, %v", c, err)
	}
	if c, ok, err := New(1, 0, &sink{}, &keeper{}).Latest("k", "a"); !ok || err != nil || c.Version != 42 {
		t.Errorf("keeper is not asked: %v, %v, %v", c, ok, err)
	}
}
