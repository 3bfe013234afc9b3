package slowpath

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
	"github.com/tandem-relay/tandem/relay/internal/datagram"
)

// The media range that the tests steer, and the addresses of the two ends.
const firstPort, lastPort = 20000, 20999

var (
	relay4, outside4 = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")
	relay6, outside6 = netip.MustParseAddr("fd01::1"), netip.MustParseAddr("fd01::2")
)

// world is a relay's namespace with a path in it, and a namespace outside.
type world struct {
	relay, outside *lab.Namespace
	path           *Path
}

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	l := require.Lab(t)
	w := new(world)
	var err error
	if w.relay, err = l.Namespace("relay"); err != nil {
		t.Fatal(err)
	}
	if w.outside, err = l.Namespace("outside"); err != nil {
		t.Fatal(err)
	}
	end := func(ns *lab.Namespace, addrs ...netip.Addr) lab.End {
		return lab.End{Namespace: ns, Name: "veth0", Reception: lab.Bare,
			Addrs: []netip.Prefix{netip.PrefixFrom(addrs[0], 24), netip.PrefixFrom(addrs[1], 64)}}
	}
	if err := l.Connect(end(w.relay, relay4, relay6), end(w.outside, outside4, outside6)); err != nil {
		t.Fatal(err)
	}
	if err := w.relay.Do(func() error {
		w.path, err = New(cfg)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.path.Close() })
	return w
}

// steer assigns every packet to the media range to the path's sockets, chosen by the remote port.
func (w *world) steer(t *testing.T) {
	t.Helper()
	fds := w.path.FDs()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: uint32(len(fds))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	for i, fd := range fds {
		if err := m.Put(uint32(i), uint64(fd)); err != nil {
			t.Fatal(err)
		}
	}
	const remotePort, localPort = 36, 60 // offsets in struct bpf_sk_lookup
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadMem(asm.R2, asm.R6, localPort, asm.Word),
			asm.JLT.Imm(asm.R2, firstPort, "pass"),
			asm.JGT.Imm(asm.R2, lastPort, "pass"),
			asm.LoadMem(asm.R2, asm.R6, remotePort, asm.Half),
			asm.Mod.Imm(asm.R2, int32(len(fds))),
			asm.StoreMem(asm.RFP, -4, asm.R2, asm.Word),
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "pass"),
			asm.Mov.Reg(asm.R7, asm.R0),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Reg(asm.R2, asm.R7),
			asm.Mov.Imm(asm.R3, 0),
			asm.FnSkAssign.Call(),
			asm.Mov.Reg(asm.R1, asm.R7),
			asm.FnSkRelease.Call(),
			asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"), // SK_PASS
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatalf("load program: %+v", err)
	}
	t.Cleanup(func() { _ = prog.Close() })
	lookup, err := link.AttachNetNs(w.relay.FD(), prog)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lookup.Close() })
}

// run serves the path until the end of the test and returns copies of what it receives.
func (w *world) run(t *testing.T) <-chan Packet {
	t.Helper()
	got := make(chan Packet, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- w.path.Run(ctx, func(p Packet) {
			p.Payload = slices.Clone(p.Payload)
			got <- p
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return got
}

// peer is a socket outside that sends with and receives the traffic class.
type peer struct {
	*net.UDPConn
	addr netip.AddrPort
}

func (w *world) peer(t *testing.T, addr netip.Addr) *peer {
	t.Helper()
	conn, err := w.outside.ListenUDP(netip.AddrPortFrom(addr, 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if err := datagram.EnableTOS(int(fd), addr.Is6()); err != nil {
			t.Error(err)
		}
	})
	return &peer{conn, conn.LocalAddr().(*net.UDPAddr).AddrPort()}
}

func (p *peer) send(t *testing.T, to netip.AddrPort, tos uint8, payload []byte) {
	t.Helper()
	if _, _, err := p.WriteMsgUDPAddrPort(payload, datagram.AppendTOS(nil, to.Addr().Is6(), tos), to); err != nil {
		t.Fatal(err)
	}
}

func (p *peer) receive(t *testing.T) Packet {
	t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(5 * time.Second))
	payload, oob := make([]byte, datagram.MaxPayload), make([]byte, datagram.Space)
	n, oobn, _, from, err := p.ReadMsgUDPAddrPort(payload, oob)
	if err != nil {
		t.Fatal(err)
	}
	return Packet{Remote: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), TOS: datagram.Parse(oob[:oobn]).TOS, Payload: payload[:n]}
}

func next(t *testing.T, got <-chan Packet) Packet {
	t.Helper()
	select {
	case p := <-got:
		return p
	case <-time.After(5 * time.Second):
		t.Fatal("nothing arrived in the slow path")
		return Packet{}
	}
}

func TestSteered(t *testing.T) {
	w := newWorld(t, Config{Sockets: 3})
	w.steer(t)
	got := w.run(t)
	tests := []struct {
		name, reason  string
		relay, remote netip.Addr
		port          uint16
		tos           uint8
		size          int
	}{
		{"IPv4", "the socket is bound to loopback, yet gets what is steered to it", relay4, outside4, firstPort, 0, 172},
		{"IPv4 marked", "DSCP and ECN are told", relay4, outside4, lastPort, 46<<2 | 1, 172},
		{"IPv4 empty", "a payload of no octets is a datagram too", relay4, outside4, 20002, 0, 0},
		{"IPv4 fragments", "fragments come reassembled, and leave as fragments again", relay4, outside4, 20004, 46 << 2, 20000},
		{"IPv4 largest", "the largest datagram is not cut", relay4, outside4, 20006, 0, 65507},
		{"IPv6", "one socket takes both families", relay6, outside6, 20008, 0, 172},
		{"IPv6 marked", "the traffic class is told", relay6, outside6, 20010, 34<<2 | 2, 172},
		{"IPv6 fragments", "fragment headers are gone after reassembly", relay6, outside6, 20012, 46 << 2, 20000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			far := w.peer(t, tt.remote)
			local := netip.AddrPortFrom(tt.relay, tt.port)
			payload := make([]byte, tt.size)
			for i := range payload {
				payload[i] = byte(i * 7)
			}
			far.send(t, local, tt.tos, payload)
			p := next(t, got)
			if p.Local != local || p.Remote != far.addr || p.TOS != tt.tos || !slices.Equal(p.Payload, payload) {
				t.Errorf("%s: got %s from %s, TOS %#x, %d octets; want %s from %s, TOS %#x, %d octets", tt.reason,
					p.Local, p.Remote, p.TOS, len(p.Payload), local, far.addr, tt.tos, tt.size)
			}
			// Back from the endpoint that was addressed, by a goroutine whose thread is in another namespace.
			if err := w.path.Send(p.Local, p.Remote, p.TOS, p.Payload); err != nil {
				t.Fatal(err)
			}
			back := far.receive(t)
			if back.Remote != local || back.TOS != tt.tos || !slices.Equal(back.Payload, payload) {
				t.Errorf("%s: back came %d octets from %s, TOS %#x", tt.reason, len(back.Payload), back.Remote, back.TOS)
			}
			// The sender that is bound there now must not take the next packet away.
			far.send(t, local, 0, []byte{1})
			if p := next(t, got); p.Local != local || len(p.Payload) != 1 {
				t.Errorf("after a sender was opened: got %d octets at %s", len(p.Payload), p.Local)
			}
		})
	}
	if c := w.path.Counters(); c.Stray != 0 || c.Errors != 0 || c.Received != uint64(2*len(tests)) || c.Sent != uint64(len(tests)) {
		t.Errorf("counters %+v", c)
	}
}

// TestUnreachable: without steering nobody outside reaches the receiving sockets, and who does so from the host itself
// is not heard.
func TestUnreachable(t *testing.T) {
	w := newWorld(t, Config{Sockets: 1})
	got := w.run(t)
	port := w.path.receivers[0].local.Port()
	far := w.peer(t, outside4)
	far.send(t, netip.AddrPortFrom(relay4, port), 0, []byte("stranger"))
	far6 := w.peer(t, outside6)
	far6.send(t, netip.AddrPortFrom(relay6, port), 0, []byte("stranger"))
	// Outside, a route that sends loopback addresses over the wire, as an attacker on the link has.
	martian := func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		if err := unix.BindToDevice(fd, "veth0"); err != nil {
			return err
		}
		return unix.Sendto(fd, udp4(outside4, w.path.receivers[0].local), 0, &unix.SockaddrInet4{Addr: relay4.As4()})
	}
	if err := w.outside.Do(martian); err != nil {
		t.Fatal(err)
	}

	inside, err := w.relay.DialUDP(netip.AddrPort{}, w.path.receivers[0].local)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inside.Close() }()
	if _, err := inside.Write([]byte("local")); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for w.path.Counters().Stray == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	// The local one came last, so whatever else would come has come.
	if c := w.path.Counters(); c.Stray != 1 || c.Received != 0 || len(got) != 0 {
		t.Errorf("counters %+v, want one stray packet and nothing else", c)
	}
}

// udp4 is a whole IPv4 packet with a UDP checksum of 0; the kernel fills in the IPv4 one.
func udp4(from netip.Addr, to netip.AddrPort) []byte {
	b := make([]byte, 20+8+4)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[20:], 40000)
	binary.BigEndian.PutUint16(b[22:], to.Port())
	binary.BigEndian.PutUint16(b[24:], 12)
	return b
}
