package bench

import (
	"math"
	"math/bits"
	"time"
)

// subBuckets is the number of buckets per power of two: a value is kept with an error of less than 0.8 %.
const subBuckets = 128

// Histogram counts durations from 0 to about 9 minutes in buckets of constant relative width. Negative durations count as 0,
// longer ones as the longest. The zero value is empty. It is not safe for concurrent use.
type Histogram struct {
	counts [33 * subBuckets]uint32
	total  uint64
}

// bucket returns the index for a value: below subBuckets exact, above by power of two and the bits after the first.
func bucket(v uint64) int {
	if v < subBuckets {
		return int(v)
	}
	exponent := bits.Len64(v) - bits.Len64(subBuckets-1)
	return exponent*subBuckets + int(v>>(exponent-1)) - subBuckets
}

// value returns the middle of a bucket.
func value(index int) float64 {
	if index < subBuckets {
		return float64(index)
	}
	exponent := index / subBuckets
	return math.Ldexp(float64(index%subBuckets+subBuckets)+0.5, exponent-1)
}

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	index := min(bucket(uint64(max(d, 0))), len(h.counts)-1)
	h.counts[index]++
	h.total++
}

// Merge adds all counts of another histogram.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
}

// Count is the number of durations.
func (h *Histogram) Count() uint64 { return h.total }

// Quantile returns the duration below or at which the share q (0 to 1) of all lies, 0 if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	rank := max(uint64(math.Ceil(q*float64(h.total))), 1)
	var seen uint64
	for i, n := range h.counts {
		if seen += uint64(n); seen >= rank {
			return time.Duration(value(i))
		}
	}
	return time.Duration(value(len(h.counts) - 1))
}
