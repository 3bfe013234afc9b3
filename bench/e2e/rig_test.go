package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
	"github.com/tandem-relay/tandem/signalling/rest"
)

// The addresses of the house: phones and strangers outside, a PBX or carrier inside.
const (
	outsideIP = "198.51.100.1"
	natIP     = "198.51.100.20"
	insideIP  = "10.9.0.1"
	pbxIP     = "10.9.0.2"
	phoneIP   = "192.168.7.2"
)

// house is the usual topology: phone - nat - tandem - pbx, and a stranger beside the nat box on a cable of its own.
type house struct {
	lab                               *lab.Lab
	phone, nat, tandem, pbx, stranger *lab.Namespace
}

func prefix(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// build makes the house. The nat box masquerades with random ports, so neither the address nor the port that the
// phone believes to have is the one that is seen outside.
func build(t *testing.T) *house {
	t.Helper()
	require.Tool(t, "nft")
	l := require.Lab(t)
	h := &house{lab: l}
	for name, ns := range map[string]**lab.Namespace{
		"phone": &h.phone, "nat": &h.nat, "tandem": &h.tandem, "pbx": &h.pbx, "stranger": &h.stranger,
	} {
		made, err := l.Namespace(name)
		must(t, err)
		*ns = made
	}
	must(t, l.Connect(
		lab.End{Namespace: h.phone, Name: "eth0", Addrs: prefix(phoneIP + "/24")},
		lab.End{Namespace: h.nat, Name: "lan", Addrs: prefix("192.168.7.1/24")}))
	must(t, l.Connect(
		lab.End{Namespace: h.nat, Name: "wan", Addrs: prefix(natIP + "/24")},
		lab.End{Namespace: h.tandem, Name: "out0", Addrs: prefix(outsideIP + "/24"), Reception: lab.Bare}))
	must(t, l.Connect(
		lab.End{Namespace: h.stranger, Name: "eth0", Addrs: prefix("203.0.113.66/24")},
		lab.End{Namespace: h.tandem, Name: "out1", Addrs: prefix("203.0.113.1/24"), Reception: lab.Bare}))
	must(t, l.Connect(
		lab.End{Namespace: h.pbx, Name: "eth0", Addrs: prefix(pbxIP + "/24")},
		lab.End{Namespace: h.tandem, Name: "in0", Addrs: prefix(insideIP + "/24"), Reception: lab.Bare}))
	must(t, h.phone.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.168.7.1"), 0))
	must(t, h.stranger.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("203.0.113.1"), 0))
	must(t, h.nat.Forward())
	must(t, h.nat.NFT(`
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname "wan" masquerade random
	}
}`))
	return h
}

// configuration of the house; trunks are appended by the test.
func (h *house) configuration(instance string, trunks string) string {
	return fmt.Sprintf(`instance = %q
dataplane = "xdp"

[[network]]
name = "outside"
interfaces = ["out0", "out1"]
sip = ["udp:%s:5060"]
nat = "auto"
  [[network.media]]
  address = %q
  ports = "20000-31999"

[[network]]
name = "inside"
interfaces = ["in0"]
sip = ["udp:%s:5060"]
trust = true
  [[network.media]]
  address = %q
  ports = "20000-31999"
%s`, instance, outsideIP, outsideIP, insideIP, insideIP, trunks)
}

// phonesAndPBX are the trunks of most tests: whoever sits behind the nat box calls the pbx, and the other way round.
const phonesAndPBX = `
[[trunk]]
name = "phones"
network = "outside"
peer = "198.51.100.20:5060"
sources = ["198.51.100.0/24"]
route = "pbx"

[[trunk]]
name = "pbx"
network = "inside"
peer = "10.9.0.2:5060"
route = "phones"
`

// daemon is a running tandemd.
type daemon struct {
	t        *testing.T
	ns       *lab.Namespace
	instance string
	runtime  string // TANDEM_RUNTIME_DIR
	config   string
	cmd      *exec.Cmd
	exited   chan struct{}
	log      *buffer
	client   *http.Client
}

// buffer is a log that may be read while it is written.
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

var instances struct {
	sync.Mutex
	n int
}

// newInstance is a name that no other test uses.
func newInstance() string {
	instances.Lock()
	defer instances.Unlock()
	instances.n++
	return fmt.Sprintf("e2e-%d-%d", os.Getpid(), instances.n)
}

// program is the path of one of our commands: from TANDEM_BIN, or built now.
func program(t testing.TB, name string) string {
	t.Helper()
	if dir := os.Getenv("TANDEM_BIN"); dir != "" {
		return filepath.Join(dir, name)
	}
	dir := filepath.Join(os.TempDir(), "tandem-e2e-bin")
	must(t, os.MkdirAll(dir, 0o755))
	build := exec.Command("go", "build", "-o", dir, "../../cmd/"+name)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return filepath.Join(dir, name)
}

// start starts tandemd in ns and waits until it answers. What it leaves in the kernel is removed at the end of the test.
func start(t *testing.T, ns *lab.Namespace, instance, config string) *daemon {
	t.Helper()
	runtime, err := os.MkdirTemp("/run", "tandem-e2e-")
	must(t, err)
	d := &daemon{t: t, ns: ns, instance: instance, runtime: runtime, config: filepath.Join(runtime, "tandem.toml")}
	must(t, os.WriteFile(d.config, []byte(config), 0o600))
	d.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(runtime, instance, "api.sock"))
		},
		DisableKeepAlives: true,
	}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("tandemd %s said:\n%s", instance, tail(d.log.String(), 6000))
		}
		d.signal(syscall.SIGKILL)
		if out, err := d.tandem("cleanup"); err != nil {
			t.Errorf("cleanup: %v\n%s", err, out)
		}
		must(t, os.RemoveAll(runtime))
	})
	d.log = &buffer{}
	d.launch()
	return d
}

// start starts tandemd in the house with these trunks.
func (h *house) start(t *testing.T, trunks string) *daemon {
	t.Helper()
	instance := newInstance()
	return start(t, h.tandem, instance, h.configuration(instance, trunks))
}

// launch starts the process and waits until it answers.
func (d *daemon) launch() {
	d.t.Helper()
	d.cmd = exec.Command(program(d.t, "tandemd"), "--config", d.config)
	d.cmd.Env = append(os.Environ(), "TANDEM_RUNTIME_DIR="+d.runtime)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	must(d.t, d.ns.Start(d.cmd))
	d.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) { _ = cmd.Wait(); close(exited) }(d.cmd, d.exited)
	eventually(d.t, 20*time.Second, "tandemd answers", func() error {
		select {
		case <-d.exited:
			d.t.Fatalf("tandemd ended at start:\n%s", d.log)
		default:
		}
		_, err := d.status()
		return err
	})
}

// signal sends a signal and, unless it is one that the process survives, waits for its end.
func (d *daemon) signal(sig syscall.Signal) {
	_ = d.cmd.Process.Signal(sig)
	if sig == syscall.SIGSTOP || sig == syscall.SIGCONT || sig == syscall.SIGHUP {
		return
	}
	<-d.exited
}

// tandem runs the command line against this instance.
func (d *daemon) tandem(args ...string) (string, error) {
	cmd := exec.Command(program(d.t, "tandem"), append(args, "--instance", d.instance)...)
	cmd.Env = append(os.Environ(), "TANDEM_RUNTIME_DIR="+d.runtime)
	return d.ns.Run(cmd)
}

func (d *daemon) get(path string, into any) error {
	resp, err := d.client.Get("http://tandem" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, resp.Status, body)
	}
	return json.Unmarshal(body, into)
}

func (d *daemon) status() (s rest.Status, err error) {
	err = d.get(rest.PathStatus, &s)
	return s, err
}

func (d *daemon) sessions() (s rest.Sessions, err error) {
	err = d.get(rest.PathSessions, &s)
	return s, err
}

// empty waits until no call and no session is left, and every port is back.
func (d *daemon) empty() {
	d.t.Helper()
	eventually(d.t, 10*time.Second, "no call, session or port is left", func() error {
		s, err := d.status()
		if err != nil {
			return err
		}
		if s.Calls != 0 || s.Sessions != 0 {
			return fmt.Errorf("%d calls, %d sessions", s.Calls, s.Sessions)
		}
		for _, p := range s.Ports {
			if p.Used != 0 {
				return fmt.Errorf("%d port pairs of %s in use", p.Used, p.Address)
			}
		}
		if n := s.Panics["sip"]; n != 0 {
			return fmt.Errorf("%d panics", n)
		}
		return nil
	})
}

// eventually waits until check has no complaint, or fails with its last one.
func eventually(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s until %s: %v", limit, what, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "..." + s[len(s)-n:]
	}
	return s
}

// listening waits until something in ns has the UDP port open.
func listening(t testing.TB, ns *lab.Namespace, port int) {
	t.Helper()
	want := fmt.Sprintf(":%04X ", port)
	eventually(t, 10*time.Second, fmt.Sprintf("port %d is open in %s", port, ns), func() error {
		var table []byte
		if err := ns.Do(func() (err error) { table, err = os.ReadFile("/proc/thread-self/net/udp"); return err }); err != nil {
			return err
		}
		if !strings.Contains(string(table), want) {
			return errors.New("not yet")
		}
		return nil
	})
}

// counting installs a counter of UDP packets that match the nftables expression as they enter ns.
func counting(t testing.TB, ns *lab.Namespace, match string) (read func() int) {
	t.Helper()
	must(t, ns.NFT(fmt.Sprintf(`
table ip e2e {
	counter seen {}
	chain pre {
		type filter hook prerouting priority -400;
		%s counter name seen
	}
}`, match)))
	return func() int {
		t.Helper()
		out, err := ns.Run(exec.Command("nft", "-j", "list", "counter", "ip", "e2e", "seen"))
		must(t, err)
		_, after, found := strings.Cut(out, `"packets": `)
		if !found {
			t.Fatalf("nft printed no counter: %s", out)
		}
		number, _, _ := strings.Cut(after, ",")
		n, err := strconv.Atoi(strings.TrimSpace(number))
		must(t, err)
		return n
	}
}

// sipp is a running sipp.
type sipp struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	out    *buffer
	exited chan error
	dir    string
}

// startSipp starts sipp in ns with its files in a directory of its own.
func startSipp(t *testing.T, ns *lab.Namespace, name string, args ...string) *sipp {
	t.Helper()
	require.Tool(t, "sipp")
	s := &sipp{t: t, name: name, out: &buffer{}, exited: make(chan error, 1), dir: t.TempDir()}
	s.cmd = exec.Command("sipp", append(args, "-nostdin", "-trace_err", "-error_file", filepath.Join(s.dir, "errors.log"),
		"-trace_msg", "-message_file", filepath.Join(s.dir, "messages.log"))...)
	s.cmd.Dir = s.dir
	s.cmd.Env = append(os.Environ(), "TERM=dumb")
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	must(t, ns.Start(s.cmd))
	go func() { s.exited <- s.cmd.Wait() }()
	return s
}

// done waits until sipp ends by itself, and fails the test if it was not content.
func (s *sipp) done(limit time.Duration) {
	s.t.Helper()
	select {
	case err := <-s.exited:
		s.exited <- err
		if err != nil {
			s.t.Fatalf("sipp %s: %v\n%s\n%s\n%s", s.name, err, tail(s.out.String(), 2500), s.file("errors.log"), tail(s.messages(), 6000))
		}
	case <-time.After(limit):
		_ = s.cmd.Process.Kill()
		s.t.Fatalf("sipp %s did not end within %s\n%s\n%s", s.name, limit, tail(s.out.String(), 2500), tail(s.messages(), 6000))
	}
}

func (s *sipp) file(name string) string {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		return ""
	}
	return string(b)
}

// messages is everything sipp sent and received.
func (s *sipp) messages() string { return s.file("messages.log") }

// scenario is the path of one of the project's sipp scenarios.
func scenario(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../scripts/sipp", name))
	must(t, err)
	return path
}
