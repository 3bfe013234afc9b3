package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tandem-relay/tandem/bench/lab/require"
	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/cmd/internal/exit"
	"github.com/tandem-relay/tandem/cmd/internal/lifecycle"
)

// closer counts how often it was closed.
type closer int

func (c *closer) Close() error { *c++; return nil }

// TestLeave: calls are forgotten before the kernel is emptied, and only when that was asked for.
func TestLeave(t *testing.T) {
	for _, test := range []struct {
		name          string
		forget, empty bool
		fails         error
	}{
		{"forwarding goes on", false, false, nil},
		{"emptied after a start that failed: the calls of the journal are not forgotten", false, true, nil},
		{"released", true, true, nil},
		{"released, but interrupted", true, true, errors.New("interrupted")},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run", "edge")
			if err := lifecycle.PrepareDir(dir); err != nil {
				t.Fatal(err)
			}
			lock, err := lifecycle.Acquire(dir, lifecycle.Owner{PID: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Release()
			journal := filepath.Join(dir, "journal")
			if err := os.Mkdir(journal, 0o700); err != nil {
				t.Fatal(err)
			}
			var records closer
			ended := false
			p := &plane{end: func(empty bool) error {
				ended = true
				_, err := os.Stat(journal)
				if empty != test.empty || errors.Is(err, os.ErrNotExist) != test.forget || records == 1 != test.forget {
					t.Errorf("empty %v, closed %d times, journal: %v", empty, records, err)
				}
				return test.fails
			}}
			if err := leave(p, lock, &records, test.forget, test.empty); !ended || !errors.Is(err, test.fails) {
				t.Errorf("ended %v: %v", ended, err)
			}
		})
	}
}

// A damaged journal refuses the start, and says what the operator can do.
func TestDamagedJournal(t *testing.T) {
	base := filepath.Join(t.TempDir(), "run")
	file, _ := configure(t, "edge")
	journal := filepath.Join(base, "edge", "journal", "journal")
	if err := os.MkdirAll(filepath.Dir(journal), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(journal, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, base, "--config", file)
	p.ends(exit.Failure)
	for _, want := range []string{"journal is damaged: offset 0", filepath.Dir(filepath.Dir(journal)), "tandem cleanup --instance edge", "forgets all calls"} {
		if !strings.Contains(p.stderr.String(), want) {
			t.Errorf("no %q in %s", want, p.stderr)
		}
	}
	if text, err := os.ReadFile(journal); err != nil || string(text) != "rubbish" {
		t.Errorf("the journal: %q %v", text, err)
	}
}

// A first start that fails late leaves nothing in the kernel; one that found an earlier process's flows leaves them.
func TestXDPLateFailure(t *testing.T) {
	l := require.Lab(t)
	ns := connected(t, l, netip.MustParsePrefix("203.0.113.10/24"))
	instance := fmt.Sprintf("test-late-%d", os.Getpid())
	pins := filepath.Join(bpf.DefaultRoot, instance)
	t.Cleanup(func() {
		if err := bpf.Cleanup("", instance); err != nil {
			t.Error(err)
		}
	})
	base := filepath.Join(t.TempDir(), "run")
	file := filepath.Join(t.TempDir(), "tandem.toml")
	text := fmt.Sprintf("instance = %q\n[limits]\nflows = 1024\n[[network]]\nname = \"a\"\ninterfaces = [\"eth0\"]\nsip = [\"udp:203.0.113.10:5060\"]\n"+
		"[[network.media]]\naddress = \"203.0.113.10\"\nports = \"20000-20999\"\n", instance)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() *process {
		return launchBy(t, func(cmd *exec.Cmd) error { return ns.Start(cmd) }, base, "--config", file)
	}
	taken := func() {
		t.Helper()
		conn, err := ns.ListenUDP(netip.MustParseAddrPort("203.0.113.10:5060"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		p := start()
		p.ends(exit.Failure)
		if !strings.Contains(p.stderr.String(), "address already in use") {
			t.Errorf("got %s", p.stderr)
		}
	}
	taken()
	if _, err := os.Stat(pins); !os.IsNotExist(err) {
		t.Errorf("the first start left its pins: %v", err)
	}
	p := start()
	p.ready()
	p.signal(syscall.SIGTERM)
	p.ends(exit.OK)
	taken()
	if _, err := os.Stat(pins); err != nil {
		t.Errorf("pins of the earlier process: %v", err)
	}
}
