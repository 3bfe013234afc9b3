package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/cmd/internal/exit"
	"github.com/tandem-relay/tandem/cmd/internal/lifecycle"
)

// startDaemon builds tandemd and starts it on loopback; what it returns is closed when it has ended.
func startDaemon(t *testing.T, program string) <-chan struct{} {
	t.Helper()
	cmd := exec.Command(program, "--config", "../../scripts/examples/loopback.toml")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || !strings.HasPrefix(line, "tandemd ready") {
		t.Fatalf("got %q %v\n%s", line, err, stderr.String())
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// How it ended is told by what it leaves.
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	return ended
}

// Stop returns when the process has ended, and not before.
func TestStopWaits(t *testing.T) {
	runtimeBase(t)
	runDaemon(t, "edge", &fakeDaemon{plane: "xdp", calls: []int{1}})
	o := &options{}
	client, err := o.client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// The process behind the fake does not listen to it.
	stubborn := exec.Command("cat")
	stdin, err := stubborn.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stubborn.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = stubborn.Wait()
	})
	pid := stubborn.Process.Pid
	if _, err := end(t.Context(), client, pid, false, 10*time.Millisecond); err == nil || !strings.Contains(err.Error(), "has not after 10ms") {
		t.Errorf("a process that does not end: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	interrupted := make(chan error, 1)
	go func() {
		_, err := end(ctx, client, pid, false, time.Minute)
		interrupted <- err
	}()
	select {
	case err := <-interrupted:
		t.Fatalf("returned while the process lives: %v", err)
	case <-time.After(3 * pollInterval):
	}
	cancel()
	if err := <-interrupted; err == nil || !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("interrupted: %v", err)
	}
	stdin.Close()
	if stopping, err := end(t.Context(), client, pid, false, time.Minute); err != nil || stopping.Calls != 1 {
		t.Errorf("a process that ends: %+v %v", stopping, err)
	}
	if _, err := end(t.Context(), client, 1<<22+1, false, time.Minute); err == nil {
		t.Error("a process that does not exist was watched")
	}
}

// The whole life of a daemon by the operator's commands alone.
func TestAgainstRealDaemon(t *testing.T) {
	base := runtimeBase(t)
	program := filepath.Join(t.TempDir(), "tandemd")
	if out, err := exec.Command("go", "build", "-o", program, "../tandemd").CombinedOutput(); err != nil {
		t.Fatalf("build tandemd: %v\n%s", err, out)
	}
	const instance = "loopback"
	for _, release := range []bool{false, true} {
		t.Run(fmt.Sprintf("release %v", release), func(t *testing.T) {
			ended := startDaemon(t, program)
			code, out, errs := tandem(t, "status")
			if code != exit.OK || !strings.Contains(out, "USERSPACE: NOT IN THE KERNEL") {
				t.Errorf("status: code %d: %s%s", code, out, errs)
			}
			if code, out, errs := tandem(t, "sessions"); code != exit.OK || out != "no sessions\n" {
				t.Errorf("sessions: code %d: %s%s", code, out, errs)
			}
			if code, out, errs := tandem(t, "drops", "--all"); code != exit.OK || !strings.Contains(out, "no_destination") {
				t.Errorf("drops: code %d: %s%s", code, out, errs)
			}
			if code, _, errs := tandem(t, "cleanup", "--instance", instance); code != exit.Running {
				t.Errorf("cleanup beside a daemon: code %d: %s", code, errs)
			}
			if code, out, errs := tandem(t, "drain", "--wait"); code != exit.OK || out != "new calls are refused; 0 calls left\n" {
				t.Errorf("drain: code %d: %s%s", code, out, errs)
			}
			args := []string{"stop", "--instance", instance}
			want := "0 calls are silent until the next tandemd takes them over"
			if release {
				args, want = append(args, "--release"), "nothing is left in the kernel; 0 calls were cut off"
			}
			if code, out, errs := tandem(t, args...); code != exit.OK || !strings.Contains(out, want) {
				t.Errorf("stop: code %d: %s%s", code, out, errs)
			}
			if _, held, err := lifecycle.Held(filepath.Join(base, instance)); held || err != nil {
				t.Errorf("stop returned, and the instance is held: %v", err)
			}
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				t.Fatal("stop returned, and the process lives")
			}
			if code, _, errs := tandem(t, "status"); code != exit.NotRunning {
				t.Errorf("status without a daemon: code %d: %s", code, errs)
			}
			left, err := filepath.Glob(filepath.Join(base, instance, "*"))
			if err != nil || (len(left) == 0) != release {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}
