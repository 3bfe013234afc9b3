// Command tandem is the operator's command line: it asks a running tandemd over its control socket, checks configurations and
// cleans up.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tandem-relay/tandem/cmd/internal/exit"
	"github.com/tandem-relay/tandem/cmd/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(int(code))
}

// failure is what a command that printed nothing else prints as JSON when it fails.
type failure struct {
	Error string `json:"error"`
}

// run carries out one command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) exit.Code {
	o := &options{stdout: stdout, stderr: stderr}
	root := newRootCommand(o)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exit.OK
	}
	if (o.json || slices.Contains(args, "--json")) && !o.printed {
		o.json = true
		// What went wrong is told on stderr too.
		_ = o.print(failure{err.Error()}, nil)
	}
	if !o.started {
		// The command line was not even understood.
		fmt.Fprintf(stderr, "tandem: %v\nSee: tandem help\n", err)
		return exit.Usage
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(stderr, "tandem: %s\n", printable(text, "\n\t"))
	}
	return exit.Of(err)
}

func newRootCommand(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:           "tandem",
		Short:         "Operate a Tandem media relay",
		Long:          "tandem operates a Tandem media relay on this machine.\n\n" + exit.Help,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&o.instance, "instance", "", "name of the instance (default: the one that runs)")
	flags.StringVar(&o.socket, "socket", "", "control socket, instead of the instance's own")
	flags.BoolVar(&o.json, "json", false, "print one JSON object")
	root.AddCommand(
		newStatusCommand(o),
		newSessionsCommand(o),
		newDropsCommand(o),
		newDrainCommand(o),
		newStopCommand(o),
		newCleanupCommand(o),
		newCheckCommand(o),
		newDemoCommand(o),
		newVersionCommand(o),
	)
	for _, cmd := range root.Commands() {
		if carryOut := cmd.RunE; carryOut != nil {
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				o.started = true
				return carryOut(cmd, args)
			}
		}
	}
	return root
}
