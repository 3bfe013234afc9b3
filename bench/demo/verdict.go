package demo

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// text is the verdict for people.
func (r *Result) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n\n", r.headline())
	columns := []string{"", "caller to callee", "callee to caller"}
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', tabwriter.AlignRight)
	row := func(name string, cell func(t *Totals) string) {
		fmt.Fprintf(w, "  %s\t", name)
		for i := range r.Directions {
			fmt.Fprintf(w, "%s\t", cell(&r.Directions[i].Totals))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%s\t\n", strings.Join(columns, "\t"))
	row("packets sent", func(t *Totals) string { return fmt.Sprint(t.Sent) })
	row("received", func(t *Totals) string { return fmt.Sprint(t.Received) })
	row("lost", func(t *Totals) string { return fmt.Sprint(t.Lost) })
	row("duplicated", func(t *Totals) string { return fmt.Sprint(t.Duplicated) })
	row("reordered", func(t *Totals) string { return fmt.Sprint(t.Reordered) })
	row("audio, byte by byte", func(t *Totals) string {
		if t.AudioIntact {
			return "intact"
		}
		return fmt.Sprintf("NOT INTACT (%d damaged, %d strange)", t.Corrupted, t.Strange)
	})
	row("forwarded by XDP", func(t *Totals) string { return fmt.Sprint(t.ForwardedXDP) })
	row("another path", func(t *Totals) string { return fmt.Sprint(t.ForwardedOther) })
	if r.Stopped != nil {
		row("while the daemon was stopped", func(t *Totals) string { return fmt.Sprintf("%d of %d", t.FrozenReceived, t.FrozenSent) })
	}
	row("one way p50 / p99", func(t *Totals) string { return t.OneWayUS.String() + " us" })
	row("direct link, same run", func(t *Totals) string { return t.ReferenceUS.String() + " us" })
	row("added latency p50 / p99", func(t *Totals) string { return added(t.AddedP50) + " / " + added(t.AddedP99) })
	row("jitter mean / worst", func(t *Totals) string { return fmt.Sprintf("%.2f / %.2f ms", t.JitterMS, t.JitterMaxMS) })
	row("jitter, direct link", func(t *Totals) string { return fmt.Sprintf("%.2f ms", t.ReferenceJitterMS) })
	if err := w.Flush(); err != nil {
		return err.Error()
	}
	b.WriteString("\n")
	r.footer(&b)
	return b.String()
}

func (r *Result) headline() string {
	switch {
	case !r.OK:
		return "NOT OK: " + strings.Join(r.Problems, "\n        ")
	case r.Dataplane == XDP && r.ForwardedOther == 0:
		return "OK: nothing was lost, the audio is intact, and XDP carried every packet."
	case r.Dataplane == XDP:
		return fmt.Sprintf("OK: nothing was lost, the audio is intact, and XDP carried all but %d packets.", r.ForwardedOther)
	}
	return "OK: nothing was lost and the audio is intact. The packets went through the daemon's sockets, not through XDP."
}

// footer says what does not fit into the table.
func (r *Result) footer(b *strings.Builder) {
	fmt.Fprintf(b, "  %s from INVITE to BYE; set-up p50 %.1f ms, p99 %.1f ms without the ringing; %d SIP messages sent again\n",
		plural(r.Calls, "call"), r.SetupMS.P50, r.SetupMS.P99, r.SIPRetransmissions)
	if r.ForwardedOther > 0 {
		fmt.Fprintf(b, "  another path: %s", list(r.OtherPaths))
		if len(r.OtherReasons) > 0 {
			fmt.Fprintf(b, "; because of %s", list(r.OtherReasons))
		}
		fmt.Fprintln(b)
	}
	if len(r.Dropped) > 0 {
		fmt.Fprintf(b, "  dropped by Tandem: %s\n", list(r.Dropped))
	}
	if r.Stopped != nil {
		fmt.Fprintf(b, "  daemon stopped by SIGSTOP for %.1f s: %d packets sent meanwhile, %d of them arrived before it went on\n",
			r.Stopped.Seconds, r.Stopped.Sent, r.Stopped.Received)
	}
	fmt.Fprintf(b, "  added latency is one way less the direct link's median; the demo itself sends late by p50 / p99 %s us\n", r.PacingLateUS)
	for _, note := range r.Notes {
		fmt.Fprintf(b, "  note: %s\n", note)
	}
}

// added writes a latency. A difference of two measurements may come out below zero when there is less between them than they resolve.
func added(us float64) string {
	if us < 0 {
		return "within the resolution"
	}
	return fmt.Sprintf("%.1f us", us)
}

// String gives both, without a unit.
func (q Quantiles) String() string { return fmt.Sprintf("%.1f / %.1f", q.P50, q.P99) }

// plural writes a number with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// list writes counts by name, in the order of the names.
func list(counts map[string]uint64) string {
	var items []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		items = append(items, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(items, ", ")
}
