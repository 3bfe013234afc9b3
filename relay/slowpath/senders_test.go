package slowpath

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func loopback(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

func newPath(t *testing.T, cfg Config) *Path {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// sink is a socket that takes what a test sends.
func sink(t *testing.T) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback(0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func addr(conn *net.UDPConn) netip.AddrPort { return conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// freePorts returns loopback endpoints that were free a moment ago.
func freePorts(t *testing.T, n int) []netip.AddrPort {
	t.Helper()
	ports := make([]netip.AddrPort, n)
	for i := range ports {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback(0)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		ports[i] = addr(conn)
	}
	return ports
}

// sockets counts the open sockets of this process.
func sockets(t *testing.T) int {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

func TestCacheBound(t *testing.T) {
	const limit = 4
	p := newPath(t, Config{Senders: limit})
	to := addr(sink(t))
	from := freePorts(t, 3*limit)
	before := sockets(t)
	for range 3 {
		for _, f := range from {
			if err := p.Send(f, to, 0, []byte("x")); err != nil {
				t.Fatal(err)
			}
			if n := sockets(t) - before; n > limit {
				t.Fatalf("%d sockets are open, the limit is %d", n, limit)
			}
		}
	}
	// The last used ones are still there: sending from them opens nothing.
	opened := p.Counters().Opened
	for _, f := range from[2*limit:] {
		if err := p.Send(f, to, 0, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	c := p.Counters()
	if c.Opened != opened {
		t.Errorf("%d of the last used senders were opened again", c.Opened-opened)
	}
	if want := uint64(9*limit - limit); c.Evicted != want {
		t.Errorf("%d evicted, want %d", c.Evicted, want)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if n := sockets(t) - before; n != -2 { // the two receiving ones are gone too
		t.Errorf("%d sockets left after Close", n+2)
	}
}

func TestSweep(t *testing.T) {
	p := newPath(t, Config{})
	to := addr(sink(t))
	from := freePorts(t, 3)
	before := sockets(t)
	for _, f := range from {
		if err := p.Send(f, to, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	// The first one stays in use: it was used last.
	p.senders.mu.Lock()
	now := time.Now()
	for _, e := range p.senders.byFrom {
		e.Value.(*sender).used = now.Add(-senderIdle)
	}
	p.senders.mu.Unlock()
	if err := p.Send(from[0], to, 0, nil); err != nil {
		t.Fatal(err)
	}
	p.senders.sweep(time.Now())
	if n := sockets(t) - before; n != 1 {
		t.Errorf("%d sockets are open after the idle ones were swept, want 1", n)
	}
	p.senders.sweep(now.Add(2 * senderIdle))
	if n := sockets(t) - before; n != 0 {
		t.Errorf("%d sockets are open after all were swept", n)
	}
}

// TestSenderDeaf: what is sent to a sender's port never waits in its socket, steered or not.
func TestSenderDeaf(t *testing.T) {
	p := newPath(t, Config{})
	far := sink(t)
	from := freePorts(t, 1)[0]
	if err := p.Send(from, addr(far), 0, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := far.WriteToUDPAddrPort([]byte("y"), from); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
	p.senders.mu.Lock()
	fd := p.senders.byFrom[from].Value.(*sender).fd
	p.senders.mu.Unlock()
	if n, _, err := unix.Recvfrom(fd, make([]byte, 10), unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("the sender holds a packet: %d octets, %v", n, err)
	}
}

func TestSendErrors(t *testing.T) {
	p := newPath(t, Config{})
	good, to := freePorts(t, 1)[0], addr(sink(t))
	taken := sink(t) // without SO_REUSEADDR
	tests := []struct {
		name, reason string
		from, to     netip.AddrPort
		payload      int
		want         error
	}{
		{"no source", "there is nothing to bind to", netip.AddrPort{}, to, 1, unix.EINVAL},
		{"source port 0", "the kernel would choose a port of its own", loopback(0), to, 1, unix.EINVAL},
		{"any source", "the kernel would choose an address of its own", netip.MustParseAddrPort("0.0.0.0:20000"), to, 1, unix.EINVAL},
		{"no destination", "nothing was learnt or signalled", good, netip.AddrPort{}, 1, unix.EINVAL},
		{"destination port 0", "likewise", good, loopback(0), 1, unix.EINVAL},
		{"families", "bridging is not a matter of sending", good, netip.MustParseAddrPort("[::1]:9"), 1, ErrFamily},
		{"foreign source", "the address is not this host's", netip.MustParseAddrPort("192.0.2.1:20000"), to, 1, unix.EADDRNOTAVAIL},
		{"taken", "somebody has the port for himself", addr(taken), to, 1, unix.EADDRINUSE},
		{"too long", "no datagram is that long", good, to, 65508, unix.EMSGSIZE},
		{"broadcast", "a socket must ask for the right to broadcast", good, netip.MustParseAddrPort("255.255.255.255:9"), 1, nil},
	}
	failed := uint64(0)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := p.Send(tt.from, tt.to, 0, make([]byte, tt.payload))
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%s: got %v, want %v", tt.reason, err, tt.want)
			}
			failed++
			if c := p.Counters(); c.Errors != failed {
				t.Errorf("%d errors counted, want %d", c.Errors, failed)
			}
			if err := p.Send(good, to, 0, []byte("x")); err != nil {
				t.Errorf("a good packet afterwards: %v", err)
			}
		})
	}
}

// TestRefused: a peer whose port is closed answers with ICMP; later packets leave all the same.
func TestRefused(t *testing.T) {
	p := newPath(t, Config{})
	ports := freePorts(t, 2)
	for i := range 10 {
		if err := p.Send(ports[0], ports[1], 0, []byte("x")); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
	}
}

// TestConcurrent: senders are evicted while others use them; no packet leaves from a wrong port.
func TestConcurrent(t *testing.T) {
	p := newPath(t, Config{Senders: 2})
	far := sink(t)
	_ = far.SetReadBuffer(4 << 20)
	from := freePorts(t, 8)
	const each = 200
	var wg sync.WaitGroup
	for _, f := range from {
		wg.Go(func() {
			for range each {
				if err := p.Send(f, addr(far), 0, []byte(f.String())); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	seen := make(chan error)
	go func() {
		buf := make([]byte, 100)
		for range each * len(from) {
			_ = far.SetReadDeadline(time.Now().Add(5 * time.Second))
			n, src, err := far.ReadFromUDPAddrPort(buf)
			if err == nil && string(buf[:n]) != src.String() {
				err = fmt.Errorf("packet meant to leave from %s left from %s", buf[:n], src)
			}
			if err != nil {
				seen <- err
				return
			}
		}
		seen <- nil
	}()
	wg.Wait()
	if err := <-seen; err != nil {
		t.Fatal(err)
	}
}

func TestRunEnds(t *testing.T) {
	for _, how := range []string{"context", "close"} {
		t.Run(how, func(t *testing.T) {
			before := runtime.NumGoroutine()
			p := newPath(t, Config{Sockets: 4})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := make(chan error)
			go func() { done <- p.Run(ctx, func(Packet) {}) }()
			if how == "context" {
				cancel()
			} else if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("Run goes on")
			}
			deadline := time.Now().Add(5 * time.Second)
			for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
				runtime.Gosched()
			}
			if n := runtime.NumGoroutine(); n > before {
				t.Errorf("%d goroutines before, %d after", before, n)
			}
		})
	}
}

func TestSendAfterClose(t *testing.T) {
	p := newPath(t, Config{})
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Send(freePorts(t, 1)[0], loopback(9), 0, nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v, want %v", err, os.ErrClosed)
	}
	if err := p.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func BenchmarkSend(b *testing.B) {
	p, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	from := loopback(39998)
	payload := make([]byte, 172)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Send(from, loopback(39999), 184, payload); err != nil {
			b.Fatal(err)
		}
	}
}
