package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// display shows what happens while it happens: events as lines, and below them, on a terminal, a table that is redrawn in
// place. Elsewhere a line of progress comes with every second.
type display struct {
	out      io.Writer
	terminal bool
	began    time.Time

	mu    sync.Mutex
	drawn int // lines of the table on the screen
	last  time.Time
}

func newDisplay(out io.Writer) *display {
	d := &display{out: out, began: time.Now()}
	if f, ok := out.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		d.terminal = err == nil && os.Getenv("TERM") != "dumb"
	}
	return d
}

// event prints a line with the time since the beginning.
func (d *display) event(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.erase()
	fmt.Fprintf(d.out, "%6.1f s  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// print prints a text as it is.
func (d *display) print(text string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.erase()
	if _, err := fmt.Fprint(d.out, text); err != nil {
		return fmt.Errorf("print the verdict: %w", err)
	}
	return nil
}

// erase takes the table from the screen.
func (d *display) erase() {
	if d.drawn > 0 {
		fmt.Fprintf(d.out, "\x1b[%dA\x1b[J", d.drawn)
		d.drawn = 0
	}
}

// progress shows the state of the streams.
func (d *display) progress(state string, s *stations) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.terminal {
		if time.Since(d.last) >= time.Second {
			d.last = time.Now()
			to, back := live(s, callerToCallee), live(s, calleeToCaller)
			fmt.Fprintf(d.out, "%6.1f s  %s: to the callee %d of %d packets, to the caller %d of %d\n",
				time.Since(d.began).Seconds(), state, to.received, to.sent, back.received, back.sent)
		}
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n          %-18s %10s %10s %10s %12s\n", state, "sent", "received", "damaged", "one way p50")
	for direction, name := range []string{callerToCallee: "caller to callee", calleeToCaller: "callee to caller"} {
		l := live(s, direction)
		fmt.Fprintf(&b, "          %-18s %10d %10d %10d %9.0f us\n", name, l.sent, l.received, l.damaged, float64(l.median)/1e3)
	}
	d.erase()
	fmt.Fprint(d.out, b.String())
	d.drawn = strings.Count(b.String(), "\n")
}

// glance is the state of one direction of all calls.
type glance struct {
	sent, received, damaged uint64
	median                  time.Duration // of the first call
}

func live(s *stations, direction int) glance {
	var g glance
	for _, call := range s.calls {
		r := call.sinks()[direction].Report()
		g.sent += r.Sent
		g.received += r.Received
		g.damaged += r.Corrupted + r.Strange
	}
	g.median = s.calls[0].sinks()[direction].Latency().Quantile(0.5)
	return g
}
