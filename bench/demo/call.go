package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tandem-relay/tandem/bench"
	"github.com/tandem-relay/tandem/bench/agent"
)

const (
	ringTime   = 200 * time.Millisecond // from 180 to 200
	callGap    = 10 * time.Millisecond  // between two INVITEs, and two BYEs
	setupTime  = 30 * time.Second       // for one call
	hangupTime = 15 * time.Second
	userPrefix = "callee-"
)

// calls places all calls and ends them. What fails for one call is noted and does not stop the others.
type calls struct {
	stations *stations
	ctx      context.Context // of the whole run, for the callee's part

	mu          sync.Mutex
	established map[int]*agent.Call // at the caller, by number of the call
	answered    map[int]*agent.Call // at the callee
	ended       int
	setup       bench.Histogram // from INVITE to 200, without the ringing
	problems    []string
}

func (c *calls) problem(n int, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = append(c.problems, fmt.Sprintf("call %d: ", n+1)+fmt.Sprintf(format, args...))
}

// count returns how many calls were established and ended so far.
func (c *calls) count() (established, ended int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.established), c.ended
}

// place sends an INVITE for every call to Tandem, one shortly after the other, and returns when all are answered or refused.
// Whoever is connected talks at once.
func (c *calls) place(ctx context.Context, tandem netip.AddrPort) error {
	var all sync.WaitGroup
	for n := range c.stations.calls {
		if n > 0 {
			if err := pause(ctx, callGap); err != nil {
				break
			}
		}
		all.Go(func() {
			if err := c.invite(ctx, n, tandem); err != nil && ctx.Err() == nil {
				c.problem(n, "%v", err)
			}
		})
	}
	all.Wait()
	return ctx.Err()
}

// invite is the caller's part of a call.
func (c *calls) invite(ctx context.Context, n int, tandem netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, setupTime)
	defer cancel()
	own := &c.stations.calls[n].caller
	begin := time.Now()
	call, err := c.stations.caller.agent.Invite(ctx, tandem, userPrefix+strconv.Itoa(n), agent.Describe(local(own.conn)), nil)
	if err != nil {
		return fmt.Errorf("INVITE: %w", err)
	}
	c.mu.Lock()
	c.established[n] = call
	c.setup.Add(time.Since(begin) - ringTime)
	c.mu.Unlock()
	to, err := agent.Media(call.Description)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	c.stations.talk(own, to, n)
	return nil
}

// invited is the callee's part of a call. The number of the call stands in the Request-URI.
func (c *calls) invited(i *agent.Invitation) {
	n, err := strconv.Atoi(strings.TrimPrefix(i.User(), userPrefix))
	if err != nil || n < 0 || n >= len(c.stations.calls) {
		if err := i.Reject(404, "Not Found"); err != nil {
			c.problem(n, "reject: %v", err)
		}
		return
	}
	if err := c.answer(i, n); err != nil && c.ctx.Err() == nil {
		c.problem(n, "callee: %v", err)
	}
}

func (c *calls) answer(i *agent.Invitation, n int) error {
	own := &c.stations.calls[n].callee
	to, err := agent.Media(i.Description())
	if err != nil {
		return errors.Join(fmt.Errorf("offer: %w", err), i.Reject(488, "Not Acceptable Here"))
	}
	if err := i.Ring(); err != nil {
		return err
	}
	if err := pause(c.ctx, ringTime); err != nil {
		return err
	}
	call, err := i.Answer(c.ctx, agent.Describe(local(own.conn)))
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.answered[n] = call
	c.mu.Unlock()
	c.stations.talk(own, to, n)
	return nil
}

// hangup ends every call by BYE, and waits until the callee heard of it.
func (c *calls) hangup(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, hangupTime)
	defer cancel()
	c.mu.Lock()
	established, answered := maps.Clone(c.established), maps.Clone(c.answered)
	c.mu.Unlock()
	var all sync.WaitGroup
	for n, call := range established {
		all.Go(func() {
			if err := bye(ctx, call, answered[n]); err != nil {
				c.problem(n, "BYE: %v", err)
				return
			}
			c.mu.Lock()
			c.ended++
			c.mu.Unlock()
		})
		if pause(ctx, callGap) != nil {
			break
		}
	}
	all.Wait()
	return ctx.Err()
}

func bye(ctx context.Context, caller, callee *agent.Call) error {
	if err := caller.Hangup(ctx); err != nil {
		return err
	}
	if callee == nil {
		return errors.New("the callee never had the ACK")
	}
	select {
	case <-callee.Ended():
		return nil
	case <-ctx.Done():
		return errors.New("it did not reach the callee")
	}
}

// pause waits, unless the context ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
