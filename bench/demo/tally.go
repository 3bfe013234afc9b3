package demo

import (
	"maps"
	"net/netip"
	"time"

	"github.com/tandem-relay/tandem/bench"
)

// tally adds up streams.
type tally struct {
	report            bench.Report
	streams, silent   int
	around            int // streams of which more than spareXDP packets did not go through XDP
	jitter            float64
	jitterMax         float64
	xdp, other        uint64
	paths, reasons    map[string]uint64
	oneWay, reference bench.Histogram
	referenceJitter   float64
	referenced        int
}

// add counts one stream, whose packets come from the address.
func (t *tally) add(sink *bench.Sink, a account, from netip.AddrPort) {
	r := sink.Report()
	t.sum(r)
	t.streams++
	if r.Sent == 0 {
		t.silent++
	}
	t.jitter += r.JitterMS
	t.jitterMax = max(t.jitterMax, r.JitterMS)
	t.oneWay.Merge(sink.Latency())
	var xdp uint64
	for path, n := range a.paths[from] {
		if path == XDP {
			xdp = n
			continue
		}
		t.other += n
		t.paths = plus(t.paths, path, n)
	}
	t.xdp += xdp
	if r.Sent > xdp+spareXDP {
		t.around++
	}
	for reason, n := range a.reasons[from] {
		t.reasons = plus(t.reasons, reason, n)
	}
}

// refer adds a reference stream.
func (t *tally) refer(sink *bench.Sink) {
	t.reference.Merge(sink.Latency())
	t.referenceJitter += sink.Report().JitterMS
	t.referenced++
}

func (t *tally) sum(r bench.Report) {
	t.report.Sent += r.Sent
	t.report.Received += r.Received
	t.report.Lost += r.Lost
	t.report.Duplicated += r.Duplicated
	t.report.Reordered += r.Reordered
	t.report.Corrupted += r.Corrupted
	t.report.Strange += r.Strange
	t.report.Overrun += r.Overrun
	t.report.FrozenSent += r.FrozenSent
	t.report.FrozenReceived += r.FrozenReceived
}

func (t *tally) merge(o *tally) {
	t.sum(o.report)
	t.streams += o.streams
	t.silent += o.silent
	t.around += o.around
	t.jitter += o.jitter
	t.jitterMax = max(t.jitterMax, o.jitterMax)
	t.xdp += o.xdp
	t.other += o.other
	for path, n := range o.paths {
		t.paths = plus(t.paths, path, n)
	}
	for reason, n := range o.reasons {
		t.reasons = plus(t.reasons, reason, n)
	}
	t.oneWay.Merge(&o.oneWay)
	t.reference.Merge(&o.reference)
	t.referenceJitter += o.referenceJitter
	t.referenced += o.referenced
}

func (t *tally) totals() Totals {
	totals := Totals{
		Report:            t.report,
		AudioIntact:       t.report.Received > 0 && t.report.Lost+t.report.Corrupted+t.report.Strange == 0,
		ForwardedXDP:      t.xdp,
		ForwardedOther:    t.other,
		OtherPaths:        orEmpty(t.paths),
		OtherReasons:      orEmpty(t.reasons),
		OneWayUS:          quantiles(&t.oneWay, time.Microsecond),
		ReferenceUS:       quantiles(&t.reference, time.Microsecond),
		JitterMaxMS:       round(t.jitterMax),
		ReferenceJitterMS: round(t.referenceJitter / float64(max(1, t.referenced))),
	}
	totals.JitterMS = round(t.jitter / float64(max(1, t.streams)))
	if t.oneWay.Count() > 0 && t.reference.Count() > 0 {
		totals.AddedP50 = round(totals.OneWayUS.P50 - totals.ReferenceUS.P50)
		totals.AddedP99 = round(totals.OneWayUS.P99 - totals.ReferenceUS.P50)
	}
	return totals
}

func plus(m map[string]uint64, key string, n uint64) map[string]uint64 {
	if n == 0 {
		return m
	}
	if m == nil {
		m = map[string]uint64{}
	}
	m[key] += n
	return m
}

func orEmpty(m map[string]uint64) map[string]uint64 {
	if m == nil {
		return map[string]uint64{}
	}
	return maps.Clone(m)
}
