package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
	"github.com/tandem-relay/tandem/cmd/internal/exit"
	"github.com/tandem-relay/tandem/cmd/internal/lifecycle"
	"github.com/tandem-relay/tandem/signalling/rest"
)

// asMain makes the test binary be tandemd.
const asMain = "TANDEMD_TEST_AS_MAIN"

// patience bounds every wait for a process.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
	}
	os.Exit(m.Run())
}

// process is a tandemd.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr *output
	code   chan int
}

// output collects what a process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// launch starts tandemd under a runtime base; it is killed with the test.
func launch(t *testing.T, base string, args ...string) *process {
	t.Helper()
	return launchBy(t, (*exec.Cmd).Start, base, args...)
}

// launchBy is launch with a way of its own to start the program.
func launchBy(t *testing.T, start func(*exec.Cmd) error, base string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0], args...), stderr: &output{}, code: make(chan int, 1)}
	p.cmd.Env = append(os.Environ(), asMain+"=1", "TANDEM_RUNTIME_DIR="+base)
	p.cmd.Stderr = p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = write
	if err := start(p.cmd); err != nil {
		t.Fatal(err)
	}
	write.Close()
	p.stdout = bufio.NewReader(read)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := p.cmd.Wait()
		var status *exec.ExitError
		if err != nil && !errors.As(err, &status) {
			t.Error(err)
		}
		p.code <- p.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-ended
		read.Close()
	})
	return p
}

// ready waits for the ready line and returns it.
func (p *process) ready() string {
	p.t.Helper()
	line := make(chan string, 1)
	go func() {
		text, _ := p.stdout.ReadString('\n')
		line <- text
	}()
	select {
	case text := <-line:
		if !strings.HasPrefix(text, "tandemd ready: ") {
			p.t.Fatalf("not ready: %q\n%s", text, p.stderr)
		}
		return strings.TrimSuffix(text, "\n")
	case <-time.After(patience):
		p.t.Fatalf("not ready in time\n%s", p.stderr)
	}
	return ""
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// ends waits for the end and checks the exit code.
func (p *process) ends(want exit.Code) {
	p.t.Helper()
	select {
	case code := <-p.code:
		if code != int(want) {
			p.t.Fatalf("exit code %d, want %d\n%s", code, want, p.stderr)
		}
	case <-time.After(patience):
		p.t.Fatalf("has not ended in time\n%s", p.stderr)
	}
}

// says waits until the log holds a text.
func (p *process) says(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(p.stderr.String(), text); {
		if time.Now().After(deadline) {
			p.t.Fatalf("does not say %q:\n%s", text, p.stderr)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// freePort finds a UDP port of a loopback address that nobody uses.
func freePort(t *testing.T, addr string) uint16 {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// configure writes a configuration for loopback and returns its file and the SIP listener of its first network.
func configure(t *testing.T, instance string) (file string, sip netip.AddrPort) {
	t.Helper()
	a, b := freePort(t, "127.0.0.2"), freePort(t, "127.0.0.3")
	file = filepath.Join(t.TempDir(), "tandem.toml")
	text := fmt.Sprintf(`instance = %q
dataplane = "userspace"

[[network]]
name = "a"
sip = ["udp:127.0.0.2:%d"]
[[network.media]]
address = "127.0.0.2"
ports = "20000-20999"

[[network]]
name = "b"
sip = ["udp:127.0.0.3:%d"]
[[network.media]]
address = "127.0.0.3"
ports = "20000-20999"

[[trunk]]
name = "a"
network = "a"
peer = "127.0.0.4:5060"
route = "b"

[[trunk]]
name = "b"
network = "b"
peer = "127.0.0.5:5060"
route = "a"
`, instance, a, b)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), a)
}

// client is a client of an instance's control API.
func client(t *testing.T, base, instance string) *rest.Client {
	c := rest.NewClient(filepath.Join(base, instance, "api.sock"))
	t.Cleanup(c.Close)
	return c
}

func TestStartAndTerminate(t *testing.T) {
	base := filepath.Join(t.TempDir(), "run")
	notifications, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notifications.Close()
	t.Setenv("NOTIFY_SOCKET", notifications.LocalAddr().String())
	heard := func() string {
		buf := make([]byte, 256)
		if err := notifications.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		n, err := notifications.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	file, _ := configure(t, "edge")
	p := launch(t, base, "--config", file)
	want := fmt.Sprintf("tandemd ready: instance edge, process %d, data plane userspace, 0 sessions taken over", p.cmd.Process.Pid)
	if got := p.ready(); got != want {
		t.Errorf("got %q", got)
	}
	if got := heard(); got != "READY=1\nSTATUS=data plane userspace" {
		t.Errorf("service manager heard %q", got)
	}
	p.says("data plane is userspace: every packet passes through this process")
	c := client(t, base, "edge")
	status, err := c.Status(t.Context())
	if err != nil || status.Instance != "edge" || status.PID != p.cmd.Process.Pid || status.Dataplane.Name != "userspace" || len(status.Dataplane.Warnings) != 1 || len(status.Ports) != 2 || status.Ports[0].Total != 500 {
		t.Errorf("status %+v %v", status, err)
	}
	for path, mode := range map[string]os.FileMode{"": 0o750, "api.sock": 0o600} {
		if info, err := os.Stat(filepath.Join(base, "edge", path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	p.signal(syscall.SIGHUP)
	p.says("reload is not supported yet")
	if state, err := c.Drain(t.Context(), true); err != nil || !state.Draining {
		t.Errorf("drain %+v %v", state, err)
	}
	if status, err := c.Status(t.Context()); err != nil || !status.Draining {
		t.Errorf("status %+v %v", status, err)
	}
	p.signal(syscall.SIGTERM)
	p.ends(exit.OK)
	if got := heard(); got != "STOPPING=1" {
		t.Errorf("service manager heard %q", got)
	}
	if _, held, err := lifecycle.Held(filepath.Join(base, "edge")); held || err != nil {
		t.Errorf("the instance is still held: %v", err)
	}
	if _, err := os.Stat(filepath.Join(base, "edge", "journal", "journal")); err != nil {
		t.Errorf("the journal must stay: %v", err)
	}
}

func TestInterrupt(t *testing.T) {
	base := filepath.Join(t.TempDir(), "run")
	file, _ := configure(t, "edge")
	p := launch(t, base, "--config", file)
	p.ready()
	p.signal(os.Interrupt)
	p.ends(exit.OK)
}

func TestExampleStarts(t *testing.T) {
	p := launch(t, filepath.Join(t.TempDir(), "run"), "--config", "../../scripts/examples/loopback.toml")
	p.ready()
	p.signal(syscall.SIGTERM)
	p.ends(exit.OK)
}

func TestSecondProcess(t *testing.T) {
	base := filepath.Join(t.TempDir(), "run")
	file, _ := configure(t, "edge")
	first := launch(t, base, "--config", file)
	first.ready()
	second := launch(t, base, "--config", file)
	second.ends(exit.Running)
	if want := fmt.Sprintf(`instance \"edge\" is in use by process %d`, first.cmd.Process.Pid); !strings.Contains(second.stderr.String(), want) {
		t.Errorf("got %s", second.stderr)
	}
	if status, err := client(t, base, "edge").Status(t.Context()); err != nil || status.PID != first.cmd.Process.Pid {
		t.Errorf("the first one: %+v %v", status, err)
	}
	// Another name lives beside it.
	other, _ := configure(t, "core")
	// The two share no media address: the second gets one of its own.
	text, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, bytes.ReplaceAll(text, []byte("20000-20999"), []byte("22000-22999")), 0o600); err != nil {
		t.Fatal(err)
	}
	beside := launch(t, base, "--config", other)
	beside.ready()
	running, err := lifecycle.Instances(base)
	if err != nil || len(running) != 2 || running["core"].PID != beside.cmd.Process.Pid {
		t.Errorf("running %v %v", running, err)
	}
}

func TestKilledAndStartedAgain(t *testing.T) {
	base := filepath.Join(t.TempDir(), "run")
	file, _ := configure(t, "edge")
	for range 3 {
		p := launch(t, base, "--config", file)
		p.ready()
		owner, held, err := lifecycle.Held(filepath.Join(base, "edge"))
		if err != nil || !held || owner.PID != p.cmd.Process.Pid || owner.Socket != filepath.Join(base, "edge", "api.sock") {
			t.Fatalf("held by %+v, %v %v", owner, held, err)
		}
		p.signal(syscall.SIGKILL)
		p.ends(-1)
		if _, held, err := lifecycle.Held(filepath.Join(base, "edge")); held || err != nil {
			t.Fatalf("held by the dead: %v", err)
		}
	}
}

func TestStopByAPI(t *testing.T) {
	for _, release := range []bool{false, true} {
		t.Run(fmt.Sprintf("release %v", release), func(t *testing.T) {
			base := filepath.Join(t.TempDir(), "run")
			file, _ := configure(t, "edge")
			p := launch(t, base, "--config", file)
			p.ready()
			stopping, err := client(t, base, "edge").Stop(t.Context(), release)
			if err != nil || stopping.PID != p.cmd.Process.Pid || stopping.Release != release {
				t.Errorf("got %+v %v", stopping, err)
			}
			p.ends(exit.OK)
			if _, err := os.Stat(filepath.Join(base, "edge")); os.IsNotExist(err) != release {
				t.Errorf("runtime directory: %v", err)
			}
		})
	}
}

func TestAddressInUse(t *testing.T) {
	base := filepath.Join(t.TempDir(), "run")
	file, sip := configure(t, "edge")
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(sip))
	if err != nil {
		t.Fatal(err)
	}
	p := launch(t, base, "--config", file)
	p.ends(exit.Failure)
	if log := p.stderr.String(); !strings.Contains(log, sip.String()) || !strings.Contains(log, "address already in use") {
		t.Errorf("got %s", log)
	}
	conn.Close()
	p = launch(t, base, "--config", file)
	p.ready()
}

func TestRefusals(t *testing.T) {
	base := filepath.Join(t.TempDir(), "run")
	good, _ := configure(t, "edge")
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(bad, bytes.Replace(text, []byte("dataplane"), []byte("dataplan"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name string
		args []string
		code exit.Code
		want string // on stderr
	}{
		{"a configuration with a problem", []string{"--config", bad}, exit.Config, bad + `:2:1: unknown key "dataplan" at the top level`},
		{"no configuration", []string{"--config", bad + "-none"}, exit.Config, "tandemd: read configuration: stat " + bad + "-none: no such file"},
		{"an unknown flag", []string{"--bogus"}, exit.Usage, "bogus"},
		{"an argument", []string{good}, exit.Usage, "the configuration is given with --config"},
		{"a wrong log level", []string{"--log-level", "loud"}, exit.Usage, "loud"},
		{"help", []string{"--help"}, exit.OK, "Exit codes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := launch(t, base, c.args...)
			p.ends(c.code)
			if !strings.Contains(p.stderr.String(), c.want) {
				t.Errorf("got %s", p.stderr)
			}
		})
	}
	if _, err := os.Stat(base); !os.IsNotExist(err) {
		t.Errorf("a refused start left something behind: %v", err)
	}
}

// Without its capabilities the XDP data plane is refused with their names, before anything is touched.
func TestMissingCapabilities(t *testing.T) {
	l := require.Lab(t)
	ns := connected(t, l, netip.MustParsePrefix("203.0.113.10/24"))
	const nobody = 65534
	// The test's own directories are closed to other users, the program in them too.
	dir, err := os.MkdirTemp("", "tandemd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "tandem.toml")
	text := "[[network]]\nname = \"a\"\ninterfaces = [\"eth0\"]\nsip = [\"udp:203.0.113.10:5060\"]\n" +
		"[[network.media]]\naddress = \"203.0.113.10\"\nports = \"20000-20999\"\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "tandemd")
	if err := os.WriteFile(copied, program, 0o755); err != nil {
		t.Fatal(err)
	}
	start := func(cmd *exec.Cmd) error {
		cmd.Path = copied
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		return ns.Start(cmd)
	}
	p := launchBy(t, start, filepath.Join(dir, "run"), "--config", file)
	p.ends(exit.Privilege)
	for _, want := range []string{"CAP_BPF is missing: ", "CAP_NET_ADMIN is missing: ", "userspace"} {
		if !strings.Contains(p.stderr.String(), want) {
			t.Errorf("no %q in %s", want, p.stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "run")); !os.IsNotExist(err) {
		t.Errorf("the refused start left its runtime directory: %v", err)
	}
}

// connected makes a namespace with an interface eth0 that leads to another one.
func connected(t *testing.T, l *lab.Lab, prefix netip.Prefix) *lab.Namespace {
	t.Helper()
	var both [2]*lab.Namespace
	for i, name := range []string{"tandem", "peer"} {
		ns, err := l.Namespace(name)
		if err != nil {
			t.Fatal(err)
		}
		both[i] = ns
	}
	if err := l.Connect(bare(both[0], prefix.String()), lab.End{Namespace: both[1], Name: "eth0"}); err != nil {
		t.Fatal(err)
	}
	return both[0]
}

// bare is an interface eth0 without an XDP program.
func bare(ns *lab.Namespace, prefixes ...string) lab.End {
	end := lab.End{Namespace: ns, Name: "eth0", Reception: lab.Bare}
	for _, p := range prefixes {
		end.Addrs = append(end.Addrs, netip.MustParsePrefix(p))
	}
	return end
}

func TestCheckNoPins(t *testing.T) {
	root := t.TempDir()
	if err := checkNoPins(root, "edge"); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	if err := os.Mkdir(filepath.Join(root, "edge"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := checkNoPins(root, "edge"); err == nil || !strings.Contains(err.Error(), "tandem cleanup --instance edge") {
		t.Errorf("pins there: %v", err)
	}
	if err := checkNoPins(root, "core"); err != nil {
		t.Errorf("pins of another instance: %v", err)
	}
}
