package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandem-relay/tandem/cmd/internal/config"
	"github.com/tandem-relay/tandem/cmd/internal/exit"
	"github.com/tandem-relay/tandem/cmd/internal/version"
)

// checked is what check prints as JSON.
type checked struct {
	File     string    `json:"file"`
	OK       bool      `json:"ok"`
	Problems []problem `json:"problems"`
	// Notes are what is allowed and perhaps not meant.
	Notes []string `json:"notes"`
}

// problem is one thing that is wrong with a configuration.
type problem struct {
	Line    int    `json:"line,omitempty"` // 0: the file as a whole
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func newCheckCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration against this host without starting anything",
		Long: fmt.Sprintf(`Check reads the configuration (default %s) as tandemd would, and checks it against the interfaces, addresses
and ports of this host. It exits with 0 if tandemd would take it, else with %d. It does so without trying XDP: whether the program
can be attached and its packets leave by the interfaces, only the start of tandemd shows.`, config.DefaultFile, exit.Config),
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file := config.DefaultFile
			if len(args) > 0 {
				file = args[0]
			}
			cfg, err := config.Load(file)
			out := checked{File: file, OK: err == nil, Problems: problems(err), Notes: notes(cfg)}
			if err != nil && !o.json {
				var all *config.Problems
				if !errors.As(err, &all) {
					return exit.With(exit.Config, err)
				}
				// Its lines begin with the name of the file, as those of a compiler do.
				fmt.Fprintln(o.stderr, err)
				return exit.With(exit.Config, errors.New(""))
			}
			if err := o.print(out, func(w io.Writer) error { return printConfig(w, cfg) }); err != nil {
				return err
			}
			if err != nil {
				return exit.With(exit.Config, errors.New(""))
			}
			return nil
		},
	}
}

func problems(err error) []problem {
	list := []problem{}
	var all *config.Problems
	switch {
	case err == nil:
	case errors.As(err, &all):
		for _, p := range all.List {
			list = append(list, problem{p.Line, p.Column, p.Message, p.Hint})
		}
	default:
		list = append(list, problem{Message: err.Error()})
	}
	return list
}

// printConfig tells what would run.
func printConfig(w io.Writer, cfg *config.Config) error {
	put(w, "%s is good: instance %q, data plane %s\n", cfg.File, cfg.Instance, cfg.Dataplane)
	t := newTable(w)
	for _, n := range cfg.Networks {
		put(t, "network %s", n.Name)
		if len(n.Interfaces) > 0 {
			put(t, "\ton %s", strings.Join(n.Interfaces, ", "))
			if n.Mode != "native" {
				fmt.Fprintf(t, " (%s XDP: slow)", n.Mode)
			}
		} else {
			fmt.Fprint(t, "\ton no interface of its own")
		}
		var sip, media []string
		for _, l := range n.Listeners {
			sip = append(sip, "udp:"+l.Addr.String()+shownAs(l.Addr, l.Advertise))
		}
		for _, m := range n.Media {
			media = append(media, fmt.Sprintf("%s:%v%s (%d pairs)", m.Address, m.Ports, shownAs(m.Address, m.Advertise), m.Ports.Pairs()))
		}
		fmt.Fprintf(t, "\tSIP %s\tmedia %s\n", list(sip), list(media))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	t = newTable(w)
	for _, tr := range cfg.Trunks {
		var sources []string
		for _, p := range tr.Sources {
			sources = append(sources, p.String())
		}
		route := "its calls are refused"
		if tr.Route != "" {
			route = "its calls go to " + tr.Route
		}
		fmt.Fprintf(t, "trunk %s\tin %s\tpeer %s\tfrom %s\t%s\n", tr.Name, tr.Network, tr.Peer, list(sources), route)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, note := range notes(cfg) {
		put(w, "note: %s\n", note)
	}
	return nil
}

// notes tells what is allowed and perhaps not meant; of no configuration, nothing.
func notes(cfg *config.Config) []string {
	list := []string{}
	if cfg == nil {
		return list
	}
	if len(cfg.Trunks) == 0 {
		list = append(list, "no trunk is defined: every call is refused")
	}
	for i, n := range cfg.Networks {
		for _, other := range cfg.Networks[:i] {
			for _, name := range n.Interfaces {
				if slices.Contains(other.Interfaces, name) {
					list = append(list, fmt.Sprintf("networks %s and %s are both on %s: only their addresses keep them apart", other.Name, n.Name, name))
				}
			}
		}
	}
	return list
}

func list(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

// shownAs tells what peers see, where that differs.
func shownAs[T comparable](own, advertised T) string {
	if own == advertised {
		return ""
	}
	return fmt.Sprintf(" shown as %v", advertised)
}

func newVersionCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			out := struct {
				Version  string `json:"version"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{version.String(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return o.print(out, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "tandem %s (%s, %s)\n", out.Version, out.Go, out.Platform)
				return err
			})
		},
	}
}
