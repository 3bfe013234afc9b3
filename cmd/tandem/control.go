package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/cmd/internal/exit"
	"github.com/tandem-relay/tandem/signalling/rest"
)

// pollInterval is how often a waiting command asks again.
const pollInterval = 250 * time.Millisecond

func newDrainCommand(o *options) *cobra.Command {
	var off, wait bool
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Refuse new calls; with --wait, until none is left",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if off && wait {
				return exit.With(exit.Usage, errors.New("--off takes new calls again: there is no end to --wait for"))
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			defer client.Close()
			state, err := client.Drain(cmd.Context(), !off)
			if err != nil {
				return explain(err)
			}
			if wait {
				if state, err = o.untilEmpty(cmd.Context(), client, state); err != nil {
					return explain(err)
				}
			}
			return o.print(state, func(w io.Writer) error {
				text := "new calls are taken again; %d calls\n"
				if state.Draining {
					text = "new calls are refused; %d calls left\n"
				}
				_, err := fmt.Fprintf(w, text, state.Calls)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&off, "off", false, "take new calls again")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until no call is left")
	return cmd
}

// untilEmpty waits until the daemon has no calls and tells on stderr how many are left.
func (o *options) untilEmpty(ctx context.Context, client *rest.Client, state rest.DrainState) (rest.DrainState, error) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for told := -1; state.Calls > 0; {
		if state.Calls != told {
			told = state.Calls
			fmt.Fprintf(o.stderr, "waiting for %d calls\n", told)
		}
		select {
		case <-ctx.Done():
			return state, fmt.Errorf("interrupted with %d calls left; new calls are still refused (tandem drain --off takes them again)", state.Calls)
		case <-tick.C:
		}
		status, err := client.Status(ctx)
		if ctx.Err() != nil {
			continue
		}
		if err != nil {
			return state, err
		}
		if !status.Draining {
			return state, errors.New("somebody ended the drain")
		}
		state.Calls = status.Calls
	}
	return state, nil
}

func newStopCommand(o *options) *cobra.Command {
	var release bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "End the daemon; XDP goes on forwarding unless --release",
		Long: `Stop ends the daemon and waits until it is gone. With the xdp data plane, calls in progress go on: the kernel forwards them, and
the next tandemd takes them over. With --release the kernel is emptied and all calls are forgotten.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return o.orCleanup(err, release)
			}
			defer client.Close()
			stopping, dataplane, err := stop(cmd.Context(), client, release, timeout)
			if err != nil {
				return explain(err)
			}
			return o.print(stopping, func(w io.Writer) error {
				text := "the kernel goes on with %d calls"
				switch {
				case release:
					text = "nothing is left in the kernel; %d calls were cut off"
				case dataplane != "xdp":
					text = "%d calls are silent until the next tandemd takes them over"
				}
				_, err := fmt.Fprintf(w, "process %d has ended; "+text+"\n", stopping.PID, stopping.Calls)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&release, "release", false, "also remove everything from the kernel and forget all calls")
	cmd.Flags().DurationVar(&timeout, "timeout", 15*time.Second, "how long to wait for the end")
	return cmd
}

// stop asks the daemon to end and waits for it. It also returns the name of the data plane.
func stop(ctx context.Context, client *rest.Client, release bool, timeout time.Duration) (rest.Stopping, string, error) {
	status, err := client.Status(ctx)
	if err != nil {
		return rest.Stopping{}, "", err
	}
	stopping, err := end(ctx, client, status.PID, release, timeout)
	return stopping, status.Dataplane.Name, err
}

// end asks the process to end and waits until it has.
func end(ctx context.Context, client *rest.Client, pid int, release bool, timeout time.Duration) (rest.Stopping, error) {
	// Held before the request, the descriptor cannot come to mean another process.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return rest.Stopping{}, fmt.Errorf("watch process %d: %w", pid, err)
	}
	watched := os.NewFile(uintptr(fd), "pidfd")
	defer watched.Close()
	stopping, err := client.Stop(ctx, release)
	if err != nil {
		return rest.Stopping{}, err
	}
	deadline := time.Now().Add(timeout)
	for {
		if err := ctx.Err(); err != nil {
			return stopping, fmt.Errorf("interrupted; process %d is ending", stopping.PID)
		}
		left := time.Until(deadline)
		if left <= 0 {
			return stopping, fmt.Errorf("process %d was asked to end and has not after %v", stopping.PID, timeout)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(min(left, pollInterval).Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return stopping, fmt.Errorf("wait for process %d: %w", stopping.PID, err)
		}
		if n > 0 {
			return stopping, nil
		}
	}
}
