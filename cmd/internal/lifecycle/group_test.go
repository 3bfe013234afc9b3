package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func untilDone(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func TestGroup(t *testing.T) {
	broken := errors.New("broken")
	cases := []struct {
		name string
		run  func(context.Context) error
		want string // empty: only the context ends it
	}{
		{"ends with the context", untilDone, ""},
		{"fails", func(context.Context) error { return broken }, "sip: broken"},
		{"ends by itself", func(context.Context) error { return nil }, "sip: ended by itself"},
		{"panics", func(context.Context) error { panic("no map") }, "sip: panic: no map"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			g := NewGroup(ctx, slog.New(slog.DiscardHandler))
			g.Go(Func("rest", untilDone))
			g.Go(Func("sip", c.run))
			if c.want == "" {
				if !g.Ready() {
					t.Error("not ready")
				}
				cancel()
			}
			err := g.Wait()
			if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// never is a task that does not become ready.
type never struct{}

func (never) Run(ctx context.Context) error { return untilDone(ctx) }
func (never) Ready() <-chan struct{}        { return nil }
func (never) String() string                { return "never" }

func TestGroupEndsBeforeReady(t *testing.T) {
	g := NewGroup(context.Background(), slog.New(slog.DiscardHandler))
	g.Go(never{})
	g.Go(Func("sip", func(context.Context) error { return errors.New("address in use") }))
	if g.Ready() {
		t.Error("ready")
	}
	if err := g.Wait(); err == nil || err.Error() != "sip: address in use" {
		t.Errorf("got %v", err)
	}
}

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify("READY=1"); err != nil {
		t.Errorf("without a service manager: %v", err)
	}
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := Notify("READY=1", "STATUS=2 calls"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1\nSTATUS=2 calls" {
		t.Errorf("got %q %v", buf[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", "relative")
	if err := Notify("READY=1"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a relative socket: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", path+"-none")
	if err := Notify("READY=1"); err == nil {
		t.Error("a socket that is not there accepted")
	}
}

func TestMissing(t *testing.T) {
	bit := func(bits ...int) (set uint64) {
		for _, b := range bits {
			set |= 1 << b
		}
		return set
	}
	cases := []struct {
		name string
		has  uint64
		want []string
	}{
		{"all of them", bit(unix.CAP_BPF, unix.CAP_NET_ADMIN), nil},
		{"CAP_SYS_ADMIN includes CAP_BPF", bit(unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN), nil},
		{"nothing", 0, []string{"CAP_BPF is missing: programs", "CAP_NET_ADMIN is missing: "}},
		{"CAP_SYS_ADMIN does not include CAP_NET_ADMIN", bit(unix.CAP_SYS_ADMIN), []string{"CAP_NET_ADMIN is missing: "}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := missing(NeedsXDP(), c.has)
			var lacking *MissingError
			if len(c.want) == 0 {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			if !errors.As(err, &lacking) || len(lacking.Needs) != len(c.want) {
				t.Fatalf("got %v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("got %q, want %q in it", err, w)
				}
			}
		})
	}
}
