// Command tandemd is the control daemon: it speaks SIP, owns the media sessions, and keeps the data plane in line with them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/tandem-relay/tandem/cmd/internal/config"
	"github.com/tandem-relay/tandem/cmd/internal/exit"
	"github.com/tandem-relay/tandem/cmd/internal/version"
)

func main() { os.Exit(int(run(os.Args[1:], os.Stdout, os.Stderr))) }

// run is main without the process: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) exit.Code {
	flags, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exit.OK
	case err != nil:
		fmt.Fprintf(stderr, "tandemd: %v\n", err)
		return exit.Usage
	case flags.version:
		fmt.Fprintf(stdout, "tandemd %s\n", version.String())
		return exit.OK
	}
	cfg, err := config.Load(flags.config)
	if err != nil {
		// The lines about what a file holds begin with its name, as those of a compiler do.
		var problems *config.Problems
		if !errors.As(err, &problems) {
			err = fmt.Errorf("tandemd: %w", err)
		}
		fmt.Fprintln(stderr, err)
		return exit.Config
	}
	logger := slog.New(flags.handler(stderr)).With("instance", cfg.Instance)

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)

	switch err := serve(cfg, signals, stdout, logger); {
	case err == nil:
		return exit.OK
	case errors.Is(err, context.Canceled):
		// A signal came while the parts were still starting.
		logger.Info("interrupted at the start", "step", err)
		return exit.OK
	default:
		logger.Error("tandemd ends", "err", err)
		return exit.Of(err)
	}
}

// flags are what the command line says.
type flags struct {
	config  string
	level   slog.Level
	json    bool
	version bool
}

func parseFlags(args []string, stderr io.Writer) (flags, error) {
	var f flags
	set := flag.NewFlagSet("tandemd", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&f.config, "config", config.DefaultFile, "configuration `file`")
	set.TextVar(&f.level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	set.BoolVar(&f.json, "log-json", false, "log JSON lines")
	set.BoolVar(&f.version, "version", false, "print the version and exit")
	err := set.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stderr, "Usage: tandemd [flags]\n\nThe Tandem media relay. `tandem` operates it.\n\n")
		set.SetOutput(stderr)
		set.PrintDefaults()
		fmt.Fprintf(stderr, "\n%s\n", exit.Help)
	}
	if err == nil && set.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q; the configuration is given with --config", set.Arg(0))
	}
	return f, err
}

func (f flags) handler(w io.Writer) slog.Handler {
	options := &slog.HandlerOptions{Level: f.level}
	if f.json {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}
