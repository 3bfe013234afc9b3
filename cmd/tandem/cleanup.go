package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/cmd/internal/config"
	"github.com/tandem-relay/tandem/cmd/internal/exit"
	"github.com/tandem-relay/tandem/cmd/internal/lifecycle"
)

// cleaned is what cleanup prints as JSON.
type cleaned struct {
	Instance string `json:"instance"`
	Kernel   bool   `json:"kernel"` // false: this user may not look at the pins
	// What was there and is no more.
	RemovedKernel  bool `json:"removed_kernel"`
	RemovedJournal bool `json:"removed_journal"`
	// Others are the instances that run or left something, unless this one was removed: perhaps one of them was meant.
	Others []string `json:"others"`
}

func newCleanupCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Remove what an instance left in the kernel and its journal, without a daemon",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if o.socket != "" {
				return exit.With(exit.Usage, errors.New("cleanup works on an --instance, not on a --socket"))
			}
			instance := o.instance
			if instance == "" {
				instance = "default"
			}
			empty := func(instance string) error { return bpf.Cleanup("", instance) }
			out, err := cleanup(bpf.DefaultRoot, instance, empty)
			if err != nil {
				return err
			}
			return o.print(out, func(w io.Writer) error { return printCleaned(w, out) })
		},
	}
}

func printCleaned(w io.Writer, out cleaned) error {
	var text string
	switch {
	case out.RemovedKernel && out.RemovedJournal:
		text = "removed from the kernel, and its journal with it"
	case out.RemovedKernel:
		text = "removed from the kernel; there was no journal"
	case out.RemovedJournal && out.Kernel:
		text = "the journal is removed; there was nothing in the kernel"
	case out.RemovedJournal:
		text = "the journal is removed"
	default:
		text = "there was nothing to remove"
	}
	if !out.Kernel {
		text += "; the kernel was not looked at, which needs root"
	}
	if len(out.Others) > 0 {
		text += "; other instances here: " + strings.Join(out.Others, ", ")
	}
	put(w, "instance %q: %s\n", out.Instance, text)
	return nil
}

// cleanup removes the runtime directory of an instance that no process holds, and its pins below root by empty. The journal goes
// first: if the rest is interrupted, the next start finds flows without calls, which it removes, and not calls without flows.
func cleanup(root, instance string, empty func(instance string) error) (cleaned, error) {
	out := cleaned{Instance: instance, Others: []string{}}
	if !config.ValidInstance(instance) {
		return out, exit.With(exit.Usage, fmt.Errorf("%q cannot name an instance", instance))
	}
	base := config.RuntimeBase()
	dir := filepath.Join(base, instance)
	if err := lifecycle.PrepareDir(dir); err != nil {
		return out, err
	}
	lock, err := lifecycle.Acquire(dir, lifecycle.Owner{PID: os.Getpid(), Started: time.Now()})
	if err != nil {
		var running *lifecycle.RunningError
		if errors.As(err, &running) {
			return out, exit.With(exit.Running, fmt.Errorf("%w; stop it first: tandem stop --release --instance %s", err, instance))
		}
		return out, err
	}
	kernel, journal := left(root, base, instance)
	if err := lock.Clear(); err != nil {
		return out, errors.Join(err, lock.Release())
	}
	out.RemovedJournal = journal
	err = empty(instance)
	switch {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
	case err != nil:
		return out, errors.Join(fmt.Errorf("empty the kernel: %w", err), lock.Release())
	default:
		out.Kernel, out.RemovedKernel = true, kernel
	}
	err = lock.Remove()
	if !out.RemovedKernel && !out.RemovedJournal {
		out.Others = append(out.Others, known(root, base)...)
	}
	return out, err
}

// left reports whether an instance has pins below root, and whether it has a journal or anything else but a lock below base.
func left(root, base, instance string) (kernel, journal bool) {
	_, err := os.Stat(filepath.Join(root, instance))
	kernel = err == nil
	// Who may not look there has nothing there either.
	entries, _ := os.ReadDir(filepath.Join(base, instance))
	journal = slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != "lock" })
	return kernel, journal
}

// known lists the instances that run or left something.
func known(root, base string) []string {
	names := map[string]bool{}
	for _, dir := range []string{root, base} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.IsDir() && config.ValidInstance(e.Name()) {
				names[e.Name()] = true
			}
		}
	}
	list := slices.Sorted(maps.Keys(names))
	return slices.DeleteFunc(list, func(name string) bool {
		kernel, journal := left(root, base, name)
		return !kernel && !journal
	})
}

// orCleanup adds to the error of a stop that found no daemon how what an earlier one left is removed, if there is any and that
// was asked for.
func (o *options) orCleanup(err error, release bool) error {
	if !release || exit.Of(err) != exit.NotRunning {
		return err
	}
	names := known(bpf.DefaultRoot, config.RuntimeBase())
	if o.instance != "" {
		names = slices.DeleteFunc(names, func(name string) bool { return name != o.instance })
	}
	return exit.With(exit.NotRunning, hintCleanup(err, names))
}

func hintCleanup(err error, names []string) error {
	for _, name := range names {
		err = fmt.Errorf("%w\nwhat instance %q left in the kernel or in its journal is removed by: tandem cleanup --instance %s", err, name, name)
	}
	return err
}
