package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/tandem-relay/tandem/signalling/rest"
)

// How long the daemon may take.
const (
	startTime = 20 * time.Second
	stopTime  = 10 * time.Second
	pollTime  = 20 * time.Millisecond
	logLines  = 15 // of the daemon's last words, when it fails
)

// configuration is the daemon's, in the form that an operator writes.
var configuration = template.Must(template.New("tandem.toml").Parse(`# Written by tandem demo, for one run.
instance = "{{.Instance}}"
dataplane = "{{.Dataplane}}"

[api]
socket = "{{.Socket}}"

[limits]
flows = {{.Flows}}

[[network]]
name = "outside"
interfaces = ["{{.Outside}}"]
sip = ["udp:{{.OutsideSIP}}"]
  [[network.media]]
  address = "{{.OutsideSIP.Addr}}"
  ports = "20000-29999"

[[network]]
name = "inside"
interfaces = ["{{.Inside}}"]
sip = ["udp:{{.InsideSIP}}"]
  [[network.media]]
  address = "{{.InsideSIP.Addr}}"
  ports = "20000-29999"

[[trunk]]
name = "caller"
network = "outside"
peer = "{{.Caller}}"
route = "callee"

[[trunk]]
name = "callee"
network = "inside"
peer = "{{.Callee}}"
route = "caller"
`))

// settings are the blanks of the configuration.
type settings struct {
	Instance, Dataplane, Socket string
	Flows                       int
	Outside, Inside             string
	OutsideSIP, InsideSIP       netip.AddrPort
	Caller, Callee              netip.AddrPort
}

// daemon is the tandemd that the demo started.
type daemon struct {
	instance, dir string
	cmd           *exec.Cmd
	exited        chan struct{} // closed when the process has ended, err says how
	err           error
	client        *rest.Client
}

// startDaemon writes the configuration and starts the program. The daemon's process group is its own, so that a Ctrl-C on the
// terminal reaches the demo only.
func startDaemon(p *place, program string, s settings, dir string) (*daemon, error) {
	d := &daemon{instance: s.Instance, dir: dir, exited: make(chan struct{}), client: rest.NewClient(s.Socket)}
	var text bytes.Buffer
	if err := configuration.Execute(&text, s); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	if err := os.WriteFile(d.configFile(), text.Bytes(), 0o600); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	log, err := os.Create(d.logFile())
	if err != nil {
		return nil, fmt.Errorf("open the daemon's log: %w", err)
	}
	defer log.Close()
	d.cmd = exec.Command(program, "--config", d.configFile())
	d.cmd.Dir = dir
	d.cmd.Env = append(os.Environ(), "TANDEM_RUNTIME_DIR="+filepath.Join(dir, "run"))
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.tandem.Start(d.cmd); err != nil {
		return nil, err
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.exited)
	}()
	return d, nil
}

func (d *daemon) configFile() string { return filepath.Join(d.dir, "tandem.toml") }
func (d *daemon) logFile() string    { return filepath.Join(d.dir, "tandemd.log") }

// ready waits until the daemon answers on its API socket.
func (d *daemon) ready(ctx context.Context) (rest.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		status, err := d.client.Status(ctx)
		if err == nil {
			return status, nil
		}
		select {
		case <-d.exited:
			return rest.Status{}, d.died()
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return rest.Status{}, fmt.Errorf("tandemd is not ready after %s: %w\n%s", startTime, err, d.lastWords())
			}
			return rest.Status{}, ctx.Err()
		case <-time.After(pollTime):
		}
	}
}

// died is the error of a daemon that ended by itself.
func (d *daemon) died() error {
	how := "exit status 0"
	if d.err != nil {
		how = d.err.Error()
	}
	return fmt.Errorf("tandemd ended by itself (%s)\n%s", how, d.lastWords())
}

// lastWords is the end of the daemon's log.
func (d *daemon) lastWords() string {
	text, err := os.ReadFile(d.logFile())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	lines = lines[max(0, len(lines)-logLines):]
	return "  tandemd: " + strings.Join(lines, "\n  tandemd: ")
}

// freeze stops the process with SIGSTOP and returns once the kernel shows it stopped.
func (d *daemon) freeze() error {
	if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop the daemon: %w", err)
	}
	for end := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		stopped, err := d.stopped()
		if err != nil || stopped {
			return err
		}
		if time.Now().After(end) {
			return errors.New("stop the daemon: it still runs a second after SIGSTOP")
		}
	}
}

// stopped reports whether every thread of the process is stopped.
func (d *daemon) stopped() (bool, error) {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.cmd.Process.Pid))
	if err != nil || len(stats) == 0 {
		return false, fmt.Errorf("stop the daemon: it is gone: %w", errors.Join(err, os.ErrProcessDone))
	}
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue // this thread has ended
		}
		if _, after, ok := strings.Cut(string(text), ") "); !ok || !strings.HasPrefix(after, "T") {
			return false, nil
		}
	}
	return true, nil
}

// thaw lets the process go on.
func (d *daemon) thaw() error {
	if err := d.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		return fmt.Errorf("let the daemon go on: %w", err)
	}
	return nil
}

// stop ends the daemon the way an operator does when he wants an empty kernel, and by SIGKILL if that does not work.
func (d *daemon) stop() error {
	defer d.client.Close()
	select {
	case <-d.exited:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	problem := d.thaw()
	if problem == nil {
		_, problem = d.client.Stop(ctx, true)
	}
	if problem == nil {
		select {
		case <-d.exited:
			return nil
		case <-ctx.Done():
			problem = fmt.Errorf("tandemd did not end within %s of being told to\n%s", stopTime, d.lastWords())
		}
	}
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		problem = errors.Join(problem, err)
	}
	<-d.exited
	return fmt.Errorf("end the daemon: %w", problem)
}
