package xdp_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/tandem-relay/tandem/relay/relaytest"
	"github.com/tandem-relay/tandem/relay/xdp"
)

// TestCarriedByXDP: not one packet of a plain call takes another way, the first ones included.
func TestCarriedByXDP(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	c := r.newCall("plain", 0)
	c.apply()
	const packets = 50
	for i := range uint16(packets) {
		c.exchange(i)
	}
	for _, local := range []netip.AddrPort{c.atOut, c.atIn} {
		f := r.flow(c.id, local)
		if f.Packets[relay.PathXDP] != packets || f.Packets[relay.PathSlow] != 0 {
			t.Errorf("%s: packets %v, want %d by XDP alone", local, f.Packets, packets)
		}
	}
	totals, err := r.plane.Totals()
	must(t, err)
	if totals.Forwarded[relay.PathXDP] != 2*packets {
		t.Errorf("forwarded %v", totals.Forwarded)
	}
}

// TestOpenSetIsHandedOver: where the daemon must decide on the source, it does so for the first packet, and XDP has the rest.
func TestOpenSetIsHandedOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	c := r.newCall("open", 0)
	c.out.Accept = relay.AcceptSet{Any: true}
	c.in.Outputs[0].To = netip.AddrPort{} // an unroutable address was signalled
	c.apply()
	passes(t, c.caller, c.atOut, c.callee, c.atIn, relaytest.RTP(1, 160))
	passes(t, c.callee, c.atIn, c.caller, c.atOut, relaytest.RTP(2, 160)) // at once
	const ptime = 20 * time.Millisecond
	s := startStream(c.caller, c.atOut, c.callee, ptime)
	eventually(t, "XDP carries the stream", func() bool { return r.flow(c.id, c.atOut).Packets[relay.PathXDP] > 5 })
	s.end().intact(t)
	if f := r.flow(c.id, c.atOut); f.Packets[relay.PathSlow] > 2 || f.Learnt != addrOf(c.caller) {
		t.Errorf("flow %+v, want at most two packets by the slow path", f)
	}
	c.byXDP(3)
	// The port of a stranger, even from an accepted address, is none.
	stranger := r.party(relaytest.Outside, 1)
	_, err := stranger.WriteToUDPAddrPort(relaytest.RTP(9, 160), c.atOut)
	must(t, err)
	eventually(t, "a mismatch is counted", func() bool { return r.reason("source_mismatch") == 1 })
	c.apply()
	c.byXDP(4) // same window: nothing is learnt anew
}

// TestReplacedUnderTraffic: a change of records is not seen by the packets.
func TestReplacedUnderTraffic(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	c := r.newCall("busy", 0)
	c.apply()
	c.exchange(0)
	streams := []*stream{
		startStream(c.caller, c.atOut, c.callee, 300*time.Microsecond),
		startStream(c.callee, c.atIn, c.caller, 300*time.Microsecond),
	}
	pace := time.NewTicker(500 * time.Microsecond)
	defer pace.Stop()
	for range 1000 {
		<-pace.C
		c.apply()
	}
	for _, s := range streams {
		s.end().intact(t)
	}
	for _, local := range []netip.AddrPort{c.atOut, c.atIn} {
		if f := r.flow(c.id, local); f.Packets[relay.PathSlow] != 0 {
			t.Errorf("%s: packets %v", local, f.Packets)
		}
	}
}

// TestLearntDuringReplacement: a port that the program learns while the records are replaced is used by the new ones.
func TestLearntDuringReplacement(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	c := r.newCall("race", 0)
	c.in.Outputs[0].To = netip.AddrPort{}
	for i := range uint16(200) {
		c.out.Window = i + 2 // reopens learning
		c.apply()
		sent := make(chan error)
		go func() {
			_, err := c.caller.WriteToUDPAddrPort(relaytest.RTP(i, 160), c.atOut)
			sent <- err
		}()
		c.apply()
		must(t, <-sent)
		eventually(t, "the port is learnt", func() bool { return r.flow(c.id, c.atOut).Learnt == addrOf(c.caller) })
		var err error
		eventually(t, "the other direction knows it", func() bool {
			_, err = c.callee.WriteToUDPAddrPort(relaytest.RTP(i, 160), c.atIn)
			_ = c.caller.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			_, _, err = c.caller.ReadFromUDPAddrPort(make([]byte, 2048))
			return err == nil
		})
	}
}

// TestSlowPath: what XDP leaves to the kernel arrives all the same, under the same rules.
func TestSlowPath(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	c := r.newCall("slow", 0)
	c.apply()
	c.exchange(0)
	stranger := r.party(relaytest.Outside, 1)
	for _, conn := range []*net.UDPConn{c.caller, stranger} {
		raw, err := conn.SyscallConn()
		must(t, err)
		var set error
		must(t, raw.Control(func(fd uintptr) {
			set = unix.SetsockoptString(int(fd), unix.IPPROTO_IP, unix.IP_OPTIONS, "\x01\x01\x01\x01")
		}))
		must(t, set)
	}
	for _, tt := range []struct {
		name, reason string
		payload      []byte
	}{
		{"IP options", "punt_options", relaytest.RTP(1, 160)},
		{"fragments and IP options", "", relaytest.RTP(2, 5000)},
		{"STUN and IP options", "punt_stun", relaytest.STUN()},
	} {
		before := r.flow(c.id, c.atOut)
		passes(t, c.caller, c.atOut, c.callee, c.atIn, tt.payload)
		eventually(t, tt.name+" counted as slow", func() bool {
			f := r.flow(c.id, c.atOut)
			return f.Packets[relay.PathSlow] == before.Packets[relay.PathSlow]+1 &&
				(tt.reason == "" || f.Punted[tt.reason] == before.Punted[tt.reason]+1)
		})
	}
	_, err := stranger.WriteToUDPAddrPort(relaytest.RTP(4, 160), c.atOut)
	must(t, err)
	eventually(t, "the stranger is counted", func() bool { return r.reason("source_mismatch") == 1 })
	// From the right address, but another port: the program leaves it to the slow path, which knows the port.
	other := r.party(relaytest.Outside, 0)
	for _, payload := range [][]byte{relaytest.STUN(), relaytest.STUN()} {
		_, err = other.WriteToUDPAddrPort(payload, c.atOut)
		must(t, err)
	}
	eventually(t, "the other port is counted", func() bool { return r.reason("slow_source_mismatch") == 2 })
	quiet(t, c.callee, stranger, other)
}

// quiet requires that nothing waits at the parties.
func quiet(t testing.TB, conns ...*net.UDPConn) {
	t.Helper()
	for _, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if n, from, err := conn.ReadFromUDPAddrPort(make([]byte, 2048)); err == nil {
			t.Errorf("%s got %d bytes from %s", addrOf(conn), n, from)
		}
	}
}

// TestNeverWaitsTwice: Apply waits for a next hop once, for a moment.
func TestNeverWaitsTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	c := r.newCall("dead", 0)
	c.out.Outputs[0].To = netip.MustParseAddrPort("10.71.2.99:4000") // nobody lives there
	for i, limit := range []time.Duration{500 * time.Millisecond, 15 * time.Millisecond, 15 * time.Millisecond} {
		started := time.Now()
		c.apply()
		took := time.Since(started)
		if took > limit {
			t.Errorf("apply %d took %v", i, took)
		}
		if i == 0 && took < 15*time.Millisecond {
			t.Errorf("the first did not wait: %v", took)
		}
	}
	// What is sent there takes the slow path, where the kernel gives up on it.
	_, err := c.caller.WriteToUDPAddrPort(relaytest.RTP(0, 160), c.atOut)
	must(t, err)
	eventually(t, "punted", func() bool { return r.flow(c.id, c.atOut).Punted["punt_no_next_hop"] == 1 })
	passes(t, c.callee, c.atIn, c.caller, c.atOut, relaytest.RTP(0, 160))
}

// TestRefused: what cannot be held is refused whole, and what was there goes on.
func TestRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass)
	r.records = 64
	r.start()
	c := r.newCall("first", 0)
	c.apply()
	c.exchange(0)
	other := r.newCall("second", 1)
	for _, tt := range []struct {
		name, want string
		records    func() []relay.Record
	}{
		{"port of another session", "belongs to session first", func() []relay.Record {
			other.out.Local = c.atOut
			return []relay.Record{other.out, other.in}
		}},
		{"port outside the range", "not in the media range", func() []relay.Record {
			other.out.Local = netip.AddrPortFrom(r.Media(relaytest.Outside), relaytest.LastPort+1)
			return []relay.Record{other.out, other.in}
		}},
		{"local twice", "stands twice", func() []relay.Record { return []relay.Record{other.in, other.in} }},
		{"unknown network", "unknown network", func() []relay.Record {
			other.in.Outputs = slices.Clone(other.in.Outputs)
			other.in.Outputs[0].Network = "elsewhere"
			return []relay.Record{other.in}
		}},
		{"no action", "unknown action", func() []relay.Record { other.in.Action = 0; return []relay.Record{other.in} }},
		{"too many", xdp.ErrFull.Error(), func() []relay.Record {
			var records []relay.Record
			for i := range 80 {
				record := c.out
				record.Local = r.local(relaytest.Outside, 100+i)
				records = append(records, record)
			}
			return records
		}},
	} {
		err := r.plane.Apply(context.Background(), "second", 1, tt.records())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		c.byXDP(1)
	}
	// A full table still takes changes, and gives everything back.
	fill := 0
	for ; ; fill++ {
		record := c.out
		record.Local = r.local(relaytest.Outside, 100+fill)
		err := r.plane.Apply(context.Background(), relay.SessionID(record.Local.String()), 1, []relay.Record{record})
		if errors.Is(err, xdp.ErrFull) {
			break
		}
		must(t, err)
	}
	c.apply()
	c.byXDP(2)
	for i := range fill {
		must(t, r.plane.Apply(context.Background(), relay.SessionID(r.local(relaytest.Outside, 100+i).String()), 2, nil))
	}
	eventually(t, "slots come back", func() bool {
		other = r.newCall("third", 5)
		return r.plane.Apply(context.Background(), "third", 1, []relay.Record{other.out, other.in}) == nil
	})
	if n := r.plane.Sessions(); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
}

// TestConfiguration: a configuration that cannot work is refused with what is wrong, and leaves nothing attached.
func TestConfiguration(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass)
	for _, tt := range []struct {
		name, want string
		change     func(*xdp.Config)
	}{
		{"missing interface", "network inside: interface nowhere", func(c *xdp.Config) { c.Networks[1].Interfaces = []string{"nowhere"} }},
		{"no interface", "no interface", func(c *xdp.Config) { c.Networks[1].Interfaces = nil }},
		{"missing address", "network inside: media address 10.71.2.77 does not exist", func(c *xdp.Config) {
			c.Networks[1].Media[0].Addr = netip.MustParseAddr("10.71.2.77")
		}},
		{"address of two networks", "belongs to network outside", func(c *xdp.Config) { c.Networks[1].Media[0].Addr = r.Media(relaytest.Outside) }},
		{"name twice", "stands twice", func(c *xdp.Config) { c.Networks[1].Name = relaytest.Outside }},
		{"backward range", "runs backwards", func(c *xdp.Config) { c.Networks[1].Media[0].Ranges = []ports.Range{{First: 9, Last: 8}} }},
		{"no ports", "has no ports", func(c *xdp.Config) { c.Networks[1].Media[0].Ranges = nil }},
		{"no networks", "no network", func(c *xdp.Config) { c.Networks = nil }},
	} {
		plane, err := r.try(tt.change)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if plane != nil {
			_ = plane.Close()
		}
		r.attached(t, false)
	}
}

// attached requires that every interface of the relay has an XDP program, or that none has.
func (r *rig) attached(t testing.TB, want bool) {
	t.Helper()
	for side := range r.sides {
		link, err := r.relay.Handle().LinkByName(side)
		must(t, err)
		if x := link.Attrs().Xdp; (x != nil && x.Attached) != want {
			t.Errorf("interface %s: XDP attached %v, want %v", side, !want, want)
		}
	}
}
