package bpf

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
)

// street is caller - tandem - callee, with the standard scene's call in the maps and native XDP on both interfaces of tandem.
type street struct {
	caller, tandem, callee *lab.Namespace
	root                   string
	eth0, eth1             int
}

func newStreet(t *testing.T) (*street, *Plane) {
	t.Helper()
	l := require.Lab(t)
	s := &street{root: require.PinDir(t)}
	for _, n := range []struct {
		name string
		ns   **lab.Namespace
	}{{"caller", &s.caller}, {"tandem", &s.tandem}, {"callee", &s.callee}} {
		var err error
		if *n.ns, err = l.Namespace(n.name); err != nil {
			t.Fatal(err)
		}
	}
	prefix := func(text string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(text)} }
	media := netip.PrefixFrom(mediaAddr, 32)
	check(t,
		l.Connect(lab.End{Namespace: s.caller, Name: "eth0", Addrs: prefix("198.51.100.10/24")},
			lab.End{Namespace: s.tandem, Name: "eth0", Addrs: prefix("198.51.100.1/24"), Reception: lab.Bare}),
		l.Connect(lab.End{Namespace: s.callee, Name: "eth0", Addrs: prefix("203.0.113.20/24")},
			lab.End{Namespace: s.tandem, Name: "eth1", Addrs: prefix("203.0.113.1/24"), Reception: lab.Bare}),
		s.caller.AddRoute(media, netip.MustParseAddr("198.51.100.1"), 0),
		s.callee.AddRoute(media, netip.MustParseAddr("203.0.113.1"), 0),
		s.tandem.AddAddr("lo", media),
	)
	var err error
	if s.eth0, err = s.tandem.Ifindex("eth0"); err != nil {
		t.Fatal(err)
	}
	if s.eth1, err = s.tandem.Ifindex("eth1"); err != nil {
		t.Fatal(err)
	}
	p := s.open(t)
	check(t, s.tandem.Do(func() error {
		return errors.Join(p.Attach(s.eth0, "eth0", ModeNative), p.Attach(s.eth1, "eth1", ModeNative), p.AttachLookup(),
			p.AllowDevice(uint32(s.eth0)), p.AllowDevice(uint32(s.eth1)))
	}))
	scene(&rig{t: t, plane: p, eth0: uint32(s.eth1)})
	p.WriteNextHop(calleeHop, s.hop(t, s.callee, "eth1", s.eth1))
	p.WriteNextHop(callerHop, s.hop(t, s.caller, "eth0", s.eth0))
	p.SetRole(Role{ForwardUntil: Never, OwnUntil: Never, State: StateStandalone})
	p.SetDaemon(Never, Never)
	return s, p
}

func (s *street) hop(t *testing.T, to *lab.Namespace, egress string, ifindex int) NextHop {
	t.Helper()
	theirs, err := to.MAC("eth0")
	check(t, err)
	ours, err := s.tandem.MAC(egress)
	check(t, err)
	return NextHop{Ifindex: uint32(ifindex), DMAC: [6]byte(theirs), SMAC: [6]byte(ours), MTU: 1500, From: mediaAddr, Valid: true}
}

func (s *street) open(t *testing.T) *Plane {
	t.Helper()
	p, _, err := openIn(s.tandem, Options{Root: s.root, Records: 64})
	check(t, err)
	return p
}

func check(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func listen(t testing.TB, ns *lab.Namespace, addr netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := ns.ListenUDP(addr)
	check(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// TestLifeGoesOn closes, opens and upgrades the plane again and again under a call. Every packet arrives before the next is sent.
func TestLifeGoesOn(t *testing.T) {
	s, p := newStreet(t)
	from, to := listen(t, s.caller, caller), listen(t, s.callee, callee)
	var stop atomic.Bool
	done := make(chan error, 1)
	var sent uint32
	go func() {
		done <- func() error {
			in := make([]byte, 2000)
			for ; !stop.Load(); sent++ {
				out := rtp(160)
				binary.BigEndian.PutUint32(out[4:], sent)
				if _, err := from.WriteToUDPAddrPort(out, callerSide); err != nil {
					return err
				}
				to.SetReadDeadline(time.Now().Add(3 * time.Second))
				n, source, err := to.ReadFromUDPAddrPort(in)
				if err != nil {
					return err
				}
				if source != calleeSide || n != len(out) || binary.BigEndian.Uint32(in[4:]) != sent {
					return errors.New("another packet arrived")
				}
			}
			return nil
		}()
	}()
	for i := range 12 {
		if i%2 == 0 {
			older(t, p)
		}
		check(t, p.Close())
		p = s.open(t)
	}
	stop.Store(true)
	if err := <-done; err != nil {
		t.Errorf("packet %d: %v", sent, err)
	}
	// The way back goes to the port that was learnt from the first packet.
	_, err := to.WriteToUDPAddrPort(rtp(160), calleeSide)
	check(t, err)
	from.SetReadDeadline(time.Now().Add(3 * time.Second))
	if _, source, err := from.ReadFromUDPAddrPort(make([]byte, 2000)); err != nil || source != callerSide {
		t.Errorf("the way back: from %s, %v", source, err)
	}
	if f := p.Flow(callerFlow); f.Packets != uint64(sent) || f.Port != caller.Port() || f.Bytes != uint64(sent)*172 {
		t.Errorf("flow %+v, want %d packets", f, sent)
	}
	t.Logf("%d packets", sent)
	if sent < 100 {
		t.Error("too few packets to say much")
	}
	check(t, p.Release())
}

// TestSteer punts packets to the slow path's sockets, and leaves other ports alone.
func TestSteer(t *testing.T) {
	s, p := newStreet(t)
	defer func() { check(t, p.Release()) }()
	rec := sceneRecord()
	rec.Action = ActionPunt
	p.WriteRecord(callerRecord, rec)
	slow := []*net.UDPConn{listen(t, s.tandem, netip.MustParseAddrPort("127.0.0.1:0")), listen(t, s.tandem, netip.MustParseAddrPort("127.0.0.1:0"))}
	var fds []int
	for _, c := range slow {
		f, err := c.File()
		check(t, err)
		defer f.Close()
		fds = append(fds, int(f.Fd()))
	}
	check(t, p.SteerTo(fds))
	sip := listen(t, s.tandem, netip.AddrPortFrom(mediaAddr, 5060))
	from := listen(t, s.caller, caller)
	send := func(to netip.AddrPort) {
		_, err := from.WriteToUDPAddrPort(rtp(20), to)
		check(t, err)
	}
	receive := func(c *net.UDPConn) (netip.AddrPort, error) {
		c.SetReadDeadline(time.Now().Add(3 * time.Second))
		_, source, err := c.ReadFromUDPAddrPort(make([]byte, 2000))
		return source, err
	}
	send(callerSide)
	// 20000/2 is an even slot, so the first socket has it.
	if source, err := receive(slow[0]); err != nil || source != caller {
		t.Errorf("punted packet: from %s, %v", source, err)
	}
	send(netip.AddrPortFrom(mediaAddr, 5060))
	if source, err := receive(sip); err != nil || source != caller {
		t.Errorf("outside the range: from %s, %v", source, err)
	}
	// The other pair's socket, by a frame that is injected behind the program.
	ours, err := s.tandem.MAC("eth0")
	check(t, err)
	frame := packet{dmac: [6]byte(ours), ttl: 64, src: caller, dst: netip.AddrPortFrom(mediaAddr, 20003), payload: rtp(20)}.frame()
	check(t, s.tandem.Do(func() error { return InjectPass(uint32(s.eth0), frame, 3) }))
	for range 3 {
		if source, err := receive(slow[1]); err != nil || source != caller {
			t.Errorf("injected packet: from %s, %v", source, err)
		}
	}
	// Without sockets nothing in the range reaches a socket that happens to be bound there.
	check(t, p.SteerTo(nil))
	bystander := listen(t, s.tandem, callerSide)
	send(callerSide)
	send(netip.AddrPortFrom(mediaAddr, 5060))
	if _, err := receive(sip); err != nil {
		t.Errorf("outside the range: %v", err)
	}
	// What was sent before is there by now.
	bystander.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, _, err := bystander.ReadFromUDPAddrPort(make([]byte, 2000)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a bystander got a media packet: %v", err)
	}
}
