package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-relay/tandem/signalling/rest"
)

func newSessionsCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "sessions",
		Aliases: []string{"calls"},
		Short:   "Show calls with their streams, endpoints and packets",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			defer client.Close()
			sessions, err := client.Sessions(cmd.Context())
			if err != nil {
				return explain(err)
			}
			return o.print(rest.Sessions{Sessions: sessions}, func(w io.Writer) error {
				if len(sessions) > 0 {
					return printSessions(w, sessions, time.Now())
				}
				status, err := client.Status(cmd.Context())
				if err != nil {
					return explain(err)
				}
				_, err = fmt.Fprintf(w, "no sessions%s\n", callsLeft(status.Calls))
				return err
			})
		},
	}
}

// callsLeft says, where there are no sessions, that there are calls all the same.
func callsLeft(calls int) string {
	if calls == 0 {
		return ""
	}
	return fmt.Sprintf("; calls without media: %d (just begun, or waiting for the answer to BYE)", calls)
}

func printSessions(w io.Writer, sessions []rest.Session, now time.Time) error {
	for i, s := range sessions {
		if i > 0 {
			fmt.Fprintln(w)
		}
		put(w, "session %s", s.ID)
		if c := s.Call; c != nil {
			since := c.StartedAt
			if c.AnsweredAt != nil {
				since = *c.AnsweredAt
			}
			put(w, ": %s -> %s, %s -> %s, %s for %s", c.From, c.To, c.TrunkIn, c.TrunkOut, c.State, period(now.Sub(since).Seconds()))
		}
		fmt.Fprintln(w)
		if err := printFlows(w, s, now); err != nil {
			return err
		}
	}
	return nil
}

func printFlows(w io.Writer, s rest.Session, now time.Time) error {
	t := newTable(w)
	fmt.Fprintln(t, "  FROM\tNETWORK\tSTREAM\tARRIVES AT\tSIGNALLED\tLEARNT\tPACKETS\tLAST\t")
	for _, p := range s.Parties {
		name := p.Label
		if name == "" {
			name = p.ID
		}
		for _, stream := range p.Streams {
			if len(stream.Flows) == 0 {
				put(t, "  %s\t%s\t%s\tno ports\t%s\t\t\t\t\n", name, p.Network, stream.Media, dash(stream.Signalled))
			}
			for _, f := range stream.Flows {
				signalled := stream.Signalled
				if f.Component == "rtcp" {
					if f.LastSeen == nil && f.Learnt == "" {
						continue
					}
					signalled = f.Remote
				}
				note := ""
				if f.Action != "forward" {
					note = f.Action
				}
				last := "never"
				if f.LastSeen != nil {
					last = period(now.Sub(*f.LastSeen).Seconds()) + " ago"
				}
				put(t, "  %s\t%s\t%s %s\t%s\t%s\t%s\t%s\t%s\t%s\n",
					name, p.Network, stream.Media, f.Component, f.Local, dash(signalled), dash(f.Learnt), counts(f.Packets, false), last, note)
			}
		}
	}
	return t.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func newDropsCommand(o *options) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "drops",
		Short: "Show why packets were dropped or took the slow path",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			defer client.Close()
			drops, err := client.Drops(cmd.Context())
			if err != nil {
				return explain(err)
			}
			return o.print(drops, func(w io.Writer) error { return printDrops(w, drops, all) })
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also show reasons that never occurred")
	return cmd
}

func printDrops(w io.Writer, drops rest.Drops, all bool) error {
	t := newTable(w)
	fmt.Fprintln(t, "REASON\tVERDICT\tPACKETS\tBYTES\tMEANING")
	shown := 0
	for _, r := range drops.Reasons {
		if all || r.Packets > 0 {
			put(t, "%s\t%s\t%d\t%d\t%s\n", r.Name, r.Verdict, r.Packets, r.Bytes, r.Help)
			shown++
		}
	}
	if shown == 0 {
		_, err := fmt.Fprintln(w, "nothing was dropped, and nothing took the slow path")
		return err
	}
	return t.Flush()
}
