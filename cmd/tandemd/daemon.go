package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/cmd/internal/config"
	"github.com/tandem-relay/tandem/cmd/internal/exit"
	"github.com/tandem-relay/tandem/cmd/internal/lifecycle"
	"github.com/tandem-relay/tandem/cmd/internal/version"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
	"github.com/tandem-relay/tandem/relay/journal"
	"github.com/tandem-relay/tandem/signalling/media"
	"github.com/tandem-relay/tandem/signalling/rest"
)

// serve builds the daemon, runs it until a signal or the control API ends it, and leaves the kernel forwarding, or empties it if that
// was asked for.
func serve(cfg *config.Config, signals <-chan os.Signal, stdout io.Writer, logger *slog.Logger) (err error) {
	started := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var release atomic.Bool
	go watch(ctx, signals, cancel, logger)

	// One process for each instance, and only one that can do its job. One that cannot leaves nothing behind.
	if err := capable(cfg); err != nil {
		return err
	}
	lock, err := hold(cfg, started)
	if err != nil {
		return err
	}
	defer func() {
		if release.Load() && err == nil {
			err = lock.Remove()
			return
		}
		err = errors.Join(err, lock.Release())
	}()
	if cfg.Dataplane == config.Userspace {
		if err := checkNoPins(bpf.DefaultRoot, cfg.Instance); err != nil {
			return err
		}
	}

	// What was before: the journal says which sessions and calls there are, the maps how far they got.
	bootID, err := journal.BootID()
	if err != nil {
		return err
	}
	records, state, err := openJournal(cfg, bootID, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	sessions, err := relay.DecodeSessions(state.Changes)
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}

	// The parts, from the kernel up.
	plane, err := openPlane(ctx, cfg, logger)
	if err != nil {
		return err
	}
	ready := false
	defer func() {
		forget := release.Load()
		// A daemon that never did its job, over a kernel that was empty before, has no calls for which that is to forward.
		err = errors.Join(err, leave(plane, lock, records, forget, forget || !ready && !plane.adopted))
	}()
	relaying, err := relay.New(relay.Config{
		Networks: relayNetworks(cfg), Plane: plane, Quarantine: quarantine(cfg), Logger: logger,
		Log: feed.New(state.Epoch, state.Position, records),
	})
	if err != nil {
		return fmt.Errorf("start relay: %w", err)
	}
	routes, err := openRoutes()
	if err != nil {
		return err
	}
	defer routes.close()
	engine := media.New(media.Config{Networks: mediaNetworks(cfg, routes), Logger: logger})
	calls, err := openDoor(cfg, relaying, engine, logger)
	if err != nil {
		return err
	}

	// Calls of an earlier process go on.
	adoption, err := relaying.Restore(ctx, sessions)
	if err != nil {
		return err
	}
	if err := calls.server.Restore(state.Changes); err != nil {
		return fmt.Errorf("restore calls: %w", err)
	}

	api := rest.New(rest.Config{
		Socket: cfg.Socket, Instance: cfg.Instance, Version: version.String(), Started: started,
		Media: relaying, Signalling: calls, Warnings: plane.warnings, PlanePanics: plane.panics, Logger: logger,
		Stop: func(empty bool) { release.Store(empty); cancel() },
	})

	group := lifecycle.NewGroup(ctx, logger)
	group.Go(lifecycle.Func("data plane", plane.run))
	group.Go(lifecycle.Func("events", func(ctx context.Context) error { return follow(ctx, plane, logger) }))
	group.Go(calls.server)
	group.Go(api)
	if ready = group.Ready(); ready {
		announce(cfg, stdout, logger, relaying.Len(), adoption)
	}
	err = group.Wait()
	logger.Info("ending", "calls", calls.CallCount(), "release", release.Load())
	notify(logger, "STOPPING=1")
	return err
}

// openJournal opens the journal of the instance. What an operator can do about a damaged one is his decision: it holds his calls.
func openJournal(cfg *config.Config, bootID string, logger *slog.Logger) (*journal.Journal, journal.State, error) {
	records, state, err := journal.Open(filepath.Join(cfg.RuntimeDir, "journal"), bootID, logger)
	if errors.Is(err, journal.ErrCorrupt) {
		err = fmt.Errorf(`%w (%s); "tandem cleanup --instance %s" forgets all calls, and the next start is an empty one`, err, cfg.RuntimeDir, cfg.Instance)
	}
	return records, state, err
}

// leave ends the data plane. With forget the calls are forgotten before the kernel is emptied, not after: if that is interrupted,
// the next start removes flows without calls, whereas calls without flows would come back to life.
func leave(p *plane, lock *lifecycle.Lock, records io.Closer, forget, empty bool) error {
	var errs []error
	if forget {
		errs = append(errs, records.Close(), lock.Clear())
	}
	return errors.Join(append(errs, p.end(empty))...)
}

// watch ends the daemon at SIGTERM and SIGINT. SIGHUP must never end it.
func watch(ctx context.Context, signals <-chan os.Signal, cancel context.CancelFunc, logger *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			if s == syscall.SIGHUP {
				logger.Warn("reload is not supported yet: the configuration in force stays, a restart keeps every call of the xdp data plane")
				continue
			}
			logger.Info("signal", "signal", s.String())
			cancel()
			return
		}
	}
}

// hold takes the instance, or tells who has it.
func hold(cfg *config.Config, started time.Time) (*lifecycle.Lock, error) {
	if err := lifecycle.PrepareDir(cfg.RuntimeDir); err != nil {
		return nil, err
	}
	lock, err := lifecycle.Acquire(cfg.RuntimeDir, lifecycle.Owner{PID: os.Getpid(), Socket: cfg.Socket, Started: started})
	var running *lifecycle.RunningError
	if errors.As(err, &running) {
		return nil, exit.With(exit.Running, err)
	}
	return lock, err
}

// follow logs what the data plane noticed.
func follow(ctx context.Context, plane relay.Dataplane, logger *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-plane.Events():
			logger.Debug("data plane event", "kind", string(e.Kind), "session", string(e.Session), "local", e.Local, "remote", e.Remote)
		}
	}
}

// announce says, once everything listens, that the daemon does its job.
func announce(cfg *config.Config, stdout io.Writer, logger *slog.Logger, sessions int, adoption relay.Adoption) {
	if sessions > 0 {
		logger.Info("sessions go on", "sessions", sessions, "kept", adoption.Kept, "written", adoption.Written, "removed", adoption.Removed,
			"refused", len(adoption.Refused))
	}
	if cfg.Dataplane == config.Userspace {
		logger.Warn("data plane is userspace: every packet passes through this process, and calls fall silent when it ends")
	}
	fmt.Fprintf(stdout, "tandemd ready: instance %s, process %d, data plane %s, %d sessions taken over\n", cfg.Instance, os.Getpid(), cfg.Dataplane, sessions)
	notify(logger, "READY=1", fmt.Sprintf("STATUS=data plane %s", cfg.Dataplane))
}

func notify(logger *slog.Logger, state ...string) {
	if err := lifecycle.Notify(state...); err != nil {
		logger.Warn("service manager does not hear us", "err", err)
	}
}
