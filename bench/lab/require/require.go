// Package require says what a test needs from the machine, and skips it loudly, or fails it, where that is missing.
//
// A missing capability is a failure instead of a skip when the environment variable TANDEM_REQUIRE names it in its
// comma-separated list: root, bpf, netns, or the name of a tool such as sipp.
package require

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/bench/lab"
)

// Variable is the environment variable that turns skips into failures.
const Variable = "TANDEM_REQUIRE"

// LogVariable is the environment variable that names the file in which skips are noted.
const LogVariable = "TANDEM_SKIP_LOG"

// Root requires user id 0.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root", "not running as root")
	}
}

// Netns requires the right to make network namespaces.
func Netns(t testing.TB) {
	t.Helper()
	l := lab.New()
	_, err := l.Namespace("probe")
	if err := errors.Join(err, l.Close()); err != nil {
		missing(t, "netns", err.Error())
	}
}

// BPF requires the right to load XDP programs.
func BPF(t testing.TB) {
	t.Helper()
	if err := probeBPF(); err != nil {
		missing(t, "bpf", err.Error())
	}
}

// PinDir requires a BPF file system and returns an empty directory in one of the test's own, which is gone at the end of
// the test. It does not need one at /sys/fs/bpf.
func PinDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		missing(t, "bpf", fmt.Sprintf("mount a BPF file system: %v", err))
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// Tool requires programs on the path.
func Tool(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing(t, name, err.Error())
		}
	}
}

// Lab requires root, network namespaces and BPF, and returns an empty lab that is closed at the end of the test.
func Lab(t testing.TB) *lab.Lab {
	t.Helper()
	Root(t)
	Netns(t)
	BPF(t)
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
	})
	return l
}

func probeBPF() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
		License:      "Apache-2.0",
	})
	if err != nil {
		return fmt.Errorf("load XDP program: %w", err)
	}
	return prog.Close()
}

// missing ends the test. The text is easy to find in a log.
func missing(t testing.TB, capability, why string) {
	t.Helper()
	if Demanded(os.Getenv(Variable), capability) {
		t.Fatalf("MISSING %s (demanded by %s): %s", capability, Variable, why)
	}
	if err := note(t.Name(), capability, why); err != nil {
		t.Fatalf("note the skip: %v", err)
	}
	t.Skipf("SKIPPED FOR WANT OF %s: %s", strings.ToUpper(capability), why)
}

// note adds the skip to the file that scripts/test.sh shows at the end, if there is one.
func note(test, capability, why string) error {
	path := os.Getenv(LogVariable)
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s: for want of %s: %s\n", test, capability, strings.ReplaceAll(why, "\n", " "))
	return errors.Join(err, f.Close())
}

// Demanded reports whether a list as in TANDEM_REQUIRE names the capability.
func Demanded(list, capability string) bool {
	return slices.ContainsFunc(strings.Split(list, ","), func(s string) bool { return strings.TrimSpace(s) == capability })
}
