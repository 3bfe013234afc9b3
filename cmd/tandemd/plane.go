package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/cmd/internal/config"
	"github.com/tandem-relay/tandem/cmd/internal/exit"
	"github.com/tandem-relay/tandem/cmd/internal/lifecycle"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/userspace"
	"github.com/tandem-relay/tandem/relay/xdp"
)

// capable checks what the chosen data plane needs before anything is touched. There is no fall-back: what was configured is what runs,
// or nothing does.
func capable(cfg *config.Config) error {
	if cfg.Dataplane == config.Userspace {
		return nil
	}
	err := lifecycle.CheckCapabilities(lifecycle.NeedsXDP())
	var missing *lifecycle.MissingError
	if errors.As(err, &missing) {
		return exit.With(exit.Privilege, fmt.Errorf(`data plane "xdp" cannot be used: %w (start as root or with these capabilities, or choose dataplane = "userspace")`, err))
	}
	return err
}

// checkNoPins refuses an instance that XDP still forwards for: the program would take the packets before our sockets see them.
func checkNoPins(root, instance string) error {
	pins := filepath.Join(root, instance)
	// Who may not look there has no XDP program of his own either.
	if _, err := os.Stat(pins); err != nil {
		return nil
	}
	return fmt.Errorf(`the kernel still forwards for instance %q by XDP (%s): remove that first with "tandem cleanup --instance %s"`, instance, pins, instance)
}

// plane is a data plane with its life.
type plane struct {
	relay.Dataplane
	// adopted says that an earlier process had left it forwarding.
	adopted bool
	// run watches over the plane until ctx ends.
	run func(ctx context.Context) error
	// end closes the plane; with release it also empties the kernel, otherwise XDP goes on forwarding.
	end      func(release bool) error
	warnings func() []string
	// panics counts the packets whose handling in this process ended in a panic.
	panics func() uint64
}

// openPlane starts the configured data plane.
func openPlane(ctx context.Context, cfg *config.Config, logger *slog.Logger) (*plane, error) {
	if cfg.Dataplane == config.Userspace {
		p := userspace.New(userspace.Config{Logger: logger})
		return &plane{
			Dataplane: p,
			run:       func(ctx context.Context) error { <-ctx.Done(); return nil },
			end:       func(bool) error { return p.Close() },
			panics:    p.Panics,
			warnings: func() []string {
				return []string{"every packet passes through the daemon, and calls fall silent when it ends"}
			},
		}, nil
	}
	maps, adopted, err := bpf.Open(bpf.Options{Instance: cfg.Instance, Records: cfg.Flows, Logger: logger})
	if err != nil {
		return nil, fmt.Errorf("open data plane: %w", err)
	}
	p, err := xdp.New(ctx, xdp.Config{Maps: maps, Networks: xdpNetworks(cfg), Orphan: cfg.Orphan, Logger: logger})
	if err != nil {
		// What an earlier process left goes on forwarding; what this one made goes.
		if adopted {
			return nil, errors.Join(err, maps.Close())
		}
		return nil, errors.Join(err, maps.Release())
	}
	return &plane{
		Dataplane: p,
		adopted:   adopted,
		run:       p.Run,
		end: func(release bool) error {
			if release {
				return p.Release()
			}
			return p.Close()
		},
		warnings: p.Warnings,
		panics:   p.Panics,
	}, nil
}
