package userspace

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/internal/datagram"
	"github.com/tandem-relay/tandem/relay/relaytest"
)

const patience = 5 * time.Second

// media is the plane's address in these tests, party the address of everybody else.
var (
	media = netip.MustParseAddr("127.22.1.1")
	party = netip.MustParseAddr("127.22.1.2")
)

func at(port uint16) netip.AddrPort { return netip.AddrPortFrom(media, port) }

func newPlane(t testing.TB) *Plane {
	t.Helper()
	p := New(Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// socket opens a socket of a party.
func socket(t testing.TB) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(party, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetReadBuffer(1 << 20)
	return conn, conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// oneWay forwards what anybody sends to local, out of from, to to.
func oneWay(local, from, to netip.AddrPort) relay.Record {
	return relay.Record{
		Local: local, Network: "lo", Action: relay.Forward, Accept: relay.AcceptSet{Any: true},
		Outputs: []relay.Output{{From: from, To: to, Network: "lo"}},
	}
}

func apply(t testing.TB, p *Plane, id relay.SessionID, generation uint32, records ...relay.Record) {
	t.Helper()
	if err := p.Apply(t.Context(), id, generation, records); err != nil {
		t.Fatal(err)
	}
}

// pass sends a packet and requires that it arrives.
func pass(t testing.TB, from *net.UDPConn, via netip.AddrPort, to *net.UDPConn) {
	t.Helper()
	payload := []byte(fmt.Sprintf("%s at %d", via, time.Now().UnixNano()))
	if _, err := from.WriteToUDPAddrPort(payload, via); err != nil {
		t.Fatal(err)
	}
	_ = to.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1500)
	n, err := to.Read(buf)
	if err != nil {
		t.Fatalf("through %s: %v", via, err)
	}
	if string(buf[:n]) != string(payload) {
		t.Fatalf("through %s: got %q, want %q", via, buf[:n], payload)
	}
}

func count(t testing.TB, p *Plane, name string) uint64 {
	t.Helper()
	totals, err := p.Totals()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range totals.Reasons {
		if r.Name == name {
			return r.Packets
		}
	}
	t.Fatalf("no reason %q", name)
	return 0
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("in %s not: %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// sockets counts the open sockets of this process.
func sockets(t testing.TB) (n int) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

func TestApplyRefuses(t *testing.T) {
	good := func() relay.Record { return oneWay(at(20000), at(20002), netip.AddrPortFrom(party, 9)) }
	with := func(change func(*relay.Record)) []relay.Record {
		r := good()
		change(&r)
		return []relay.Record{r}
	}
	taken, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at(20006)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	tests := []struct {
		name, reason string
		records      []relay.Record
		want         string
	}{
		{"no local", "a record has a key", with(func(r *relay.Record) { r.Local = netip.AddrPort{} }), "not valid"},
		{"local port 0", "the kernel would choose one", with(func(r *relay.Record) { r.Local = at(0) }), "not valid"},
		{"any local", "a socket on all addresses takes what is not ours",
			with(func(r *relay.Record) { r.Local = netip.MustParseAddrPort("0.0.0.0:20000") }), "not valid"},
		{"twice", "two records cannot share a socket", []relay.Record{good(), good()}, "stands in two records"},
		{"no action", "the zero action is none", with(func(r *relay.Record) { r.Action = 0 }), "unknown action"},
		{"later action", "an action of a newer version", with(func(r *relay.Record) { r.Action = relay.Punt + 1 }), "unknown action"},
		{"no source", "an output leaves from somewhere", with(func(r *relay.Record) { r.Outputs[0].From = netip.AddrPort{} }), "output from"},
		{"families", "a socket has one family",
			with(func(r *relay.Record) { r.Outputs[0].To = netip.MustParseAddrPort("[2001:db8::1]:9") }), "families"},
		{"foreign address", "the address is not this host's",
			with(func(r *relay.Record) { r.Local = netip.MustParseAddrPort("192.0.2.1:20000") }), "open local endpoint"},
		{"taken port", "another program has it", with(func(r *relay.Record) { r.Local = at(20006) }), "address already in use"},
		{"taken port of an output", "another program has it",
			with(func(r *relay.Record) { r.Outputs[0].From = at(20006) }), "address already in use"},
		{"another session's", "an endpoint has one record",
			[]relay.Record{good(), oneWay(at(20008), at(20002), netip.AddrPort{})}, "belongs to session other"},
	}
	p := newPlane(t)
	to, toAddr := socket(t)
	from, _ := socket(t)
	apply(t, p, "other", 1, oneWay(at(20008), at(20008), netip.AddrPort{}))
	apply(t, p, "call", 1, oneWay(at(20010), at(20012), toAddr))
	pass(t, from, at(20010), to)
	before := sockets(t)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := p.Apply(t.Context(), "call", uint32(i)+2, tt.records)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want an error with %q", tt.reason, err, tt.want)
			}
			pass(t, from, at(20010), to) // as before
			if n := sockets(t); n != before {
				t.Errorf("%d sockets before, %d after", before, n)
			}
			if flows := p.Flows("call"); len(flows) != 1 || flows[0].Local != at(20010) {
				t.Errorf("flows %+v", flows)
			}
		})
	}
	// A refused generation was not taken.
	apply(t, p, "call", 2, oneWay(at(20010), at(20012), toAddr))
}

// TestRemoval: sessions that end take their sockets and goroutines along.
func TestRemoval(t *testing.T) {
	goroutines, before := runtime.NumGoroutine(), sockets(t)
	p := newPlane(t)
	const sessions = 50
	for round := range 3 {
		for i := range uint16(sessions) {
			local := 20000 + 4*i
			apply(t, p, relay.SessionID(fmt.Sprint(i)), 1,
				oneWay(at(local), at(local+2), netip.AddrPort{}), oneWay(at(local+2), at(local), netip.AddrPort{}))
		}
		if n := sockets(t) - before; n != 2*sessions {
			t.Fatalf("round %d: %d sockets for %d sessions", round, n, sessions)
		}
		for i := range sessions {
			apply(t, p, relay.SessionID(fmt.Sprint(i)), 2)
		}
		if n := sockets(t) - before; n != 0 {
			t.Fatalf("round %d: %d sockets left", round, n)
		}
	}
	eventually(t, "all goroutines ended", func() bool { return runtime.NumGoroutine() <= goroutines })
	if p.directory.size() != 0 || len(p.sessions) != 0 {
		t.Errorf("%d endpoints, %d sessions left", p.directory.size(), len(p.sessions))
	}
}

func TestClose(t *testing.T) {
	goroutines, before := runtime.NumGoroutine(), sockets(t)
	p := newPlane(t)
	apply(t, p, "call", 1, oneWay(at(20000), at(20002), netip.AddrPort{}))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if n := sockets(t) - before; n != 0 {
		t.Errorf("%d sockets left", n)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines before, %d after", goroutines, n)
	}
	if err := p.Apply(t.Context(), "call", 2, []relay.Record{oneWay(at(20000), at(20002), netip.AddrPort{})}); err == nil {
		t.Error("a closed plane takes records")
	}
}

// TestShared: an endpoint from which another session sends lives as long as either needs it.
func TestShared(t *testing.T) {
	p := newPlane(t)
	from, _ := socket(t)
	to, toAddr := socket(t)
	apply(t, p, "owner", 1, oneWay(at(20000), at(20004), toAddr))
	pass(t, from, at(20000), to) // now from is learnt at 20000
	apply(t, p, "guest", 1, oneWay(at(20002), at(20000), toAddr))
	pass(t, to, at(20002), from)
	apply(t, p, "owner", 2)
	pass(t, to, at(20002), to) // nothing is learnt any more at 20000: the signalled endpoint counts
	if _, err := from.WriteToUDPAddrPort([]byte("x"), at(20000)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no_session counted", func() bool { return count(t, p, "no_session") == 1 })
	apply(t, p, "guest", 2)
	if p.directory.size() != 0 {
		t.Errorf("%d endpoints left", p.directory.size())
	}
}

// TestNoLongerAccepted: in an unchanged window, what was learnt from an address that is no longer accepted does not
// count either.
func TestNoLongerAccepted(t *testing.T) {
	p := newPlane(t)
	from, _ := socket(t)
	to, toAddr := socket(t)
	r := oneWay(at(20000), at(20002), toAddr)
	apply(t, p, "call", 1, r)
	pass(t, from, at(20000), to)
	r.Accept = relaytest.From(netip.MustParseAddr("127.22.1.3"))
	apply(t, p, "call", 2, r)
	if learnt := p.Flows("call")[0].Learnt; learnt.IsValid() {
		t.Errorf("%s is still learnt", learnt)
	}
}

func TestAdopt(t *testing.T) {
	p := newPlane(t)
	from, _ := socket(t)
	to, toAddr := socket(t)
	apply(t, p, "gone", 3, oneWay(at(20100), at(20102), toAddr))
	taken, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at(20006)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	got, err := p.Adopt(t.Context(), []relay.Compiled{
		{ID: "a", Generation: 7, Records: []relay.Record{oneWay(at(20000), at(20002), toAddr), oneWay(at(20002), at(20000), toAddr)}},
		{ID: "impossible", Generation: 1, Records: []relay.Record{oneWay(at(20006), at(20002), toAddr)}},
		{ID: "b", Generation: 9, Records: []relay.Record{oneWay(at(20004), at(20002), toAddr)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := (relay.Adoption{Written: 3, Removed: 1, Refused: []relay.SessionID{"impossible"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	pass(t, from, at(20000), to)
	pass(t, from, at(20004), to)
	if p.Flows("impossible") != nil {
		t.Error("something is left of the session that was refused")
	}
	if p.Flows("gone") != nil {
		t.Error("a session that the journal does not know is left")
	}
	if err := p.Apply(t.Context(), "a", 6, nil); !errors.Is(err, relay.ErrStale) {
		t.Errorf("generation 6 after 7: %v", err)
	}
}

// TestAdoptGivesUp: what is not a session's fault does not end all of them.
func TestAdoptGivesUp(t *testing.T) {
	_, toAddr := socket(t)
	sessions := []relay.Compiled{{ID: "a", Generation: 1, Records: []relay.Record{oneWay(at(20000), at(20002), toAddr)}}}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := newPlane(t).Adopt(canceled, sessions); !errors.Is(err, context.Canceled) || got.Refused != nil {
		t.Errorf("canceled: %+v, %v", got, err)
	}
	closed := newPlane(t)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := closed.Adopt(t.Context(), sessions); !errors.Is(err, os.ErrClosed) || got.Refused != nil {
		t.Errorf("closed: %+v, %v", got, err)
	}
}

// TestFullError: too many sockets are told as a relay that is full.
func TestFullError(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{unix.EMFILE, true}, {unix.ENFILE, true}, {unix.ENOBUFS, true}, {unix.ENOMEM, true},
		{unix.EADDRINUSE, false}, {unix.EADDRNOTAVAIL, false}, {context.Canceled, false},
	} {
		err := fullError(&net.OpError{Op: "listen", Err: os.NewSyscallError("socket", tt.err)})
		if errors.Is(err, relay.ErrFull) != tt.want {
			t.Errorf("%v becomes %v", tt.err, err)
		}
	}
}

// TestPanic: a packet whose handling panics is counted, and the next one passes.
func TestPanic(t *testing.T) {
	p := newPlane(t)
	from, _ := socket(t)
	to, toAddr := socket(t)
	apply(t, p, "call", 1, oneWay(at(20000), at(20002), toAddr))
	e := p.directory.find(at(20000))
	good := e.rule.Load()
	bad := *good
	bad.outputs = []output{{to: toAddr}} // no endpoint to send from
	e.rule.Store(&bad)
	for range 3 {
		if _, err := from.WriteToUDPAddrPort([]byte("x"), at(20000)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "3 panics", func() bool { return p.Panics() == 3 })
	e.rule.Store(good)
	pass(t, from, at(20000), to)
}

// TestSendFailed: what the kernel refuses is counted, and hurts nothing else.
func TestSendFailed(t *testing.T) {
	p := newPlane(t)
	from, _ := socket(t)
	to, toAddr := socket(t)
	gone, goneAddr := socket(t)
	_ = gone.Close()
	outside := netip.MustParseAddrPort("192.0.2.1:9") // a loopback source is not sent there
	broken := oneWay(at(20000), at(20002), outside)
	apply(t, p, "broken", 1, broken)
	if _, err := from.WriteToUDPAddrPort([]byte("x"), at(20000)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "send_failed counted", func() bool { return count(t, p, "send_failed") == 1 })
	if n := count(t, p, "forwarded_socket"); n != 0 {
		t.Errorf("%d packets counted as forwarded", n)
	}
	// One output that fails does not keep the other from its packet; ICMP from a closed port neither.
	broken.Outputs = append(broken.Outputs, relay.Output{From: at(20004), To: goneAddr}, relay.Output{From: at(20004), To: toAddr})
	apply(t, p, "broken", 2, broken)
	for range 5 {
		pass(t, from, at(20000), to)
	}
	if n := count(t, p, "send_failed"); n != 1 {
		t.Errorf("%d packets counted as not sent", n)
	}
	eventually(t, "5 packets counted", func() bool { return p.Flows("broken")[0].Packets[relay.PathUserspace] == 5 })
}

// TestEventsBounded: events that nobody takes are counted and hold nothing up.
func TestEventsBounded(t *testing.T) {
	p := newPlane(t)
	from, _ := socket(t)
	to, toAddr := socket(t)
	r := oneWay(at(20000), at(20002), toAddr)
	const extra = 5
	for i := range uint32(eventBuffer + extra) {
		r.Window = uint16(i)
		apply(t, p, "call", i+1, r)
		pass(t, from, at(20000), to)
	}
	if n := p.LostEvents(); n != extra {
		t.Errorf("%d events counted as lost, want %d", n, extra)
	}
	if n := len(p.Events()); n != eventBuffer {
		t.Errorf("%d events wait, want %d", n, eventBuffer)
	}
}

// TestTraffic changes sessions while packets run, for the race detector: an untouched session loses nothing.
func TestTraffic(t *testing.T) {
	p := newPlane(t)
	from, _ := socket(t)
	to, toAddr := socket(t)
	apply(t, p, "steady", 1, oneWay(at(20000), at(20002), toAddr))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range uint16(3) {
		id := relay.SessionID(fmt.Sprint("churn", i))
		local := 20100 + 4*i
		wg.Go(func() {
			noise, _ := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(at(local)))
			defer func() { _ = noise.Close() }()
			for generation := uint32(1); ctx.Err() == nil; generation += 2 {
				r := oneWay(at(local), at(20002), netip.AddrPortFrom(party, 9))
				r.Window = uint16(generation)
				if err := p.Apply(t.Context(), id, generation, []relay.Record{r, oneWay(at(local+2), at(local), netip.AddrPort{})}); err != nil {
					t.Error(err)
					return
				}
				for range 10 {
					_, _ = noise.Write([]byte("noise"))
				}
				p.Flows(id)
				if err := p.Apply(t.Context(), id, generation+1, nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 2000 {
		pass(t, from, at(20000), to)
	}
	cancel()
	wg.Wait()
}

// TestAllocation: forwarding takes no memory, however many packets.
func TestAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	p := newPlane(t)
	_, toAddr := socket(t)
	_, fromAddr := socket(t)
	r := oneWay(at(20000), at(20002), toAddr)
	r.CheckRTP, r.Accept = true, relaytest.From(party)
	apply(t, p, "call", 1, r, oneWay(at(20002), at(20000), toAddr))
	e := p.directory.find(at(20000))
	w := p.borrow()
	d := datagram.Packet{Info: datagram.Info{TOS: 184}, Remote: fromAddr, Payload: relaytest.RTP(1, 160)}
	now := time.Now()
	e.handle(w, d, now, 0)
	if n := testing.AllocsPerRun(1000, func() { e.handle(w, d, now, 0) }); n != 0 {
		t.Errorf("%v allocations per packet", n)
	}
	if n := count(t, p, "forwarded_socket"); n != 1002 {
		t.Errorf("%d packets forwarded", n)
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(true, relaytest.RTP(1, 0))
	f.Add(false, relaytest.RTCP())
	f.Add(false, relaytest.STUN())
	f.Fuzz(func(t *testing.T, rtcp bool, payload []byte) {
		component := relay.RTP
		if rtcp {
			component = relay.RTCP
		}
		switch classify(component, payload) {
		case contentRTP:
			if len(payload) < 8 || payload[0] < 128 || payload[0] > 191 {
				t.Errorf("% x is no RTP (RFC 7983 section 7)", payload)
			}
		case contentSTUN:
			if len(payload) < 20 || payload[0] > 3 || binary.BigEndian.Uint32(payload[4:]) != 0x2112a442 {
				t.Errorf("% x is no STUN (RFC 8489 section 5)", payload)
			}
		}
	})
}
