package xdp

import (
	"testing"
	"time"
)

// TestLull: a stream is handed over when two looks find the same, or at the limit.
func TestLull(t *testing.T) {
	start := time.Unix(1000, 0)
	limit := start.Add(settleLimit)
	type look struct {
		at       time.Time
		punted   uint32
		accepted uint64
		over     bool
	}
	for _, tt := range []struct {
		name  string
		looks []look
	}{
		{"one look is none", []look{{start, 1, 1, false}, {start, 1, 1, true}}},
		{"nothing ever came", []look{{start, 0, 0, false}, {start, 0, 0, true}}},
		{"the program still punts", []look{{start, 1, 1, false}, {start, 2, 1, false}, {start, 2, 1, true}}},
		{"the slow path still works", []look{{start, 9, 1, false}, {start, 9, 2, false}, {start, 9, 9, false}, {start, 9, 9, true}}},
		{"no pause at all", []look{{start, 1, 1, false}, {limit.Add(-1), 2, 2, false}, {limit, 3, 3, true}}},
	} {
		wait := lull{limit: limit}
		for i, l := range tt.looks {
			if got := wait.over(l.at, l.punted, l.accepted); got != l.over {
				t.Errorf("%s: look %d: over %v, want %v", tt.name, i, got, l.over)
			}
		}
	}
}
