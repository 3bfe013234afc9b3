// Package demo places real calls through a real daemon and says what became of every packet.
package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/tandem-relay/tandem/bench/agent"
	"github.com/tandem-relay/tandem/signalling/rest"
)

const (
	redrawTime = 200 * time.Millisecond
	// settleTime is how long packets that are on their way may take, once nobody sends any more.
	settleTime = time.Second
	// reviveTime is how long the daemon may take to answer after it was stopped.
	reviveTime = 5 * time.Second
)

// ErrVerdict says that the demo ran to its end, printed its verdict, and that the verdict is bad.
var ErrVerdict = errors.New("the demo was not content")

// Run makes the place, starts the daemon, places the calls, and prints what became of them, as text or as one JSON object.
// It returns nil only if nothing was lost or duplicated, the audio is intact, and, with XDP, XDP carried all but two packets
// of every stream. When the context ends, it cleans up and returns.
func Run(ctx context.Context, o Options) error {
	out := o.Out
	if o.JSON {
		out = o.Err
	}
	r := &run{options: o, show: newDisplay(out), instance: instanceName(os.Getpid())}
	result, err := r.run(ctx)
	if err != nil {
		if ctx.Err() != nil {
			// What was under way is no news to who interrupted it; what could not be taken away is.
			err = errors.New("interrupted")
			if r.left != nil {
				err = fmt.Errorf("interrupted: %w", r.left)
			}
		}
		if o.JSON {
			return errors.Join(err, WriteFailure(o.Out, o, err))
		}
		return err
	}
	if o.JSON {
		err = result.write(o.Out)
	} else {
		err = r.show.print(result.text())
	}
	if err == nil && !result.OK {
		err = ErrVerdict
	}
	return err
}

// run is one demo.
type run struct {
	options  Options
	show     *display
	instance string
	notes    []string
	left     error // what could not be taken away
}

// tidy joins the error of taking something away to the demo's own.
func (r *run) tidy(err, cleanup error) error {
	r.left = errors.Join(r.left, cleanup)
	return errors.Join(err, cleanup)
}

func (r *run) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.notes = append(r.notes, text)
	r.show.event("%s", text)
}

// run is the whole demo; whatever happens, it takes away what it made.
func (r *run) run(ctx context.Context) (_ *Result, err error) {
	o := r.options
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.Dataplane == XDP && os.Geteuid() != 0 {
		return nil, ErrPrivilege
	}
	program, err := o.findDaemon()
	if err != nil {
		return nil, err
	}
	if err := r.sweepBefore(); err != nil {
		return nil, err
	}
	dir := filepath.Join(os.TempDir(), temporaryPrefix+fmt.Sprint(os.Getpid()))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	defer func() {
		left, sweepErr := sweep(everywhere(), own)
		for _, path := range left {
			if path != dir && err == nil {
				r.show.event("removed %s, which the daemon had left", path)
			}
		}
		err = r.tidy(err, sweepErr)
	}()
	r.announce()
	p, err := newPlace(o.Dataplane)
	if err != nil {
		return nil, err
	}
	defer func() { err = r.tidy(err, p.lab.Close()) }()
	c := &calls{ctx: ctx, established: map[int]*agent.Call{}, answered: map[int]*agent.Call{}}
	stations, err := newStations(p, o.Calls, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = r.tidy(err, stations.close()) }()
	return r.withDaemon(ctx, p, c, program, dir)
}

// sweepBefore removes what earlier demos left that were killed.
func (r *run) sweepBefore() error {
	removed, err := sweep(everywhere(), dead)
	for _, path := range removed {
		r.show.event("removed %s, left by a demo that was killed", path)
	}
	return err
}

func (r *run) announce() {
	plane := "native XDP in network namespaces"
	if r.options.Dataplane == Userspace {
		plane = "the USERSPACE data plane"
	}
	r.show.event("Tandem demo: %s with G.711 speech both ways for %s, through %s", plural(r.options.Calls, "call"), r.options.talk(), plane)
	if r.options.Dataplane == Userspace {
		r.note("USERSPACE DATA PLANE: the daemon's sockets carry every packet over loopback addresses. This shows neither XDP nor its speed.")
		r.note("LEFT OUT: the daemon is not stopped in the middle of the call, because here the process itself carries the packets")
	} else if r.options.pause() < maxPause {
		r.note("the daemon is stopped for %s only, because the call is so short (%s from 10 s on)", r.options.pause(), maxPause)
	}
}

// withDaemon runs the calls through a daemon of its own.
func (r *run) withDaemon(ctx context.Context, p *place, c *calls, program, dir string) (_ *Result, err error) {
	s, err := r.settings(p, c.stations, dir)
	if err != nil {
		return nil, err
	}
	d, err := startDaemon(p, program, s, dir)
	if err != nil {
		return nil, err
	}
	stopped := false
	stop := func() error {
		if stopped {
			return nil
		}
		stopped = true
		return d.stop()
	}
	defer func() { err = errors.Join(err, stop()) }()
	status, err := d.ready(ctx)
	if err != nil {
		return nil, err
	}
	if status.Dataplane.Name != r.options.Dataplane {
		return nil, fmt.Errorf("tandemd runs with the data plane %s, asked for was %s", status.Dataplane.Name, r.options.Dataplane)
	}
	r.show.event("tandemd is ready: instance %s, process %d, data plane %s", status.Instance, status.PID, status.Dataplane.Name)
	r.show.event("%s", p)
	r.show.event("look yourself: %s status --socket %s", self(), s.Socket)
	for _, warning := range status.Dataplane.Warnings {
		r.note("tandemd warns: %s", warning)
	}
	evidence, err := r.converse(ctx, d, c, s.OutsideSIP)
	if err != nil {
		return nil, err
	}
	if err := stop(); err != nil {
		r.note("%v", err)
	} else {
		r.show.event("tandemd has ended as asked%s", map[string]string{XDP: ", and took its programs and maps out of the kernel"}[r.options.Dataplane])
	}
	evidence.notes = r.notes
	return evidence.result(), nil
}

// self is the path of this program, which need not be where the shell looks for programs.
func self() string {
	path, err := os.Executable()
	if err != nil {
		return "tandem"
	}
	return path
}

// settings fills the blanks of the configuration.
func (r *run) settings(p *place, stations *stations, dir string) (settings, error) {
	outside, err := p.tandemPort(p.outsideAddr)
	if err != nil {
		return settings{}, err
	}
	inside, err := p.tandemPort(p.insideAddr)
	if err != nil {
		return settings{}, err
	}
	return settings{
		Instance:   r.instance,
		Dataplane:  r.options.Dataplane,
		Socket:     filepath.Join(dir, "api.sock"),
		Flows:      max(4096, 16*r.options.Calls),
		Outside:    p.outside,
		Inside:     p.inside,
		OutsideSIP: netip.AddrPortFrom(p.outsideAddr, outside),
		InsideSIP:  netip.AddrPortFrom(p.insideAddr, inside),
		Caller:     local(stations.caller.sip),
		Callee:     local(stations.callee.sip),
	}, nil
}

// converse is the calls from INVITE to BYE.
func (r *run) converse(ctx context.Context, d *daemon, c *calls, tandem netip.AddrPort) (*evidence, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // a daemon that dies ends the demo
		select {
		case <-d.exited:
			cancel(d.died())
		case <-ctx.Done():
		}
	}()
	e := &evidence{options: r.options, stations: c.stations, calls: c}
	err := r.steps(ctx, d, c, tandem, e)
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	return e, err
}

func (r *run) steps(ctx context.Context, d *daemon, c *calls, tandem netip.AddrPort, e *evidence) error {
	s := c.stations
	r.show.event("INVITE to %s", tandem)
	if err := c.place(ctx, tandem); err != nil {
		return err
	}
	established, _ := c.count()
	if established == 0 {
		return fmt.Errorf("no call was established: %s", c.firstProblem())
	}
	r.show.event("answered: %d of %s; both sides talk", established, plural(r.options.Calls, "call"))
	begin := time.Now()
	s.refer()
	end := begin.Add(r.options.talk())
	if r.options.Dataplane == XDP {
		pause := r.options.pause()
		if err := r.watch(ctx, s, "talking", begin.Add((r.options.talk()-pause)/2)); err != nil {
			return err
		}
		if err := r.stopInTheMiddle(ctx, d, s, pause, e); err != nil {
			return err
		}
	}
	if err := r.watch(ctx, s, "talking", end); err != nil {
		return err
	}
	s.hush()
	if err := r.settle(ctx, s); err != nil {
		return err
	}
	if err := e.ask(ctx, d.client); err != nil {
		return err
	}
	r.show.event("BYE")
	if err := c.hangup(ctx); err != nil && ctx.Err() != nil {
		return err
	}
	_, ended := c.count()
	r.show.event("ended: %s", plural(ended, "call"))
	return r.forgotten(ctx, d.client, c)
}

// watch shows the progress until the given time.
func (r *run) watch(ctx context.Context, s *stations, state string, until time.Time) error {
	for {
		left := time.Until(until)
		if left <= 0 {
			return nil
		}
		r.show.progress(fmt.Sprintf("%s (%.1f s)", state, left.Seconds()), s)
		if err := pause(ctx, min(left, redrawTime)); err != nil {
			return err
		}
	}
}

// stopInTheMiddle stops the daemon for some time: what flows meanwhile, the kernel carries alone.
func (r *run) stopInTheMiddle(ctx context.Context, d *daemon, s *stations, pause time.Duration, e *evidence) error {
	if err := d.freeze(); err != nil {
		return err
	}
	begin := time.Now()
	s.freeze.Begin()
	r.show.event("the daemon is STOPPED (SIGSTOP to process %d): from now on only the kernel forwards", d.cmd.Process.Pid)
	watchErr := r.watch(ctx, s, "daemon stopped", begin.Add(pause))
	if stopped, err := d.stopped(); err != nil || !stopped {
		watchErr = errors.Join(watchErr, err, errors.New("the daemon did not stay stopped"))
	}
	s.freeze.End()
	e.stopped = time.Since(begin)
	if err := errors.Join(watchErr, d.thaw()); err != nil {
		return err
	}
	r.show.event("the daemon goes on (SIGCONT) after %.1f s", e.stopped.Seconds())
	ctx, cancel := context.WithTimeout(ctx, reviveTime)
	defer cancel()
	if _, err := d.client.Status(ctx); err != nil {
		return fmt.Errorf("the daemon after it was stopped: %w", err)
	}
	return nil
}

// settle waits until everything has arrived, or nothing more has for settleTime.
func (r *run) settle(ctx context.Context, s *stations) error {
	var before uint64
	for since := time.Now(); time.Since(since) < settleTime; {
		to, back := live(s, callerToCallee), live(s, calleeToCaller)
		received := to.received + back.received
		if received == to.sent+back.sent {
			return nil
		}
		if received != before {
			before, since = received, time.Now()
		}
		if err := pause(ctx, pollTime); err != nil {
			return err
		}
	}
	return nil
}

// ask has the daemon's own account of the calls, before they end.
func (e *evidence) ask(ctx context.Context, client *rest.Client) error {
	sessions, err := client.Sessions(ctx)
	if err != nil {
		return fmt.Errorf("ask for the sessions: %w", err)
	}
	e.account = read(sessions)
	status, err := client.Status(ctx)
	if err != nil {
		return fmt.Errorf("ask for the status: %w", err)
	}
	e.dropped = orEmpty(nil)
	for reason, n := range status.Dropped {
		e.dropped = plus(e.dropped, reason, n)
	}
	return nil
}

// forgotten waits until the daemon holds no session of an ended call any more.
func (r *run) forgotten(ctx context.Context, client *rest.Client, c *calls) error {
	for end := time.Now().Add(settleTime); ; {
		status, err := client.Status(ctx)
		if err != nil {
			return fmt.Errorf("ask for the status: %w", err)
		}
		if established, ended := c.count(); status.Sessions <= established-ended {
			return nil
		}
		if time.Now().After(end) {
			c.mu.Lock()
			c.problems = append(c.problems, fmt.Sprintf("%d sessions are left after the calls have ended", status.Sessions))
			c.mu.Unlock()
			return nil
		}
		if err := pause(ctx, pollTime); err != nil {
			return err
		}
	}
}

// firstProblem says why calls failed.
func (c *calls) firstProblem() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.problems) == 0 {
		return "no reason known"
	}
	return c.problems[0]
}
