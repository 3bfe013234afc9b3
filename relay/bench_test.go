package relay_test

import (
	"context"
	"testing"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
	"github.com/tandem-relay/tandem/relay/journal"
	"github.com/tandem-relay/tandem/relay/relaytest"
)

// forgetful is a plane that costs nothing.
type forgetful struct{ relay.Dataplane }

func (forgetful) Apply(context.Context, relay.SessionID, uint32, []relay.Record) error { return nil }

// BenchmarkCall is a call through relay and journal: set up, changed once, ended.
func BenchmarkCall(b *testing.B) {
	j, state, err := journal.Open(b.TempDir(), "boot", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = j.Close() })
	r, err := relay.New(relay.Config{
		Networks: relaytest.Networks(), Log: feed.New(state.Epoch, state.Position, j), Plane: forgetful{relaytest.New()},
		Quarantine: -1,
	})
	if err != nil {
		b.Fatal(err)
	}
	commit := func(tx *relay.Tx) {
		if err := tx.Commit(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		tx := r.Begin()
		s := tx.Create()
		call(b, tx, s)
		tx.Put(feed.Change{Kind: "call", Key: string(s.ID), Version: 1, Value: make([]byte, 2000)})
		commit(tx)
		tx = r.Begin()
		edited, err := tx.Edit(s.ID)
		if err != nil {
			b.Fatal(err)
		}
		edited.Parties[0].Streams[0].Window++
		tx.Put(feed.Change{Kind: "call", Key: string(s.ID), Version: 2, Value: make([]byte, 2000)})
		commit(tx)
		tx = r.Begin()
		tx.End(s.ID)
		tx.Put(feed.Change{Kind: "call", Key: string(s.ID), Version: 3})
		commit(tx)
	}
}
