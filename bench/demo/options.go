package demo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// The data planes.
const (
	XDP       = "xdp"
	Userspace = "userspace"
)

// Limits of the options. A thousand calls open two sockets each and start within ten seconds.
const (
	MaxSeconds = 3600
	MaxCalls   = 1000
)

// maxPause is how long the daemon is stopped, unless the call is too short for it.
const maxPause = 3 * time.Second

// Options says what to demonstrate.
type Options struct {
	Dataplane string // XDP or Userspace
	Seconds   int    // of talk, 1 to MaxSeconds
	Calls     int    // at once, 1 to MaxCalls
	JSON      bool   // one object on Out and nothing else; the display goes to Err
	Daemon    string // path of tandemd; empty: beside the running program
	Out, Err  io.Writer
}

// ErrPrivilege says that native XDP and namespaces need root.
var ErrPrivilege = errors.New("the demo with XDP makes network namespaces and loads XDP programs, which needs root\n" +
	"  as root:      sudo tandem demo\n" +
	"  without root: tandem demo --dataplane userspace   (the same over loopback addresses; sockets carry the packets, not the kernel)")

// Check says what is wrong with the options, in the words of the command line.
func (o Options) Check() error {
	switch {
	case o.Dataplane != XDP && o.Dataplane != Userspace:
		return fmt.Errorf("--dataplane is %q: want %s or %s", o.Dataplane, XDP, Userspace)
	case o.Seconds < 1 || o.Seconds > MaxSeconds:
		return fmt.Errorf("--seconds is %d: want 1 to %d", o.Seconds, MaxSeconds)
	case o.Calls < 1 || o.Calls > MaxCalls:
		return fmt.Errorf("--calls is %d: want 1 to %d", o.Calls, MaxCalls)
	}
	return nil
}

// talk is how long all calls talk at the same time.
func (o Options) talk() time.Duration { return time.Duration(o.Seconds) * time.Second }

// pause is how long the daemon is stopped in the middle: never more than three tenths of the talk.
func (o Options) pause() time.Duration { return min(maxPause, o.talk()*3/10) }

// findDaemon returns the path of tandemd.
func (o Options) findDaemon() (string, error) {
	path := o.Daemon
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find tandemd: %w", err)
		}
		path = filepath.Join(filepath.Dir(self), "tandemd")
	}
	path, err := filepath.Abs(path) // the daemon is started from another directory
	if err != nil {
		return "", fmt.Errorf("find tandemd: %w", err)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("there is no daemon at %s: build it (make build), or say where it is with --tandemd PATH", path)
	case err != nil:
		return "", fmt.Errorf("find tandemd: %w", err)
	case info.IsDir() || info.Mode()&0o111 == 0:
		return "", fmt.Errorf("%s is no program: say where tandemd is with --tandemd PATH", path)
	}
	return path, nil
}
