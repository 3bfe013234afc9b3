package journal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/tandem-relay/tandem/relay/feed"
)

// model is the state as a map.
type model map[name]feed.Change

func (m model) apply(g feed.Group) {
	for _, c := range g.Changes {
		if c.Value == nil {
			delete(m, name{c.Kind, c.Key})
		} else {
			m[name{c.Kind, c.Key}] = c
		}
	}
}

func (m model) changes() []feed.Change {
	var all []feed.Change
	for _, c := range m {
		all = append(all, c)
	}
	return all
}

func (m model) clone() model {
	c := make(model, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func randomGroup(rnd *rand.Rand, position uint64) feed.Group {
	g := group(position)
	for range 1 + rnd.IntN(4) {
		kind, key := []string{"session", "call"}[rnd.IntN(2)], fmt.Sprint(rnd.IntN(20))
		if rnd.IntN(4) == 0 {
			g.Changes = append(g.Changes, del(kind, key, position))
		} else {
			g.Changes = append(g.Changes, put(kind, key, position, strings.Repeat("v", rnd.IntN(80))))
		}
	}
	return g
}

// Through writes, withdrawals, rewriting at every moment, and restarts, the journal says what a map says, and the file
// stays small.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		dir := t.TempDir()
		slack := int64(100 + rnd.IntN(1000))
		j, _, err := open(dir, boot, nil, slack)
		if err != nil {
			t.Fatal(err)
		}
		now := model{}
		position := uint64(0)
		rewritten := 0
		file := j.file
		for range 600 {
			before := now.clone()
			g := randomGroup(rnd, position+1)
			mustWrite(t, j, g)
			now.apply(g)
			if rnd.IntN(5) == 0 {
				if rnd.IntN(2) == 0 {
					j.done.Wait() // the file may be another one now
				}
				if err := j.Withdraw(g); err != nil {
					t.Fatal(err)
				}
				now = before
				if err := j.Withdraw(g); err == nil {
					t.Fatal("withdrawn twice")
				}
			} else {
				position++
			}
			if rnd.IntN(4) == 0 {
				j.done.Wait()
				if j.file != file {
					file = j.file
					rewritten++
				}
				info, err := file.Stat()
				// One group after the limit was passed, and one while the file was being rewritten.
				if limit := 2*max(2*j.table.live, j.table.live+slack) + 2000; err != nil || info.Size() > limit {
					t.Fatalf("file of %d bytes for a state of %d, %v", info.Size(), j.table.live, err)
				}
			}
			c := g.Changes[0]
			got, ok, err := j.Latest(c.Kind, c.Key)
			if want, known := now[name{c.Kind, c.Key}]; err != nil || ok != known || ok && !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: latest is %v, %v, %v; want %v", seed, got, ok, err, want)
			}
			if rnd.IntN(40) == 0 {
				mustClose(t, j)
				var state State
				if j, state, err = open(dir, boot, nil, slack); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				file = j.file
				checkState(t, state, 1, position, now.changes()...)
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		state, err := j.State()
		if err != nil {
			t.Fatal(err)
		}
		checkState(t, state, 1, position, now.changes()...)
		if rewritten < 3 {
			t.Errorf("seed %d: file was rewritten %d times", seed, rewritten)
		}
		mustClose(t, j)
	}
}

// Groups are written while the file is being rewritten, and the process may be gone at any moment: what lies on disk is
// always whole up to the last group that was written.
func TestConcurrentUse(t *testing.T) {
	dir := t.TempDir()
	j, _, err := open(dir, boot, nil, 500)
	if err != nil {
		t.Fatal(err)
	}
	log := feed.New(1, 0, j)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 500 {
				key := fmt.Sprintf("%d-%d", w, i%7)
				if _, err := log.Append(put("k", key, uint64(i), strings.Repeat("v", 50)), del("gone", key, uint64(i))); err != nil {
					t.Error(err)
				}
				if c, ok, err := j.Latest("k", key); err != nil || !ok || c.Version != uint64(i) {
					t.Errorf("latest %s is %v, %v, %v; want version %d", key, c, ok, err, i)
				}
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			// A look at the file as a new process would take it.
			data, err := os.ReadFile(filepath.Join(dir, fileName))
			if err != nil {
				t.Error(err)
				continue
			}
			if _, err := load(bytes.NewReader(data), int64(len(data)), boot); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	mustClose(t, j)
	_, state := mustOpen(t, dir)
	if state.Position != 2000 || len(state.Changes) != 28 {
		t.Errorf("position %d with %d changes, want 2000 with 28", state.Position, len(state.Changes))
	}
}
