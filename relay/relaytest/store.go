package relaytest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/tandem-relay/tandem/relay/feed"
)

// Store is a feed.Sink and feed.Keeper in memory: what the journal is on disk. The zero value is empty and ready.
// All methods may be called concurrently.
type Store struct {
	mu     sync.Mutex
	fail   error
	groups []feed.Group
	latest map[[2]string]feed.Change
}

var (
	_ feed.Sink   = (*Store)(nil)
	_ feed.Keeper = (*Store)(nil)
)

// Fail makes every Write return err until it is called with nil.
func (s *Store) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// Clone makes a store that knows the same.
func (s *Store) Clone() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Store{groups: slices.Clone(s.groups), latest: maps.Clone(s.latest)}
}

// Write keeps a group. It refuses a position that does not follow the last one.
func (s *Store) Write(g feed.Group) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	if n := len(s.groups); n > 0 && g.Position != s.groups[n-1].Position+1 {
		return fmt.Errorf("position %d follows %d", g.Position, s.groups[n-1].Position)
	}
	if s.latest == nil {
		s.latest = make(map[[2]string]feed.Change)
	}
	s.groups = append(s.groups, g)
	for _, c := range g.Changes {
		if c.Value == nil {
			delete(s.latest, [2]string{c.Kind, c.Key})
		} else {
			s.latest[[2]string{c.Kind, c.Key}] = c
		}
	}
	return nil
}

// Latest returns the latest change of a thing that was not deleted.
func (s *Store) Latest(kind, key string) (feed.Change, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.latest[[2]string{kind, key}]
	return c, ok, nil
}

// Changes returns the latest change of everything that was not deleted, ordered by kind and key.
func (s *Store) Changes() []feed.Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]feed.Change, 0, len(s.latest))
	for _, c := range s.latest {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b feed.Change) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key))
	})
	return all
}

// Groups returns every group so far.
func (s *Store) Groups() []feed.Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.groups)
}
