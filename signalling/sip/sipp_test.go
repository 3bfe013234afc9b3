package sip

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab/require"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/tandem-relay/tandem/relay/relaytest"
	"github.com/tandem-relay/tandem/signalling/media"
)

// freePort finds a UDP port of the loopback address that nobody uses.
func freePort(t testing.TB, addr string) int {
	t.Helper()
	c, err := net.ListenPacket("udp", addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// loopback is a server on real sockets.
type loopback struct {
	srv      *Server
	relay    *relay.Relay
	in, out  netip.AddrPort // listeners on the caller's and the callee's side
	caller   netip.AddrPort
	callee   netip.AddrPort
	shutdown func()
}

func startLoopback(t testing.TB) *loopback {
	t.Helper()
	at := func(addr string) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(freePort(t, addr)))
	}
	l := &loopback{in: at("127.0.0.11"), out: at("127.0.0.12"), caller: at("127.0.0.21"), callee: at("127.0.0.22")}
	ranges := []ports.Range{{First: 10000, Last: 59999}}
	var err error
	l.relay, err = relay.New(relay.Config{
		Networks: []relay.Network{
			{Name: "a", Media: []relay.MediaAddress{{Addr: l.in.Addr(), Ranges: ranges}}},
			{Name: "b", Media: []relay.MediaAddress{{Addr: l.out.Addr(), Ranges: ranges}}},
		},
		Log: feed.New(1, 0, discard{}), Plane: noPlane{relaytest.New()}, Quarantine: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	everywhere := func(netip.Addr) bool { return true }
	l.srv, err = New(Config{
		Listeners: []Listener{{Network: "a", Addr: l.in}, {Network: "b", Addr: l.out}},
		Trunks: []Trunk{
			{Name: "callers", Network: "a", Peer: l.caller, Route: "callees"}, {Name: "callees", Network: "b", Peer: l.callee, Route: "callers"},
		},
		Relay: l.relay, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		Media: media.New(media.Config{Networks: []media.Network{{Name: "a", Trust: true, Routable: everywhere}, {Name: "b", Trust: true, Routable: everywhere}}}),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.srv.Run(ctx) }()
	select {
	case <-l.srv.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	l.shutdown = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return l
}

// sippLoad runs calls through the server and returns what sipp said and the processor time of this process.
func sippLoad(t testing.TB, l *loopback, cps, calls int) (out string, cpu time.Duration) {
	t.Helper()
	require.Tool(t, "sipp")
	dir := t.TempDir()
	start := func(args ...string) *exec.Cmd {
		cmd := exec.Command("sipp", append(args, "-nostdin", "-trace_err", "-error_file", dir+"/"+args[1]+".err")...)
		cmd.Dir = dir
		cmd.Env = append(cmd.Environ(), "TERM=dumb")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	uas := start("-sn", "uas", "-i", l.callee.Addr().String(), "-p", strconv.Itoa(int(l.callee.Port())))
	if err := uas.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = uas.Process.Kill()
		_ = uas.Wait()
	}()
	deadline := time.Now().Add(10 * time.Second)
	for {
		c, err := net.ListenPacket("udp", l.callee.String())
		if err != nil {
			break // it has the port
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("sipp does not listen")
		}
		<-time.After(20 * time.Millisecond)
	}
	uac := start("-sn", "uac", l.in.String(), "-i", l.caller.Addr().String(), "-p", strconv.Itoa(int(l.caller.Port())),
		"-r", strconv.Itoa(cps), "-m", strconv.Itoa(calls), "-d", "100", "-timeout", "120s")
	before := processorTime()
	text, err := uac.CombinedOutput()
	cpu = processorTime() - before
	if err != nil {
		t.Errorf("sipp: %v", err)
	}
	return string(text), cpu
}

func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestSipp: a peer that nobody here wrote places calls through the server.
func TestSipp(t *testing.T) {
	l := startLoopback(t)
	defer l.shutdown()
	const calls = 600
	out, cpu := sippLoad(t, l, 200, calls)
	deadline := time.Now().Add(10 * time.Second)
	for l.srv.Len() > 0 && time.Now().Before(deadline) {
		<-time.After(20 * time.Millisecond)
	}
	c := l.srv.Counters()
	if c["calls_answered"] != calls || c["panics"] != 0 || l.srv.Len() != 0 || l.relay.Len() != 0 {
		t.Errorf("%d calls and %d sessions left, counters %v\n%s", l.srv.Len(), l.relay.Len(), c, tail(out))
	}
	for _, p := range l.relay.Ports() {
		if p.Used != 0 {
			t.Errorf("%d port pairs of %s are in use", p.Used, p.Network)
		}
	}
	t.Logf("%d us of CPU per call, %d retransmissions", cpu.Microseconds()/calls, c["retransmissions_sent"]+c["retransmissions_received"])
}

func tail(s string) string { return s[max(0, len(s)-2500):] }

// BenchmarkSipp measures processor time per call on loopback sockets, without journal and data plane.
func BenchmarkSipp(b *testing.B) {
	for _, cps := range []int{200, 1000, 2000} {
		b.Run(fmt.Sprint(cps), func(b *testing.B) {
			l := startLoopback(b)
			defer l.shutdown()
			calls := 5 * cps
			b.ResetTimer()
			out, cpu := sippLoad(b, l, cps, calls)
			c := l.srv.Counters()
			if c["calls_answered"] != uint64(calls) {
				b.Errorf("%v\n%s", c, tail(out))
			}
			b.ReportMetric(float64(cpu.Microseconds())/float64(calls), "us-cpu/call")
			b.ReportMetric(float64(c["retransmissions_sent"]+c["retransmissions_received"]), "retransmissions")
			b.ReportMetric(0, "ns/op")
		})
	}
}
