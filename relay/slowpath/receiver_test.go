package slowpath

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/relay/internal/datagram"
)

// serve runs a path on which packets to its own socket count as steered, and returns how to send one.
func serve(t *testing.T, p *Path, handle func(Packet)) (send func(payload string)) {
	t.Helper()
	at := p.receivers[0].local
	p.receivers[0].local = loopback(0)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, handle) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	conn := sink(t)
	return func(payload string) {
		t.Helper()
		if _, err := conn.WriteToUDPAddrPort([]byte(payload), at); err != nil {
			t.Fatal(err)
		}
	}
}

func await(t *testing.T, got <-chan string, want string) {
	t.Helper()
	select {
	case payload := <-got:
		if payload != want {
			t.Errorf("got %q, want %q", payload, want)
		}
	case <-time.After(5 * time.Second):
		t.Fatalf("%q does not arrive", want)
	}
}

// TestHandlePanics: a packet at which the handler panics is counted, and the next one is handled.
func TestHandlePanics(t *testing.T) {
	p := newPath(t, Config{Sockets: 1})
	got := make(chan string, 10)
	send := serve(t, p, func(d Packet) {
		if string(d.Payload) == "bad" {
			panic("boom")
		}
		got <- string(d.Payload)
	})
	send("bad")
	send("bad")
	send("good")
	await(t, got, "good")
	if p.Panics() != 2 {
		t.Errorf("%d panics, want 2", p.Panics())
	}
}

// TestUnread: a socket that the kernel cannot read for a while is read again.
func TestUnread(t *testing.T) {
	p := newPath(t, Config{Sockets: 1})
	failures := 3
	p.read = func(b *datagram.Batch, fd int) (int, error) {
		if failures > 0 {
			failures--
			return 0, unix.ENOMEM
		}
		return b.Read(fd)
	}
	got := make(chan string, 10)
	send := serve(t, p, func(d Packet) { got <- string(d.Payload) })
	send("late")
	await(t, got, "late")
	if n := p.Counters().Unread; n != 3 {
		t.Errorf("%d failures counted, want 3", n)
	}
}
