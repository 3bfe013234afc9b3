package main

import (
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
)

// The kernel goes on after the daemon, the next one adopts it, and only a release empties it.
func TestXDPStaysAndIsReleased(t *testing.T) {
	l := require.Lab(t)
	ns := connected(t, l, netip.MustParsePrefix("203.0.113.10/24"))
	instance := fmt.Sprintf("test-%d", os.Getpid())
	pins := filepath.Join(bpf.DefaultRoot, instance)
	t.Cleanup(func() {
		if err := bpf.Cleanup("", instance); err != nil {
			t.Error(err)
		}
	})
	base := filepath.Join(t.TempDir(), "run")
	file := filepath.Join(t.TempDir(), "tandem.toml")
	write := func(dataplane string) {
		text := fmt.Sprintf("instance = %q\ndataplane = %q\n[limits]\nflows = 1024\n[[network]]\nname = \"a\"\ninterfaces = [\"eth0\"]\nsip = [\"udp:203.0.113.10:5060\"]\n"+
			"[[network.media]]\naddress = \"203.0.113.10\"\nports = \"20000-20999\"\n", instance, dataplane)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start := func() *process {
		return launchBy(t, func(cmd *exec.Cmd) error { return ns.Start(cmd) }, base, "--config", file)
	}
	pinned := func(want bool) {
		t.Helper()
		if _, err := os.Stat(pins); os.IsNotExist(err) == want {
			t.Fatalf("pins in %s: %v, want there: %v", pins, err, want)
		}
	}

	write("xdp")
	pinned(false)
	for range 2 { // the second one adopts
		p := start()
		if got := p.ready(); !strings.Contains(got, "data plane xdp") {
			t.Errorf("got %q", got)
		}
		status, err := client(t, base, instance).Status(t.Context())
		if err != nil || status.Dataplane.Name != "xdp" {
			t.Errorf("status %+v %v", status, err)
		}
		p.signal(syscall.SIGTERM)
		p.ends(exit.OK)
		pinned(true)
	}

	write("userspace")
	p := start()
	p.ends(exit.Failure)
	if !strings.Contains(p.stderr.String(), "the kernel still forwards for instance") {
		t.Errorf("got %s", p.stderr)
	}

	write("xdp")
	p = start()
	p.ready()
	if _, err := client(t, base, instance).Stop(t.Context(), true); err != nil {
		t.Error(err)
	}
	p.ends(exit.OK)
	pinned(false)
	if _, err := os.Stat(filepath.Join(base, instance)); !os.IsNotExist(err) {
		t.Errorf("runtime directory: %v", err)
	}
}

// A start that fails half-way leaves nothing in the kernel.
func TestXDPRefusedLeavesNothing(t *testing.T) {
	l := require.Lab(t)
	ns, err := l.Namespace("tandem")
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Namespace("peer")
	if err != nil {
		t.Fatal(err)
	}
	// The far end would drop what XDP redirects to it.
	if err := l.Connect(bare(ns, "203.0.113.10/24"), bare(peer)); err != nil {
		t.Fatal(err)
	}
	instance := fmt.Sprintf("test-refused-%d", os.Getpid())
	t.Cleanup(func() {
		if err := bpf.Cleanup("", instance); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(t.TempDir(), "tandem.toml")
	text := fmt.Sprintf("instance = %q\n[limits]\nflows = 1024\n[[network]]\nname = \"a\"\ninterfaces = [\"eth0\"]\nsip = [\"udp:203.0.113.10:5060\"]\n"+
		"[[network.media]]\naddress = \"203.0.113.10\"\nports = \"20000-20999\"\n", instance)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(t.TempDir(), "run")
	p := launchBy(t, func(cmd *exec.Cmd) error { return ns.Start(cmd) }, base, "--config", file)
	p.ends(exit.Failure)
	if !strings.Contains(p.stderr.String(), "eth0") {
		t.Errorf("the interface is not named: %s", p.stderr)
	}
	if _, err := os.Stat(filepath.Join(bpf.DefaultRoot, instance)); !os.IsNotExist(err) {
		t.Errorf("pins: %v", err)
	}
}
