package journal

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/tandem-relay/tandem/relay/feed"
)

// A file system that runs full refuses what is new long before it refuses what ends.
func TestRoom(t *testing.T) {
	value := strings.Repeat("v", 1000)
	tests := []struct {
		name string
		why  string
		free int64
		g    feed.Group
		ok   bool
	}{
		{"new", "there is room", reserve + 1<<20, group(2, put("k", "new", 1, value)), true},
		{"new in the reserve", "the calls of today must be able to end", reserve - 1, group(2, put("k", "new", 1, value)), false},
		{"no room for a copy", "the file could never be rewritten", reserve, group(2, put("k", "new", 1, value)), false},
		{"changed", "what is there grows without bound as well", reserve - 1, group(2, put("k", "a", 2, value)), false},
		{"smaller", "the file grows all the same", reserve - 1, group(2, put("k", "a", 2, "v")), false},
		{"deleted", "the end of a call", reserve - 1, group(2, del("k", "a", 2)), true},
		{"deleted with nothing left", "it is small, and the file system decides", 0, group(2, del("k", "a", 2), del("k", "b", 2)), true},
		{"unknown deleted", "it takes nothing", 0, group(2, del("k", "x", 2)), true},
		{"ending", "the session goes, the call says so", floor, group(2, del("k", "a", 2), put("k", "b", 2, value)), true},
		{"ending at the floor", "from here on only deletions", floor - 1, group(2, del("k", "a", 2), put("k", "b", 2, value)), false},
		{"more than it ends", "it is no end", reserve - 1, group(2, del("k", "a", 2), put("k", "b", 2, value+value+value)), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			j, _ := mustOpen(t, dir)
			mustWrite(t, j, group(1, put("k", "a", 1, value), put("k", "b", 1, value)))
			j.free = func() int64 { return tt.free }
			err := j.Write(tt.g)
			if tt.ok && err != nil || !tt.ok && !errors.Is(err, ErrFull) {
				t.Fatalf("error %v, but %s", err, tt.why)
			}
			if tt.ok {
				return
			}
			// Nothing is left of what was refused, and room is used once it is there.
			j.free = func() int64 { return 1 << 40 }
			mustWrite(t, j, group(2, put("k", "b", 7, "later")))
			mustClose(t, j)
			_, state := mustOpen(t, dir)
			checkState(t, state, 1, 2, put("k", "a", 1, value), put("k", "b", 7, "later"))
		})
	}
}

// What the file system itself refuses is told the same way.
func TestNoSpace(t *testing.T) {
	j, _ := mustOpen(t, t.TempDir())
	good := j.file
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	j.file, j.free = full, func() int64 { return 1 << 40 }
	err = j.Write(group(1, put("k", "a", 1, "1")))
	j.file = good
	if !errors.Is(err, ErrFull) {
		t.Errorf("error %v, want ErrFull", err)
	}
	mustWrite(t, j, group(1, put("k", "a", 1, "1")))
}

func TestFreeSpace(t *testing.T) {
	j, _ := mustOpen(t, t.TempDir())
	if free := j.freeSpace(); free < 1<<20 {
		t.Errorf("%d bytes are free where the tests run", free)
	}
}

// Rewriting gives room back, so it happens sooner when room is short; but it never takes the room of the deletions.
func TestRewritingWhenShort(t *testing.T) {
	const slack = 1000
	large := strings.Repeat("v", 10*slack)
	tests := []struct {
		name string
		free int64
		want bool
	}{
		{"enough", 1 << 30, false},
		{"short", reserve, true},
		{"not even for that", floor + 10*slack, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j, _, err := open(t.TempDir(), boot, nil, slack)
			if err != nil {
				t.Fatal(err)
			}
			defer mustClose(t, j)
			// A fifth of the file is no longer needed.
			mustWrite(t, j, group(1, put("k", "a", 1, large)), group(2, put("k", "b", 1, large[:2*slack])), group(3, del("k", "b", 2)))
			file := j.file
			j.free = func() int64 { return tt.free }
			mustWrite(t, j, group(4, del("k", "x", 1)))
			j.done.Wait()
			if got := j.file != file; got != tt.want {
				t.Errorf("rewritten %v, want %v", got, tt.want)
			}
		})
	}
}
