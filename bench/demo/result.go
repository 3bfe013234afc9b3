package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/tandem-relay/tandem/bench"
	"github.com/tandem-relay/tandem/signalling/rest"
)

// The directions of a call.
const (
	callerToCallee = iota
	calleeToCaller
	directions
)

// spareXDP is how many packets of a stream may go another way than XDP.
const spareXDP = 2

// Result is what the demo found: the object that --json prints. Times are of this machine's one clock.
type Result struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"` // why there is no complete result
	// Problems are the reasons why OK is false, Notes what one should know besides.
	Problems []string `json:"problems"`
	Notes    []string `json:"notes"`

	Dataplane  string      `json:"dataplane"`
	Seconds    int         `json:"seconds"`
	Directions []Direction `json:"directions"`
	Stopped    *Stopped    `json:"stopped"` // null: the daemon was not stopped
	// SetupMS is the time from INVITE to 200 without the ringing.
	SetupMS            Quantiles `json:"setup_ms"`
	SIPRetransmissions uint64    `json:"sip_retransmissions"`
	// PacingLateUS is by how much the sources sent after their time: the demo's own share of the jitter.
	PacingLateUS Quantiles `json:"pacing_late_us"`
	// Dropped are packets that Tandem dropped, by reason.
	Dropped map[string]uint64 `json:"dropped"`

	Calls int `json:"calls"` // that went from INVITE to BYE
	Totals
}

// Totals are the figures of one direction, or of both together.
type Totals struct {
	bench.Report
	AudioIntact  bool   `json:"audio_intact"`
	ForwardedXDP uint64 `json:"forwarded_xdp"`
	// ForwardedOther packets took another path; OtherPaths and OtherReasons say which and why.
	ForwardedOther uint64            `json:"forwarded_other"`
	OtherPaths     map[string]uint64 `json:"other_paths"`
	OtherReasons   map[string]uint64 `json:"other_reasons"`
	// One way from just before the packet is sent to the kernel's receive timestamp: through Tandem, and over a direct link in
	// the same run.
	OneWayUS    Quantiles `json:"one_way_us"`
	ReferenceUS Quantiles `json:"reference_us"`
	// What Tandem adds: the quantiles of OneWayUS less the median of ReferenceUS.
	AddedP50 float64 `json:"latency_us_p50"`
	AddedP99 float64 `json:"latency_us_p99"`
	// Report's jitter is the mean over the streams (RFC 3550), at the end of the call.
	JitterMaxMS       float64 `json:"jitter_ms_max"`
	ReferenceJitterMS float64 `json:"reference_jitter_ms"`
}

// Direction is one direction of all calls.
type Direction struct {
	Name string `json:"name"`
	Totals
}

// Quantiles of a measured time.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// Stopped is what happened while the daemon was stopped.
type Stopped struct {
	Seconds  float64 `json:"seconds"`
	Sent     uint64  `json:"packets_sent"`
	Received uint64  `json:"packets_received"` // before it went on
}

func quantiles(h *bench.Histogram, unit time.Duration) Quantiles {
	in := func(q float64) float64 { return round(float64(h.Quantile(q)) / float64(unit)) }
	return Quantiles{in(0.50), in(0.99)}
}

// round leaves hundredths.
func round(v float64) float64 { return float64(int64(v*100+0.5*sign(v))) / 100 }

func sign(v float64) float64 {
	if v < 0 {
		return -1
	}
	return 1
}

// carried is how Tandem says it carried one stream.
type carried map[string]uint64

// account is what Tandem says of the streams, by the address that sends them.
type account struct {
	paths   map[netip.AddrPort]carried
	reasons map[netip.AddrPort]map[string]uint64
}

// read takes the flows of all sessions that carry RTP.
func read(sessions []rest.Session) account {
	a := account{map[netip.AddrPort]carried{}, map[netip.AddrPort]map[string]uint64{}}
	for _, session := range sessions {
		for _, party := range session.Parties {
			for _, stream := range party.Streams {
				from, err := netip.ParseAddrPort(stream.Signalled)
				if err != nil {
					continue
				}
				for _, flow := range stream.Flows {
					if flow.Component == "rtp" {
						a.paths[from] = flow.Packets
						a.reasons[from] = flow.Punted
					}
				}
			}
		}
	}
	return a
}

// evidence is everything that a result is made of.
type evidence struct {
	options  Options
	stations *stations
	calls    *calls
	account  account
	dropped  map[string]uint64
	stopped  time.Duration // 0: not stopped
	notes    []string
}

// result adds everything up and judges it.
func (e *evidence) result() *Result {
	established, ended := e.calls.count()
	lateness := e.stations.lateness()
	r := &Result{
		Notes:              append([]string{}, e.notes...),
		Dataplane:          e.options.Dataplane,
		Seconds:            e.options.Seconds,
		SetupMS:            quantiles(&e.calls.setup, time.Millisecond),
		SIPRetransmissions: e.stations.caller.agent.Retransmissions() + e.stations.callee.agent.Retransmissions(),
		PacingLateUS:       quantiles(&lateness, time.Microsecond),
		Dropped:            e.dropped,
		Calls:              ended,
	}
	var all tally
	for direction, name := range []string{callerToCallee: "caller to callee", calleeToCaller: "callee to caller"} {
		var t tally
		for _, call := range e.stations.calls {
			source := call.caller.conn
			if direction == calleeToCaller {
				source = call.callee.conn
			}
			t.add(call.sinks()[direction], e.account, local(source))
		}
		for _, reference := range e.stations.references {
			t.refer(reference.sinks()[direction])
		}
		r.Directions = append(r.Directions, Direction{name, t.totals()})
		all.merge(&t)
	}
	r.Totals = all.totals()
	if e.stopped > 0 {
		r.Stopped = &Stopped{round(e.stopped.Seconds()), r.FrozenSent, r.FrozenReceived}
	}
	r.Problems = append(append([]string{}, e.calls.problems...), e.judge(&all, established, ended)...)
	r.OK = len(r.Problems) == 0
	return r
}

// judge lists what is wrong, apart from what went wrong in single calls.
func (e *evidence) judge(all *tally, established, ended int) []string {
	var problems []string
	complain := func(bad bool, format string, args ...any) {
		if bad {
			problems = append(problems, fmt.Sprintf(format, args...))
		}
	}
	t := all.totals()
	complain(established < e.options.Calls, "%d of %d calls were not established", e.options.Calls-established, e.options.Calls)
	complain(ended < established, "%d of %d calls did not end by BYE", established-ended, established)
	complain(all.silent > 0, "%d of %d streams sent nothing", all.silent, all.streams)
	complain(t.Lost > 0, "%d packets were lost", t.Lost)
	complain(t.Overrun > 0, "%d of them at the demo's own sockets, which were full: this machine is too slow for so many calls", t.Overrun)
	complain(t.FrozenReceived < t.FrozenSent, "of %d packets sent while the daemon was stopped only %d arrived meanwhile", t.FrozenSent, t.FrozenReceived)
	complain(t.Duplicated > 0, "%d packets were duplicated", t.Duplicated)
	// Whatever is carried in the kernel stays in order; sockets of a busy machine need not.
	complain(e.options.Dataplane == XDP && t.Reordered > 0, "%d packets arrived out of order", t.Reordered)
	complain(t.Corrupted > 0, "%d packets were not byte for byte what was sent", t.Corrupted)
	complain(t.Strange > 0, "%d packets of something else arrived", t.Strange)
	complain(e.options.Dataplane == XDP && all.around > 0, "on %d of %d streams XDP did not carry all but at most %d packets", all.around, all.streams, spareXDP)
	complain(e.options.Dataplane == Userspace && t.ForwardedOther < t.Received, "Tandem counts only %d of %d packets", t.ForwardedOther, t.Received)
	return problems
}

// failed is the result of a demo that did not get to its end.
func failed(o Options, err error) *Result {
	return &Result{Error: err.Error(), Problems: []string{err.Error()}, Notes: []string{}, Dataplane: o.Dataplane, Seconds: o.Seconds,
		Directions: []Direction{}, Dropped: map[string]uint64{}, Totals: (&tally{}).totals()}
}

// WriteFailure writes the object of --json for a demo that could not run at all.
func WriteFailure(w io.Writer, o Options, err error) error { return failed(o, err).write(w) }

// write prints the result as one JSON object.
func (r *Result) write(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(r); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}
