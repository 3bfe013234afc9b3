package agent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

const patience = 10 * time.Second

// start runs an agent on a loopback port of its own until the end of the test.
func start(t *testing.T, user string, invited func(*Invitation)) (*Agent, netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	a := New(Config{Conn: conn, User: user, Invited: invited, T1: 20 * time.Millisecond})
	done := make(chan error, 1)
	go func() { done <- a.Run() }()
	t.Cleanup(func() {
		conn.Close()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return a, conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// middle forwards datagrams between a caller and a server, without those that drop wants away; n counts all from 0. It stands
// in for a bad network; the endpoints' own addresses in the messages let everything but the first request pass beside it.
func middle(t *testing.T, server netip.AddrPort, drop func(n int, text string) bool) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		var client netip.AddrPort
		buf := make([]byte, 65536)
		for n := 0; ; n++ {
			size, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			to := server
			if from == server {
				to = client
			} else {
				client = from
			}
			if drop(n, string(buf[:size])) {
				continue
			}
			if _, err := conn.WriteToUDPAddrPort(buf[:size], to); err != nil {
				return
			}
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestCall(t *testing.T) {
	tests := []struct {
		name, why string
		drop      func(n int, text string) bool
		hangup    string
		resent    bool
	}{
		{"caller hangs up", "the plain call", nil, "caller", false},
		{"callee hangs up", "BYE the other way", nil, "callee", false},
		{"first INVITE lost", "the INVITE is retransmitted", func(n int, _ string) bool { return n == 0 }, "caller", true},
		{"first 200 lost", "the 200 is repeated until the ACK", lose("SIP/2.0 200", 1), "caller", true},
		{"two 200s lost", "with growing intervals", lose("SIP/2.0 200", 2), "caller", true},
		{"180 lost", "the 200 alone is enough", lose("SIP/2.0 180", 1), "caller", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx := deadline(t)
			answered := make(chan *Call, 1)
			callee, server := start(t, "callee", func(i *Invitation) {
				if user := i.User(); user != "callee" {
					t.Errorf("called user is %q", user)
				}
				if err := i.Ring(); err != nil {
					t.Error(err)
				}
				call, err := i.Answer(ctx, Describe(netip.MustParseAddrPort("192.0.2.2:4002")))
				if err != nil {
					t.Error(err)
				}
				answered <- call
			})
			caller, _ := start(t, "caller", nil)
			to := server
			if test.drop != nil {
				to = middle(t, server, test.drop)
			}
			call, err := caller.Invite(ctx, to, "callee", Describe(netip.MustParseAddrPort("192.0.2.1:4000")), nil)
			if err != nil {
				t.Fatal(err)
			}
			far := <-answered
			for at, c := range map[string]*Call{"192.0.2.2:4002": call, "192.0.2.1:4000": far} {
				if media, err := Media(c.Description); err != nil || media.String() != at {
					t.Errorf("media %v, %v, want %s", media, err, at)
				}
			}
			first, second := call, far
			if test.hangup == "callee" {
				first, second = far, call
			}
			if err := first.Hangup(ctx); err != nil {
				t.Fatal(err)
			}
			select {
			case <-second.Ended():
			case <-ctx.Done():
				t.Error("the other side did not hear of the end")
			}
			if resent := caller.Retransmissions()+callee.Retransmissions() > 0; resent != test.resent && test.resent {
				t.Errorf("retransmissions: %v (%s)", resent, test.why)
			}
		})
	}
}

// lose drops the first messages that begin with the prefix.
func lose(prefix string, count int) func(int, string) bool {
	return func(_ int, text string) bool {
		if strings.HasPrefix(text, prefix) && count > 0 {
			count--
			return true
		}
		return false
	}
}

func TestRejected(t *testing.T) {
	ctx := deadline(t)
	_, server := start(t, "callee", func(i *Invitation) {
		if err := i.Reject(486, "Busy Here"); err != nil {
			t.Error(err)
		}
	})
	_, deaf := start(t, "deaf", nil)
	caller, _ := start(t, "caller", nil)
	for to, want := range map[netip.AddrPort]int{server: 486, deaf: 480} {
		_, err := caller.Invite(ctx, to, "callee", nil, nil)
		var rejected *Rejected
		if !errors.As(err, &rejected) || rejected.Status != want {
			t.Errorf("got %v, want %d", err, want)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	caller, _ := start(t, "caller", nil)
	silent, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_, err = caller.Invite(deadline(t), silent.LocalAddr().(*net.UDPAddr).AddrPort(), "callee", nil, nil)
	if !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v, want a timeout", err)
	}
	if caller.Retransmissions() < 4 {
		t.Errorf("%d retransmissions in 64 T1", caller.Retransmissions())
	}
}

func TestManyCalls(t *testing.T) {
	const calls = 100
	ctx := deadline(t)
	_, server := start(t, "callee", func(i *Invitation) {
		if _, err := i.Answer(ctx, i.Description()); err != nil {
			t.Error(err)
		}
	})
	caller, _ := start(t, "caller", nil)
	var all sync.WaitGroup
	for n := range calls {
		all.Go(func() {
			own := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(4000+2*n))
			call, err := caller.Invite(ctx, server, "callee", Describe(own), nil)
			if err != nil {
				t.Error(err)
				return
			}
			if media, err := Media(call.Description); err != nil || media != own {
				t.Errorf("answer of another call: %v, %v", media, err)
			}
			if err := call.Hangup(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// TestRepeatedAnswer has a callee that never hears the first ACK.
func TestRepeatedAnswer(t *testing.T) {
	ctx := deadline(t)
	callee, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer callee.Close()
	if err := callee.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	server := callee.LocalAddr().(*net.UDPAddr).AddrPort()
	acks := make(chan string, 2)
	go func() {
		defer close(acks)
		var answer []byte
		buf := make([]byte, 65536)
		for len(acks) < 2 {
			n, from, err := callee.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			m, err := parse(append([]byte(nil), buf[:n]...))
			if err != nil {
				t.Error(err)
				return
			}
			if m.method == "INVITE" {
				r := m.response(200, "OK", "far", from)
				r.set("Contact", "<sip:"+server.String()+">")
				answer = r.bytes()
			} else {
				acks <- m.get("To") + m.get("CSeq")
			}
			if _, err := callee.WriteToUDPAddrPort(answer, from); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	caller, _ := start(t, "caller", nil)
	if _, err := caller.Invite(ctx, server, "callee", nil, nil); err != nil {
		t.Fatal(err)
	}
	first, second := <-acks, <-acks
	if first == "" || first != second || !strings.Contains(first, "tag=far1 ACK") {
		t.Errorf("ACKs %q and %q", first, second)
	}
}
