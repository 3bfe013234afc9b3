package demo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab/require"
)

// patience is how long a condition may take to come true.
const patience = 20 * time.Second

// programs builds tandem and tandemd and returns their directory.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir+"/", "../../cmd/tandem", "../../cmd/tandemd")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir
}

// buffer is a bytes.Buffer that a process writes while the test reads.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestReal places calls through the real daemon with the real programs.
func TestReal(t *testing.T) {
	require.Lab(t)
	dir := programs(t)
	t.Run("xdp", func(t *testing.T) {
		o := tandem(t, dir, "demo", "--json", "--seconds", "2", "--calls", "5")
		if o["ok"] != true || o["calls"] != 5.0 || o["lost"] != 0.0 || o["forwarded_xdp"].(float64)+o["forwarded_other"].(float64) != o["packets_sent"] {
			t.Errorf("object %v", o)
		}
		if stopped, ok := o["stopped"].(map[string]any); !ok || stopped["packets_sent"].(float64) < 100 {
			t.Errorf("stopped: %v", o["stopped"])
		}
	})
	t.Run("userspace", func(t *testing.T) {
		o := tandem(t, dir, "demo", "--json", "--seconds", "2", "--calls", "5", "--dataplane", "userspace")
		if o["ok"] != true || o["calls"] != 5.0 || o["forwarded_xdp"] != 0.0 || o["forwarded_other"] != o["packets_sent"] {
			t.Errorf("object %v", o)
		}
	})
	t.Run("killed", func(t *testing.T) { testKilled(t, dir) })
	t.Run("interrupted", func(t *testing.T) { testInterrupted(t, dir) })
}

// tandem runs the program with --json and returns its object. Its exit status must agree with it.
func tandem(t *testing.T, dir string, args ...string) map[string]any {
	t.Helper()
	var out, show bytes.Buffer
	cmd := exec.Command(filepath.Join(dir, "tandem"), args...)
	cmd.Stdout, cmd.Stderr = &out, &show
	err := cmd.Run()
	t.Logf("%v: %v\n%s", args, err, show.String())
	var object map[string]any
	if err := json.Unmarshal(out.Bytes(), &object); err != nil {
		t.Fatalf("stdout is no object: %v\n%s", err, out.String())
	}
	if object["ok"] != (err == nil) {
		t.Errorf("ok is %v, exit is %v", object["ok"], err)
	}
	return object
}

// talking starts a long demo and waits for a line of its display.
func talking(t *testing.T, dir, line string) (*exec.Cmd, *buffer) {
	t.Helper()
	show := &buffer{}
	cmd := exec.Command(filepath.Join(dir, "tandem"), "demo", "--seconds", "10")
	cmd.Stdout, cmd.Stderr = show, show
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(show.String())
		}
		_ = cmd.Process.Kill()
	})
	pattern := regexp.MustCompile(line)
	eventually(t, fmt.Sprintf("display shows %q", line), func() bool { return pattern.MatchString(show.String()) })
	return cmd, show
}

// testKilled kills the demo with SIGKILL while the daemon is stopped. Everything of it must end, and the next demo must work.
func testKilled(t *testing.T, dir string) {
	cmd, show := talking(t, dir, "STOPPED")
	match := regexp.MustCompile(`SIGSTOP to process (\d+)`).FindStringSubmatch(show.String())
	daemon, err := strconv.Atoi(match[1])
	if err != nil {
		t.Fatal(err)
	}
	pins := filepath.Join("/sys/fs/bpf/tandem", instanceName(cmd.Process.Pid))
	temporary := filepath.Join(os.TempDir(), fmt.Sprint(temporaryPrefix, cmd.Process.Pid))
	for _, path := range []string{pins, temporary} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("while it runs: %v", err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("ended well")
	}
	eventually(t, "the stopped daemon is gone", func() bool { return dead(daemon) })
	if o := tandem(t, dir, "demo", "--json", "--seconds", "1"); o["ok"] != true {
		t.Errorf("right after a kill -9: %v", o)
	}
	for _, path := range []string{pins, temporary} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("not swept: %s, %v", path, err)
		}
	}
}

// testInterrupted sends SIGINT while the daemon is stopped.
func testInterrupted(t *testing.T, dir string) {
	cmd, show := talking(t, dir, "STOPPED")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("ended with %v\n%s", err, show.String())
	}
	if !strings.HasSuffix(show.String(), "\ntandem: interrupted\n") {
		t.Errorf("its last word is not that it was interrupted:\n%s", show.String())
	}
	for _, trace := range everywhere() {
		for _, prefix := range trace.prefixes {
			path := filepath.Join(trace.dir, trace.name(prefix, cmd.Process.Pid))
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v\n%s", path, err, show.String())
			}
		}
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}
