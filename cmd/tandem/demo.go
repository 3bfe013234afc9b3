package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tandem-relay/tandem/bench/demo"
	"github.com/tandem-relay/tandem/cmd/internal/exit"
)

func newDemoCommand(shared *options) *cobra.Command {
	o := demo.Options{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Place real calls through a tandemd of its own and say what became of every packet",
		Long: `demo makes network namespaces (caller, tandem, callee), starts a real tandemd in the middle one with native XDP, and
places calls through it, with G.711 speech both ways. In the middle it stops the daemon with SIGSTOP for three seconds:
what flows meanwhile, the kernel carries alone. It ends with a verdict, and with exit status 0 only if nothing was lost
or duplicated, the audio is intact byte by byte, and XDP carried all but at most two packets of every stream.

It needs root. Without root, --dataplane userspace does the same over loopback addresses with the daemon's sockets.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.NoArgs(cmd, args); err != nil {
				return usage(cmd, shared, o, fmt.Errorf("demo takes flags only, not %q", args[0]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out, o.Err = cmd.OutOrStdout(), cmd.ErrOrStderr()
			o.JSON = wantsJSON(cmd)
			if err := refuseForeign(cmd); err != nil {
				return usage(cmd, shared, o, err)
			}
			if err := o.Check(); err != nil {
				return usage(cmd, shared, o, err)
			}
			// A terminal that is closed, or a pipe, must not keep the demo from cleaning up either.
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
			defer stop()
			shared.printed = o.JSON // whatever becomes of it
			err := demo.Run(ctx, o)
			if errors.Is(err, demo.ErrPrivilege) {
				return exit.With(exit.Privilege, err)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Dataplane, "dataplane", demo.XDP, "what moves the packets: xdp or userspace")
	flags.IntVar(&o.Seconds, "seconds", 10, fmt.Sprintf("how long the calls talk, 1 to %d", demo.MaxSeconds))
	flags.IntVar(&o.Calls, "calls", 1, fmt.Sprintf("how many calls at once, 1 to %d", demo.MaxCalls))
	flags.StringVar(&o.Daemon, "tandemd", "", "path of the daemon (default: tandemd beside this program)")
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var invalid *pflag.InvalidValueError
		if errors.As(err, &invalid) && invalid.GetFlag().Value.Type() == "int" {
			err = fmt.Errorf("--%s is %q: want a whole number", invalid.GetFlag().Name, invalid.GetValue())
		}
		return usage(cmd, shared, o, err)
	})
	return cmd
}

// wantsJSON reads the flag that all commands share.
func wantsJSON(cmd *cobra.Command) bool {
	flag := cmd.Flags().Lookup("json")
	return flag != nil && flag.Value.String() == "true"
}

// refuseForeign refuses the flags of a running daemon: the demo has one of its own.
func refuseForeign(cmd *cobra.Command) error {
	for _, name := range []string{"instance", "socket"} {
		if flag := cmd.Flags().Lookup(name); flag != nil && flag.Changed {
			return fmt.Errorf("--%s does not go with demo, which starts a daemon of its own", name)
		}
	}
	return nil
}

// usage is the error of a wrong command line, with its object for --json.
func usage(cmd *cobra.Command, shared *options, o demo.Options, err error) error {
	// The flag may stand behind the one that is wrong.
	if wantsJSON(cmd) || slices.Contains(os.Args, "--json") {
		shared.printed = true
		err = errors.Join(err, demo.WriteFailure(cmd.OutOrStdout(), o, err))
	}
	return exit.With(exit.Usage, err)
}
