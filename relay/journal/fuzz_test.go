package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/tandem-relay/tandem/relay/feed"
)

// FuzzLoad reads arbitrary files: no panic, memory in proportion to the file, and whatever is accepted can be read
// back value by value and goes on being a journal.
func FuzzLoad(f *testing.F) {
	h, err := encodeHead(head{boot: boot, epoch: 1})
	if err != nil {
		f.Fatal(err)
	}
	g, _, err := encodeGroup(nil, group(1, put("session", "a", 1, "value"), del("call", "b", 2)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(h, true)
	f.Add(append(bytes.Clone(h), g...), true)
	f.Add(append(bytes.Clone(h), g[:len(g)-3]...), false)
	f.Add([]byte{0xff, 0xff, 0xff, 0, 0, 0, 0, 0}, true)
	f.Fuzz(func(t *testing.T, data []byte, mend bool) {
		if mend {
			data = mended(data)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		table, err := load(bytes.NewReader(data), int64(len(data)), boot)
		runtime.ReadMemStats(&after)
		// The reader's own buffer, and at most an index entry for every five bytes.
		if grown, limit := after.TotalAlloc-before.TotalAlloc, uint64(1<<20+200*len(data)); grown > limit {
			t.Errorf("%d bytes allocated for a file of %d", grown, len(data))
		}
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, errForeign) {
				t.Errorf("error %v is of no kind", err)
			}
			return
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		j, state := mustOpen(t, dir)
		if len(state.Changes) != len(table.index) {
			t.Fatalf("state of %d changes, index of %d", len(state.Changes), len(table.index))
		}
		next := feed.Group{Epoch: state.Epoch, Position: state.Position + 1, Changes: []feed.Change{put("new", "new", 1, "new")}}
		if next.Position == 0 {
			return
		}
		mustWrite(t, j, next)
		want, err := j.State()
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, j)
		_, state = mustOpen(t, dir)
		checkState(t, state, want.Epoch, want.Position, want.Changes...)
	})
}

// mended puts right checksums over the frames, so that fuzzing gets past them.
func mended(data []byte) []byte {
	data = bytes.Clone(data)
	for rest := data; len(rest) > frameSize; {
		length := min(int(binary.LittleEndian.Uint32(rest)), len(rest)-frameSize)
		if length <= 0 {
			break
		}
		if _, err := finish(rest[:frameSize+length]); err != nil {
			break
		}
		rest = rest[frameSize+length:]
	}
	return data
}

// FuzzGroups writes groups made of arbitrary bytes and reads them back, through a rewriting of the file.
func FuzzGroups(f *testing.F) {
	f.Add([]byte("session\x00call\x01value\x02"), uint8(3))
	f.Add([]byte{}, uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, cut uint8) {
		dir := t.TempDir()
		j, _, err := open(dir, boot, nil, 64)
		if err != nil {
			t.Fatal(err)
		}
		want := model{}
		for position := uint64(1); position <= 20; position++ {
			n := min(int(cut), len(data))
			kind, key := string(data[:n/2]), fmt.Sprint(position%3)+string(data[n/2:n])
			g := group(position, put(kind, key, position, string(data[n:])))
			if position%5 == 0 {
				g.Changes = append(g.Changes, del(kind, key, position))
			}
			mustWrite(t, j, g)
			want.apply(g)
		}
		mustClose(t, j)
		_, state := mustOpen(t, dir)
		checkState(t, state, 1, 20, want.changes()...)
	})
}
