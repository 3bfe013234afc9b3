package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/cmd/internal/config"
	"github.com/tandem-relay/tandem/cmd/internal/exit"
	"github.com/tandem-relay/tandem/cmd/internal/lifecycle"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/signalling/rest"
)

// fakeDaemon is behind the control API of a daemon that does not exist.
type fakeDaemon struct {
	plane string

	mu       sync.Mutex
	draining bool
	calls    []int // calls at each question; the last one stays
}

func (f *fakeDaemon) Len() int          { return 1 }
func (f *fakeDaemon) PlaneName() string { return f.plane }
func (f *fakeDaemon) Sessions() []*relay.Session {
	return []*relay.Session{{ID: "s1", Parties: []relay.Party{{
		ID: "p1", Label: "alice", Network: "outside", Streams: []relay.Stream{
			{Media: "audio", Local: relay.Pair{Addr: netip.MustParseAddr("203.0.113.10"), RTP: 20000, RTCP: 20001},
				Remote: relay.Remote{Signalled: netip.MustParseAddrPort("192.168.1.2:4000")}},
			{Media: "video"},
		},
	}}}}
}

func (f *fakeDaemon) Flows(relay.SessionID) []relay.Flow {
	return []relay.Flow{{
		Local: netip.MustParseAddrPort("203.0.113.10:20000"), Learnt: netip.MustParseAddrPort("198.51.100.9:31000"), Action: relay.Forward,
		Packets: map[relay.Path]uint64{relay.PathXDP: 50}, LastSeen: time.Now(),
	}}
}

func (f *fakeDaemon) Totals() (relay.Totals, error) {
	return relay.Totals{Forwarded: map[relay.Path]uint64{relay.PathXDP: 100, relay.PathSlow: 0}, Reasons: []relay.Reason{
		{Name: "no_session", Verdict: "drop", Help: "nobody has this port", Packets: 5, Bytes: 500},
		{Name: "bad_checksum", Verdict: "drop", Help: "damaged", Packets: 0},
	}}, nil
}

func (f *fakeDaemon) Ports() []relay.PoolStatus {
	return []relay.PoolStatus{{Network: "outside", Addr: netip.MustParseAddr("203.0.113.10"), Total: 10, Used: 2, Quarantined: 1}}
}

func (f *fakeDaemon) CallCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.calls[0]
	if len(f.calls) > 1 {
		f.calls = f.calls[1:]
	}
	return n
}

func (f *fakeDaemon) Calls() map[relay.SessionID]rest.Call {
	return map[relay.SessionID]rest.Call{"s1": {State: "early", From: "sip:alice@a", To: "sip:bob@b", TrunkIn: "carrier", TrunkOut: "pbx", StartedAt: time.Now()}}
}
func (f *fakeDaemon) Counters() map[string]uint64 {
	return map[string]uint64{"calls_started": 7, "malformed": 0}
}
func (f *fakeDaemon) Panics() uint64 { return 0 }
func (f *fakeDaemon) Drain(on bool)  { f.mu.Lock(); f.draining = on; f.mu.Unlock() }
func (f *fakeDaemon) Draining() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.draining }

// runDaemon serves f as an instance under a runtime base of its own, or of an earlier call.
func runDaemon(t *testing.T, instance string, f *fakeDaemon) {
	t.Helper()
	dir := filepath.Join(os.Getenv("TANDEM_RUNTIME_DIR"), instance)
	if err := lifecycle.PrepareDir(dir); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "other.sock")
	lock, err := lifecycle.Acquire(dir, lifecycle.Owner{PID: os.Getpid(), Socket: socket, Started: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	server := rest.New(rest.Config{Socket: socket, Instance: instance, Version: "v1", Started: time.Now(), Media: f, Signalling: f, Stop: func(bool) {}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := lock.Release(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-server.Ready():
	case err := <-done:
		t.Fatal(err)
	}
}

// runtimeBase gives the test a runtime base of its own.
func runtimeBase(t *testing.T) string {
	base := filepath.Join(t.TempDir(), "run")
	t.Setenv("TANDEM_RUNTIME_DIR", base)
	return base
}

// tandem carries out a command line.
func tandem(t *testing.T, args ...string) (code exit.Code, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestAskingCommands(t *testing.T) {
	runtimeBase(t)
	runDaemon(t, "edge", &fakeDaemon{plane: "userspace", calls: []int{3}})
	cases := []struct {
		name string
		args []string
		want []string // in the output
		not  []string
	}{
		{"status says loudly that the kernel does not forward", []string{"status"},
			[]string{"instance        edge, process ", "USERSPACE: NOT IN THE KERNEL", "calls           3", "forwarded       slow 0, xdp 100", "dropped         no_session 5", "203.0.113.10   outside  10          2     1            7", "calls_started  7"},
			[]string{"malformed", "DRAINING", "bad_checksum"}},
		{"status by name", []string{"status", "--instance", "edge"}, []string{"edge, process"}, nil},
		{"sessions", []string{"sessions"},
			[]string{"session s1: sip:alice@a -> sip:bob@b, carrier -> pbx, early for 0s", "alice", "203.0.113.10:20000", "192.168.1.2:4000", "198.51.100.9:31000", "xdp 50", "0s ago", "video", "no ports"}, nil},
		{"drops", []string{"drops"}, []string{"no_session", "5", "500", "nobody has this port"}, []string{"bad_checksum"}},
		{"all drops", []string{"drops", "--all"}, []string{"no_session", "bad_checksum"}, nil},
		{"drain", []string{"drain"}, []string{"new calls are refused; 3 calls left"}, nil},
		{"end of drain", []string{"drain", "--off"}, []string{"new calls are taken again; 3 calls"}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := tandem(t, c.args...)
			if code != exit.OK || errs != "" {
				t.Fatalf("code %d: %s", code, errs)
			}
			for _, w := range c.want {
				if !strings.Contains(out, w) {
					t.Errorf("no %q in:\n%s", w, out)
				}
			}
			for _, n := range c.not {
				if strings.Contains(out, n) {
					t.Errorf("%q in:\n%s", n, out)
				}
			}
		})
	}
	t.Run("JSON", func(t *testing.T) {
		for _, command := range []string{"status", "sessions", "drops", "drain", "version"} {
			code, out, errs := tandem(t, command, "--json")
			var object map[string]any
			if err := json.Unmarshal([]byte(out), &object); err != nil || code != exit.OK || errs != "" || len(object) == 0 {
				t.Errorf("%s: code %d, %v: %s%s", command, code, err, out, errs)
			}
		}
	})
}

func TestStatusOfXDP(t *testing.T) {
	runtimeBase(t)
	runDaemon(t, "edge", &fakeDaemon{plane: "xdp", calls: []int{3}, draining: true})
	_, out, _ := tandem(t, "status")
	if !strings.Contains(out, "xdp: the kernel forwards") || strings.Contains(out, "NOT IN THE KERNEL") || !strings.Contains(out, "DRAINING") {
		t.Errorf("got:\n%s", out)
	}
}

func TestDrainWaits(t *testing.T) {
	runtimeBase(t)
	runDaemon(t, "edge", &fakeDaemon{plane: "xdp", calls: []int{2, 2, 1, 0}})
	code, out, errs := tandem(t, "drain", "--wait")
	if code != exit.OK || out != "new calls are refused; 0 calls left\n" || errs != "waiting for 2 calls\nwaiting for 1 calls\n" {
		t.Errorf("code %d:\n%s%s", code, out, errs)
	}
}

func TestDrainInterrupted(t *testing.T) {
	runtimeBase(t)
	runDaemon(t, "edge", &fakeDaemon{plane: "xdp", calls: []int{2}})
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	errs := &interrupting{cancel: cancel}
	code := run(ctx, []string{"drain", "--wait"}, &out, errs)
	if code != exit.Failure || out.Len() != 0 || !strings.Contains(errs.String(), "interrupted with 2 calls left; new calls are still refused") {
		t.Errorf("code %d:\n%s%s", code, out.String(), errs.String())
	}
}

// interrupting ends the command at its first word.
type interrupting struct {
	bytes.Buffer
	cancel context.CancelFunc
}

func (i *interrupting) Write(b []byte) (int, error) {
	i.cancel()
	return i.Buffer.Write(b)
}

func TestNobodyRuns(t *testing.T) {
	base := runtimeBase(t)
	none := filepath.Join(t.TempDir(), "none.sock")
	cases := []struct {
		name string
		args []string
		want string
	}{
		{"any instance", nil, "tandem: tandemd is not running (no instance in " + base + ")"},
		{"a named instance", []string{"--instance", "edge"}, `tandem: instance "edge" is not running (nobody holds ` + base + "/edge/lock)"},
		{"a socket", []string{"--socket", none}, "tandem: no daemon answers on " + none},
	}
	for _, command := range []string{"status", "sessions", "drops", "drain", "stop"} {
		for _, c := range cases {
			t.Run(command+" "+c.name, func(t *testing.T) {
				code, out, errs := tandem(t, append([]string{command}, c.args...)...)
				if code != exit.NotRunning || out != "" || !strings.HasPrefix(errs, c.want) {
					t.Errorf("code %d: %s%s", code, out, errs)
				}
			})
		}
	}
}

func TestSeveralInstances(t *testing.T) {
	runtimeBase(t)
	runDaemon(t, "edge", &fakeDaemon{plane: "xdp", calls: []int{3}})
	runDaemon(t, "core", &fakeDaemon{plane: "xdp", calls: []int{3}})
	code, _, errs := tandem(t, "status")
	if code != exit.Usage || errs != "tandem: several instances run: core, edge; choose one with --instance\n" {
		t.Errorf("code %d: %s", code, errs)
	}
	if code, out, _ := tandem(t, "status", "--instance", "core"); code != exit.OK || !strings.Contains(out, "core, process") {
		t.Errorf("code %d: %s", code, out)
	}
}

func TestUsage(t *testing.T) {
	runtimeBase(t)
	for _, args := range [][]string{
		{"bogus"}, {"status", "extra"}, {"status", "--bogus"}, {"check", "a", "b"}, {"status", "--instance", "a", "--socket", "b"},
		{"status", "--instance", "../x"}, {"cleanup", "--instance", "../x"}, {"cleanup", "--socket", "x"}, {"drain", "--off", "--wait"},
		{"stop", "--timeout", "soon"},
	} {
		if code, out, errs := tandem(t, args...); code != exit.Usage || out != "" || !strings.HasPrefix(errs, "tandem: ") {
			t.Errorf("%v: code %d: %s%s", args, code, out, errs)
		}
	}
	if code, out, _ := tandem(t); code != exit.OK || !strings.Contains(out, "Exit codes") {
		t.Errorf("no arguments: code %d: %s", code, out)
	}
}

func TestCheck(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(bad, []byte("instanze = \"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := tandem(t, "check", "../../scripts/examples/loopback.toml")
	for _, want := range []string{`is good: instance "loopback", data plane userspace`, "network callers", "SIP udp:127.0.0.2:15060",
		"media 127.0.0.2:20000-29999 (5000 pairs)", "trunk caller", "peer 127.0.0.4:15060", "from 127.0.0.4/32", "its calls go to callee"} {
		if code != exit.OK || errs != "" || !strings.Contains(out, want) {
			t.Errorf("code %d, no %q in:\n%s%s", code, want, out, errs)
		}
	}
	code, out, errs = tandem(t, "check", bad)
	if code != exit.Config || out != "" || !strings.HasPrefix(errs, bad+":1:1: ") || strings.Contains(errs, "tandem: ") {
		t.Errorf("code %d:\n%s%s", code, out, errs)
	}
	code, out, errs = tandem(t, "check", bad+"-none")
	if code != exit.Config || out != "" || !strings.HasPrefix(errs, "tandem: read configuration: ") || !strings.Contains(errs, "no such file") {
		t.Errorf("code %d:\n%s%s", code, out, errs)
	}
	if _, out, _ := tandem(t, "check", "--help"); !strings.Contains(out, "without trying XDP") {
		t.Errorf("help: %s", out)
	}
	var object checked
	code, out, _ = tandem(t, "check", "--json", bad)
	if err := json.Unmarshal([]byte(out), &object); err != nil || code != exit.Config || object.OK || len(object.Problems) != 2 ||
		object.Problems[1].Hint != `did you mean "instance"?` || object.Problems[1].Line != 1 {
		t.Errorf("code %d, %v: %s", code, err, out)
	}
	code, out, _ = tandem(t, "check", "--json", "../../scripts/examples/loopback.toml")
	if err := json.Unmarshal([]byte(out), &object); err != nil || code != exit.OK || !object.OK || len(object.Problems) != 0 {
		t.Errorf("code %d, %v: %s", code, err, out)
	}
}

// The journal is gone before the kernel is emptied: an interruption in between must not leave calls whose media is gone.
func TestCleanupOrder(t *testing.T) {
	base := runtimeBase(t)
	journal := filepath.Join(base, "edge", "journal")
	for _, err := range []error{nil, errors.New("interrupted")} {
		if err := os.MkdirAll(journal, 0o700); err != nil {
			t.Fatal(err)
		}
		emptied := false
		_, got := cleanup(t.TempDir(), "edge", func(instance string) error {
			emptied = true
			if _, err := os.Stat(journal); instance != "edge" || !errors.Is(err, os.ErrNotExist) {
				t.Errorf("instance %q, journal: %v", instance, err)
			}
			if _, held, err := lifecycle.Held(filepath.Join(base, "edge")); !held || err != nil {
				t.Errorf("the instance is free: %v", err)
			}
			return err
		})
		if !emptied || !errors.Is(got, err) {
			t.Errorf("emptied %v: %v", emptied, got)
		}
	}
}

func TestCleanup(t *testing.T) {
	base := runtimeBase(t)
	const instance = "cleanup-test"
	runDaemon(t, "edge", &fakeDaemon{plane: "xdp", calls: []int{3}})
	code, _, errs := tandem(t, "cleanup", "--instance", "edge")
	if code != exit.Running || !strings.Contains(errs, `instance "edge" is in use by process `) || !strings.Contains(errs, "tandem stop --release --instance edge") {
		t.Errorf("while the daemon lives: code %d: %s", code, errs)
	}
	left := filepath.Join(base, instance, "journal", "journal")
	if err := os.MkdirAll(filepath.Dir(left), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(left, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Who may not look into the kernel is told so.
	inKernel, nothing := "there was nothing in the kernel", "there was nothing to remove"
	if _, err := os.Stat(filepath.Join(bpf.DefaultRoot, instance)); errors.Is(err, os.ErrPermission) {
		inKernel = "the kernel was not looked at, which needs root"
		nothing += "; " + inKernel
	}
	code, out, errs := tandem(t, "cleanup", "--instance", instance)
	if code != exit.OK || out != "instance \"cleanup-test\": the journal is removed; "+inKernel+"\n" {
		t.Errorf("code %d: %s%s", code, out, errs)
	}
	if _, err := os.Stat(filepath.Join(base, instance)); !os.IsNotExist(err) {
		t.Errorf("the runtime directory is still there: %v", err)
	}
	code, out, errs = tandem(t, "cleanup", "--instance", instance)
	if code != exit.OK || !strings.HasPrefix(out, "instance \"cleanup-test\": "+nothing+"; other instances here: ") || !strings.Contains(out, "edge") {
		t.Errorf("with nothing to clean: code %d: %s%s", code, out, errs)
	}
}

// Cleanup says what it found: in the kernel, in the runtime directory, or nothing.
func TestCleanupSays(t *testing.T) {
	cases := []struct {
		name            string
		kernel, journal bool
		other           bool // another instance has left something
		want            string
	}{
		{"both", true, true, true, `instance "edge": removed from the kernel, and its journal with it`},
		{"kernel only", true, false, false, `instance "edge": removed from the kernel; there was no journal`},
		{"journal only", false, true, false, `instance "edge": the journal is removed; there was nothing in the kernel`},
		{"nothing", false, false, false, `instance "edge": there was nothing to remove`},
		{"nothing, as of a name that is misspelt", false, false, true, `instance "edge": there was nothing to remove; other instances here: egde`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			base, root := runtimeBase(t), t.TempDir()
			make := func(there bool, path ...string) {
				if there {
					if err := os.MkdirAll(filepath.Join(path...), 0o700); err != nil {
						t.Fatal(err)
					}
				}
			}
			make(c.kernel, root, "edge")
			make(c.journal, base, "edge", "journal")
			make(c.other, root, "egde")
			out, err := cleanup(root, "edge", func(instance string) error { return os.RemoveAll(filepath.Join(root, instance)) })
			if err != nil {
				t.Fatal(err)
			}
			if !out.Kernel || out.RemovedKernel != c.kernel || out.RemovedJournal != c.journal || out.Others == nil {
				t.Errorf("got %+v", out)
			}
			var b strings.Builder
			if err := printCleaned(&b, out); err != nil || b.String() != c.want+"\n" {
				t.Errorf("got %q %v, want %q", b.String(), err, c.want)
			}
		})
	}
}

// A release that finds no daemon says how what an earlier one left is removed.
func TestReleaseWithoutDaemon(t *testing.T) {
	base := runtimeBase(t)
	const hint = "removed by: tandem cleanup --instance test-left"
	if err := os.MkdirAll(filepath.Join(base, "test-left", "journal"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		hinted bool
	}{
		{[]string{"stop", "--release"}, true},
		{[]string{"stop", "--release", "--instance", "test-left"}, true},
		{[]string{"stop", "--release", "--instance", "test-other"}, false},
		{[]string{"stop"}, false},
	} {
		if code, _, errs := tandem(t, c.args...); code != exit.NotRunning || strings.Contains(errs, hint) != c.hinted {
			t.Errorf("%v: code %d: %s", c.args, code, errs)
		}
	}
}

// Whatever fails, --json gets one object.
func TestJSONFailure(t *testing.T) {
	base := runtimeBase(t)
	runDaemon(t, "edge", &fakeDaemon{plane: "xdp", calls: []int{3}})
	cases := []struct {
		code exit.Code
		args []string
		want string
	}{
		{exit.NotRunning, []string{"status", "--instance", "core"}, `instance "core" is not running`},
		{exit.NotRunning, []string{"stop", "--socket", base + "/none"}, "no daemon answers"},
		{exit.Running, []string{"cleanup", "--instance", "edge"}, `instance "edge" is in use`},
		{exit.Usage, []string{"cleanup", "--socket", "x"}, "cleanup works on an --instance"},
		{exit.Usage, []string{"drain", "--off", "--wait"}, "there is no end to --wait for"},
		{exit.Usage, []string{"status", "--socket", "x", "--instance", "edge"}, "give one of them"},
		{exit.Usage, []string{"status", "--bogus"}, "unknown flag"},
		{exit.Usage, []string{"bogus"}, "unknown command"},
	}
	for _, c := range cases {
		code, out, errs := tandem(t, append(c.args, "--json")...)
		decoder := json.NewDecoder(strings.NewReader(out))
		var object failure
		if err := decoder.Decode(&object); err != nil || decoder.More() || code != c.code || !strings.Contains(object.Error, c.want) || !strings.Contains(errs, c.want) {
			t.Errorf("%v: code %d, %v: %s%s", c.args, code, err, out, errs)
		}
	}
}

// Calls whose media has ended, or not begun, are told apart.
func TestCallsWithoutMedia(t *testing.T) {
	for calls, want := range map[int]string{0: "", 1: "", 3: " (2 without media: just begun, or waiting for the answer to BYE)"} {
		if got := withoutMedia(rest.Status{Calls: calls, Sessions: 1}); got != want {
			t.Errorf("%d calls, 1 session: %q, want %q", calls, got, want)
		}
	}
	for calls, want := range map[int]string{0: "", 2: "; calls without media: 2 (just begun, or waiting for the answer to BYE)"} {
		if got := callsLeft(calls); got != want {
			t.Errorf("%d calls: %q, want %q", calls, got, want)
		}
	}
}

// No table has a header above nothing.
func TestStatusOfFreshDaemon(t *testing.T) {
	var b strings.Builder
	if err := printStatus(&b, rest.Status{SIP: map[string]uint64{"calls_started": 0}}); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(b.String(), "\nSIP: nothing yet\n") || strings.Contains(b.String(), "COUNT") {
		t.Errorf("got:\n%s", b.String())
	}
}

// What is allowed and perhaps not meant stands below the summary.
func TestNotes(t *testing.T) {
	network := func(name string, interfaces ...string) config.Network {
		return config.Network{Name: name, Interfaces: interfaces}
	}
	trunks := []config.Trunk{{Name: "t"}}
	cases := []struct {
		name string
		cfg  *config.Config
		want []string
	}{
		{"no configuration", nil, []string{}},
		{"nothing to say", &config.Config{Networks: []config.Network{network("a", "eth0"), network("b", "eth1"), network("c")}, Trunks: trunks}, []string{}},
		{"no trunk", &config.Config{Networks: []config.Network{network("a", "eth0")}}, []string{"no trunk is defined: every call is refused"}},
		{"one interface of two networks", &config.Config{Networks: []config.Network{network("a", "eth0"), network("b", "eth1", "eth0")}, Trunks: trunks},
			[]string{"networks a and b are both on eth0: only their addresses keep them apart"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := notes(c.cfg); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if c.cfg == nil {
				return
			}
			var b strings.Builder
			if err := printConfig(&b, c.cfg); err != nil || strings.Count(b.String(), "note: ") != len(c.want) {
				t.Errorf("%v:\n%s", err, b.String())
			}
		})
	}
}

// A runtime directory whose name can be foreseen must be ours: somebody else's could hold an instance of his.
func TestForeignBase(t *testing.T) {
	t.Setenv("TANDEM_RUNTIME_DIR", "")
	base := filepath.Join(t.TempDir(), "tandem-1000")
	if err := checkBase(base); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	if err := os.Symlink(t.TempDir(), base); err != nil {
		t.Fatal(err)
	}
	if err := checkBase(base); err == nil || !strings.Contains(err.Error(), "is not a directory") {
		t.Errorf("a link: %v", err)
	}
	t.Setenv("TANDEM_RUNTIME_DIR", base)
	if err := checkBase(base); err != nil {
		t.Errorf("a link that was chosen: %v", err)
	}
}
