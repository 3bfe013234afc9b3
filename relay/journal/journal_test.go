package journal

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tandem-relay/tandem/relay/feed"
)

const boot = "6d7d0b0e-0000-4000-8000-000000000001"

func mustOpen(t *testing.T, dir string) (*Journal, State) {
	t.Helper()
	j, state, err := Open(dir, boot, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j, state
}

func mustClose(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustWrite(t *testing.T, j *Journal, groups ...feed.Group) {
	t.Helper()
	for _, g := range groups {
		if err := j.Write(g); err != nil {
			t.Fatal(err)
		}
	}
}

func group(position uint64, changes ...feed.Change) feed.Group {
	return feed.Group{Epoch: 1, Position: position, Changes: changes}
}

func put(kind, key string, version uint64, value string) feed.Change {
	return feed.Change{Kind: kind, Key: key, Version: version, Value: []byte(value)}
}

func del(kind, key string, version uint64) feed.Change {
	return feed.Change{Kind: kind, Key: key, Version: version}
}

// sorted puts changes into an order that can be compared.
func sorted(changes []feed.Change) []feed.Change {
	changes = slices.Clone(changes)
	slices.SortFunc(changes, func(a, b feed.Change) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key))
	})
	return changes
}

func checkState(t *testing.T, got State, epoch, position uint64, changes ...feed.Change) {
	t.Helper()
	if got.Epoch != epoch || got.Position != position {
		t.Errorf("state is at position %d of epoch %d, want %d of %d", got.Position, got.Epoch, position, epoch)
	}
	if !slices.EqualFunc(sorted(got.Changes), sorted(changes), func(a, b feed.Change) bool { return reflect.DeepEqual(a, b) }) {
		t.Errorf("state holds %v, want %v", got.Changes, changes)
	}
}

func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j, state := mustOpen(t, dir)
	checkState(t, state, 1, 0)
	mustWrite(t, j,
		group(1, put("session", "a", 1, "a1"), put("call", "a", 1, "")),
		group(2, put("session", "b", 1, "b1"), put("session", "a", 2, "a2")),
		group(3, del("session", "b", 2)),
	)
	mustWrite(t, j, feed.Group{Epoch: 5, Position: 4, Changes: []feed.Change{put("x", "", 1<<63, "\x00\xff")}})
	mustClose(t, j)
	j, state = mustOpen(t, dir)
	want := []feed.Change{put("call", "a", 1, ""), put("session", "a", 2, "a2"), put("x", "", 1<<63, "\x00\xff")}
	checkState(t, state, 5, 4, want...)
	if !reflect.DeepEqual(state.Changes, want) {
		t.Errorf("changes are not in the order of their latest write: %v", state.Changes)
	}
	if err := j.Write(group(5, put("x", "y", 1, "z"))); err == nil {
		t.Error("an epoch that falls is accepted")
	}
	if err := j.Write(feed.Group{Epoch: 5, Position: 6}); err == nil {
		t.Error("a position that jumps is accepted")
	}
	for _, file := range []string{"journal", "lock"} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", file, info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v; want mode 0700", info.Mode(), err)
	}
}

func TestLatest(t *testing.T) {
	j, _ := mustOpen(t, t.TempDir())
	mustWrite(t, j, group(1, put("k", "a", 1, "1"), put("k", "b", 1, "b")), group(2, put("k", "a", 2, "2"), del("k", "b", 2)))
	if c, ok, err := j.Latest("k", "a"); err != nil || !ok || !reflect.DeepEqual(c, put("k", "a", 2, "2")) {
		t.Errorf("latest a: %v, %v, %v", c, ok, err)
	}
	for _, key := range []string{"b", "c"} {
		if c, ok, err := j.Latest("k", key); err != nil || ok {
			t.Errorf("latest %s: %v, %v, %v; want none", key, c, ok, err)
		}
	}
}

func TestAnotherBoot(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	mustWrite(t, j, group(1, put("k", "a", 1, "1")))
	mustClose(t, j)
	var log bytes.Buffer
	j, state, err := Open(dir, "another", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	checkState(t, state, 1, 0)
	if !strings.Contains(log.String(), "another boot") {
		t.Errorf("nothing is said of it: %q", log.String())
	}
	mustClose(t, j)
	_, state = mustOpen(t, dir) // the old boot is gone for good
	checkState(t, state, 1, 0)
}

func TestSecondWriterIsRefused(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	if _, _, err := Open(dir, boot, nil); !errors.Is(err, ErrLocked) {
		t.Fatalf("error %v, want ErrLocked", err)
	}
	mustWrite(t, j, group(1, put("k", "a", 1, "1")))
	mustClose(t, j)
	j, state := mustOpen(t, dir)
	checkState(t, state, 1, 1, put("k", "a", 1, "1"))
	mustClose(t, j)
	if err := j.Write(group(2, put("k", "a", 2, "2"))); !errors.Is(err, ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

// written makes a file of three groups and tells where each record ends.
func written(t *testing.T) (data []byte, ends []int64, states []State) {
	t.Helper()
	dir := t.TempDir()
	j, state := mustOpen(t, dir)
	note := func() {
		ends = append(ends, j.table.size)
		states = append(states, state)
	}
	note()
	for i, g := range []feed.Group{
		group(1, put("session", "a", 1, "aaaa"), put("call", "a", 1, "bbbb")),
		group(2, put("session", "a", 2, "cccc"), put("session", "b", 1, "dddd")),
		group(3, del("session", "a", 3), del("call", "a", 2), put("call", "b", 1, "e")),
	} {
		mustWrite(t, j, g)
		var err error
		if state, err = j.State(); err != nil || state.Position != uint64(i+1) {
			t.Fatal(state, err)
		}
		note()
	}
	mustClose(t, j)
	data, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil || int64(len(data)) != ends[3] {
		t.Fatalf("file of %d bytes, %v; want %d", len(data), err, ends[3])
	}
	return data, ends, states
}

// openBytes opens a journal whose file has the given content.
func openBytes(t *testing.T, data []byte) (*Journal, State, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), data, 0o600); err != nil {
		t.Fatal(err)
	}
	j, state, err := Open(dir, boot, nil)
	if err == nil {
		t.Cleanup(func() { _ = j.Close() })
	}
	return j, state, err
}

// A crash at any byte of a write leaves all groups before and nothing of the one that was being written.
func TestTornTail(t *testing.T) {
	data, ends, states := written(t)
	for size := range int64(len(data)) + 1 {
		j, state, err := openBytes(t, data[:size])
		if size < ends[0] {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%d bytes, without a whole head: %v, want ErrCorrupt", size, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		whole := 0
		for whole+1 < len(ends) && ends[whole+1] <= size {
			whole++
		}
		checkState(t, state, 1, uint64(whole), states[whole].Changes...)
		// The journal goes on where the last whole group ended.
		next := group(uint64(whole)+1, put("k", "n", 1, "next"))
		mustWrite(t, j, next)
		mustClose(t, j)
		_, state = mustOpen(t, j.dir)
		checkState(t, state, 1, next.Position, append(states[whole].Changes, next.Changes...)...)
	}
}

// A wrong bit anywhere but in the payload of the last record is damage, and the message tells where.
func TestDamage(t *testing.T) {
	data, ends, states := written(t)
	for at := range data {
		for _, bit := range []byte{0x01, 0x80} {
			bad := slices.Clone(data)
			bad[at] ^= bit
			_, state, err := openBytes(t, bad)
			if int64(at) >= ends[2]+frameSize {
				if err != nil {
					t.Fatalf("offset %d, in the last payload: %v", at, err)
				}
				checkState(t, state, 1, 2, states[2].Changes...)
				continue
			}
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("offset %d: %v, want ErrCorrupt", at, err)
			}
			record := 0
			for i, end := range ends[:3] {
				if int64(at) >= end {
					record = int(ends[i])
				}
			}
			if want := fmt.Sprintf("offset %d:", record); !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fileName) {
				t.Fatalf("offset %d: message %q lacks %q", at, err, want)
			}
		}
	}
}

// Records with right checksums may still make no sense.
func TestNonsense(t *testing.T) {
	headOf := func(boot string, changes uint64) []byte {
		b, err := encodeHead(head{boot: boot, epoch: 2, position: 5, changes: changes})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	record := func(payload string) []byte {
		b, err := finish(append(make([]byte, frameSize), payload...))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const aChange = "\x01k\x01a\x01\x02v" // kind k, key a, version 1, value v
	tests := []struct {
		name string
		data [][]byte
		ok   bool
	}{
		{"head only", [][]byte{headOf(boot, 0)}, true},
		{"head and snapshot", [][]byte{headOf(boot, 1), record("S" + aChange)}, true},
		{"group follows", [][]byte{headOf(boot, 0), record("G\x02\x06" + aChange)}, true},
		{"empty file", nil, false},
		{"no head", [][]byte{record("G\x02\x06" + aChange)}, false},
		{"head twice", [][]byte{headOf(boot, 0), headOf(boot, 0)}, false},
		{"other format", [][]byte{record("H\x02\x00\x00\x00\x00")}, false},
		{"long head", [][]byte{record("H\x01\x00\x00\x00\x00\x00")}, false},
		{"snapshot too short", [][]byte{headOf(boot, 2), record("S" + aChange)}, false},
		{"group before the snapshot ends", [][]byte{headOf(boot, 2), record("S" + aChange), record("G\x02\x06" + aChange)}, false},
		{"group within the snapshot", [][]byte{headOf(boot, 2), record("S" + aChange), record("G\x02\x06" + aChange), record("S" + aChange)}, false},
		{"snapshot too long", [][]byte{headOf(boot, 1), record("S" + aChange + aChange)}, false},
		{"snapshot after a group", [][]byte{headOf(boot, 0), record("G\x02\x06" + aChange), record("S" + aChange)}, false},
		{"deleted change in the snapshot", [][]byte{headOf(boot, 1), record("S\x01k\x01a\x01\x00")}, false},
		{"position jumps", [][]byte{headOf(boot, 0), record("G\x02\x07" + aChange)}, false},
		{"position repeats", [][]byte{headOf(boot, 0), record("G\x02\x05" + aChange)}, false},
		{"epoch falls", [][]byte{headOf(boot, 0), record("G\x01\x06" + aChange)}, false},
		{"change cut off", [][]byte{headOf(boot, 0), record("G\x02\x06\x01k\x01a\x01\x05v")}, false},
		{"unknown kind", [][]byte{headOf(boot, 0), record("?")}, false},
		{"huge length in a change", [][]byte{headOf(boot, 0), record("G\x02\x06\x01k\x01a\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01v")}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := openBytes(t, bytes.Join(tt.data, nil))
			if tt.ok && err != nil || !tt.ok && !errors.Is(err, ErrCorrupt) {
				t.Errorf("error %v, want ok %v", err, tt.ok)
			}
		})
	}
}

// The half of a snapshot that a crash left is no harm.
func TestLeftoverOfCompaction(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	mustWrite(t, j, group(1, put("k", "a", 1, "1")))
	mustClose(t, j)
	temp := filepath.Join(dir, tempName)
	if err := os.WriteFile(temp, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, state := mustOpen(t, dir)
	checkState(t, state, 1, 1, put("k", "a", 1, "1"))
	if _, err := os.Stat(temp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("leftover is still there: %v", err)
	}
}

func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	mustWrite(t, j, group(1, put("k", "a", 1, "1")))
	good := j.file
	readOnly, err := os.Open(j.path(fileName))
	if err != nil {
		t.Fatal(err)
	}
	j.file = readOnly
	if err := j.Write(group(2, put("k", "a", 2, "22"))); err == nil {
		t.Fatal("write to a read-only file succeeded")
	}
	j.file = good
	if err := readOnly.Close(); err != nil {
		t.Fatal(err)
	}
	// As if a part had been written that could not be cut off.
	if _, err := good.WriteAt(bytes.Repeat([]byte{'x'}, 500), j.table.size); err != nil {
		t.Fatal(err)
	}
	if c, ok, err := j.Latest("k", "a"); !ok || err != nil || c.Version != 1 {
		t.Errorf("latest is %v, %v, %v; want version 1", c, ok, err)
	}
	mustWrite(t, j, group(2, put("k", "a", 3, "3")))
	mustClose(t, j)
	_, state := mustOpen(t, dir)
	checkState(t, state, 1, 2, put("k", "a", 3, "3"))
}

func TestTooLargeGroup(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	if err := j.Write(group(1, put("k", "a", 1, strings.Repeat("x", maxRecord)))); err == nil {
		t.Fatal("accepted")
	}
	large := put("k", "a", 1, strings.Repeat("x", maxRecord-100))
	mustWrite(t, j, group(1, large), group(2, put("k", "b", 1, "b")))
	mustClose(t, j)
	_, state := mustOpen(t, dir)
	checkState(t, state, 1, 2, large, put("k", "b", 1, "b"))
}
