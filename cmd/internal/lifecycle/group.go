// Package lifecycle is what a long-running process of ours needs besides its job: tasks, a lock, its runtime directory, capabilities
// and the service manager.
package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"golang.org/x/sync/errgroup"
)

// Task is one part of a daemon that runs until its context ends.
type Task interface {
	// Run works until ctx ends, and returns nil then. Any other return ends the whole daemon.
	Run(ctx context.Context) error
	// Ready is closed once the task does its job.
	Ready() <-chan struct{}
	// String names the task in messages.
	String() string
}

// Group runs tasks together: the first that ends by itself ends all.
type Group struct {
	ctx    context.Context
	group  *errgroup.Group
	logger *slog.Logger
	tasks  []Task
}

// NewGroup makes a group whose tasks run under ctx.
func NewGroup(ctx context.Context, logger *slog.Logger) *Group {
	group, ctx := errgroup.WithContext(ctx)
	return &Group{ctx: ctx, group: group, logger: logger}
}

// Go starts a task. A panic that the task did not catch itself ends it with an error, so that the others end in order.
func (g *Group) Go(task Task) {
	g.tasks = append(g.tasks, task)
	g.group.Go(func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				g.logger.Error("task panicked", "task", task.String(), "panic", p, "stack", string(debug.Stack()))
				err = fmt.Errorf("%s: panic: %v", task, p)
			}
		}()
		err = task.Run(g.ctx)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", task, err)
		case g.ctx.Err() == nil:
			return fmt.Errorf("%s: ended by itself", task)
		}
		return nil
	})
}

// Ready waits until every task does its job. It returns false if the group ended before.
func (g *Group) Ready() bool {
	for _, t := range g.tasks {
		select {
		case <-t.Ready():
		case <-g.ctx.Done():
			return false
		}
	}
	return true
}

// Wait waits until all tasks have ended and returns the error of the first that failed.
func (g *Group) Wait() error { return g.group.Wait() }

// Func makes a task of a function that does its job as soon as it runs.
func Func(name string, run func(context.Context) error) Task {
	return &funcTask{name: name, run: run, ready: make(chan struct{})}
}

type funcTask struct {
	name  string
	run   func(context.Context) error
	ready chan struct{}
}

func (t *funcTask) Run(ctx context.Context) error {
	close(t.ready)
	return t.run(ctx)
}

func (t *funcTask) Ready() <-chan struct{} { return t.ready }
func (t *funcTask) String() string         { return t.name }
