package bench

import (
	"math"
	"testing"
	"time"
)

func TestHistogramQuantile(t *testing.T) {
	tests := []struct {
		name, why string
		durations func(add func(time.Duration))
		q         float64
		want      time.Duration
	}{
		{"empty", "nothing is measured", func(func(time.Duration)) {}, 0.5, 0},
		{"single", "one value is every quantile", func(add func(time.Duration)) { add(90) }, 0.99, 90},
		{"negative", "a clock step must not break it", func(add func(time.Duration)) { add(-5) }, 0.5, 0},
		{"median", "the middle of 1 to 999 us", ramp(999), 0.5, 500 * time.Microsecond},
		{"p99", "the tail of 1 to 1000 us", ramp(1000), 0.99, 990 * time.Microsecond},
		{"beyond", "counted as the longest", func(add func(time.Duration)) { add(24 * time.Hour) }, 1, 549 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var one, two, h Histogram
			n := 0
			test.durations(func(d time.Duration) {
				if n++; n%2 == 0 {
					one.Add(d)
				} else {
					two.Add(d)
				}
			})
			h.Merge(&one)
			h.Merge(&two)
			if got := h.Quantile(test.q); math.Abs(float64(got-test.want)) > 0.008*float64(test.want) {
				t.Errorf("quantile %v is %v, want %v: %s", test.q, got, test.want, test.why)
			}
			if h.Count() != uint64(n) {
				t.Errorf("count %d, want %d", h.Count(), n)
			}
		})
	}
}

func ramp(n int) func(func(time.Duration)) {
	return func(add func(time.Duration)) {
		for i := range n {
			add(time.Duration(i+1) * time.Microsecond)
		}
	}
}

// TestBuckets walks over values and requires the buckets to be in order, without gaps, and as narrow as promised.
func TestBuckets(t *testing.T) {
	last := -1
	for v := uint64(0); v < 1<<20; v++ {
		b := bucket(v)
		if b != last && b != last+1 {
			t.Fatalf("bucket of %d is %d after %d", v, b, last)
		}
		last = b
		if v > 0 && math.Abs(value(b)-float64(v)) > 0.008*float64(v) {
			t.Fatalf("bucket of %d stands for %v", v, value(b))
		}
	}
}
