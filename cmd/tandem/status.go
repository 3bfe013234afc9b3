package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/tandem-relay/tandem/signalling/rest"
)

func newStatusCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the daemon at a glance",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			defer client.Close()
			status, err := client.Status(cmd.Context())
			if err != nil {
				return explain(err)
			}
			return o.print(status, func(w io.Writer) error { return printStatus(w, status) })
		},
	}
}

func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 8, 2, ' ', 0) }

func printStatus(w io.Writer, s rest.Status) error {
	t := newTable(w)
	put(t, "tandemd\t%s\n", s.Version)
	put(t, "instance\t%s, process %d, up %s\n", s.Instance, s.PID, period(s.UptimeSeconds))
	switch s.Dataplane.Name {
	case "xdp":
		put(t, "data plane\txdp: the kernel forwards\n")
	default:
		put(t, "data plane\t%s: NOT IN THE KERNEL\n", strings.ToUpper(s.Dataplane.Name))
	}
	for _, warning := range s.Dataplane.Warnings {
		put(t, "WARNING\t%s\n", warning)
	}
	drain := ""
	if s.Draining {
		drain = " (DRAINING: new calls are refused)"
	}
	put(t, "calls\t%d%s%s\n", s.Calls, withoutMedia(s), drain)
	put(t, "media sessions\t%d\n", s.Sessions)
	put(t, "forwarded\t%s\n", counts(s.Forwarded, true))
	put(t, "slow path\t%s\n", counts(s.Punted, false))
	put(t, "dropped\t%s\n", counts(s.Dropped, false))
	for _, part := range slices.Sorted(maps.Keys(s.Panics)) {
		if n := s.Panics[part]; n > 0 {
			put(t, "WARNING\t%d panics in %s: please report what the log says\n", n, part)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = newTable(w)
	fmt.Fprintln(t, "MEDIA ADDRESS\tNETWORK\tPORT PAIRS\tUSED\tQUARANTINED\tFREE")
	for _, p := range s.Ports {
		put(t, "%s\t%s\t%d\t%d\t%d\t%d\n", p.Address, p.Network, p.Total, p.Used, p.Quarantined, p.Total-p.Used-p.Quarantined)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	counted := slices.DeleteFunc(slices.Sorted(maps.Keys(s.SIP)), func(name string) bool { return s.SIP[name] == 0 })
	if len(counted) == 0 {
		_, err := fmt.Fprintln(w, "SIP: nothing yet")
		return err
	}
	t = newTable(w)
	fmt.Fprintln(t, "SIP\tCOUNT")
	for _, name := range counted {
		put(t, "%s\t%d\n", name, s.SIP[name])
	}
	return t.Flush()
}

// withoutMedia says of how many calls sessions shows nothing, and why.
func withoutMedia(s rest.Status) string {
	if s.Calls <= s.Sessions {
		return ""
	}
	return fmt.Sprintf(" (%d without media: just begun, or waiting for the answer to BYE)", s.Calls-s.Sessions)
}

// put is fmt.Fprintf for what others wrote. Names of SIP reach us as their senders chose them: what is not printable must not
// reach the terminal, where it could colour, hide and overwrite, nor break the lines and cells of a table.
func put(w io.Writer, format string, args ...any) {
	for i, arg := range args {
		if s, ok := arg.(string); ok {
			args[i] = printable(s, "")
		}
	}
	// An error is that of the terminal, or comes back when the table is flushed.
	fmt.Fprintf(w, format, args...)
}

// printable replaces what is not printable, except some, by U+FFFD.
func printable(s, except string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || strings.ContainsRune(except, r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// counts writes named counters in one line; without all, those that are zero are left out.
func counts(named map[string]uint64, all bool) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if all || named[name] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", name, named[name]))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// period writes a time span for people: to the second, or to the minute beyond an hour.
func period(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	switch {
	case d < time.Hour:
		return d.String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
