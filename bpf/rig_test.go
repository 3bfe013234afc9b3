package bpf

import (
	"errors"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
)

// The rig's interfaces: test runs take place as if frames came in by the loopback interface; eth0 is another one.
const ingress = 1

// rig is a plane in a namespace of its own, on whose program frames are tried.
type rig struct {
	t      testing.TB
	ns     *lab.Namespace
	plane  *Plane
	eth0   uint32
	events *ringbuf.Reader
}

// newRig locks the test's goroutine into a namespace with a fresh plane.
func newRig(t testing.TB, records uint32) *rig {
	t.Helper()
	l := require.Lab(t)
	ns, err := l.Namespace("rig")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Connect(lab.End{Namespace: ns, Name: "eth0"}, lab.End{Namespace: ns, Name: "eth1"}); err != nil {
		t.Fatal(err)
	}
	index, err := ns.Ifindex("eth0")
	if err != nil {
		t.Fatal(err)
	}
	enter(t, ns)
	plane, _, err := Open(Options{Root: require.PinDir(t), Records: records})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := plane.Release(); err != nil {
			t.Error(err)
		}
	})
	for _, device := range []uint32{ingress, uint32(index)} {
		if err := plane.AllowDevice(device); err != nil {
			t.Fatal(err)
		}
	}
	events, err := ringbuf.NewReader(plane.objects.Events)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { events.Close() })
	plane.SetRole(Role{ForwardUntil: Never, OwnUntil: Never, State: StateStandalone})
	plane.SetDaemon(Never, Never)
	return &rig{t: t, ns: ns, plane: plane, eth0: uint32(index), events: events}
}

// enter puts the calling goroutine into a namespace for the rest of the test: its thread ends with it.
func enter(t testing.TB, ns *lab.Namespace) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Setns(ns.FD(), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// run puts a frame through the program and returns verdict and frame.
func (r *rig) run(frame []byte) (uint32, []byte) {
	r.t.Helper()
	out := make([]byte, len(frame)+64)
	options := &ebpf.RunOptions{Data: frame, DataOut: out, Repeat: 1}
	verdict, err := r.plane.objects.TandemRelay.Run(options)
	if err != nil {
		r.t.Fatalf("run %d bytes: %v", len(frame), err)
	}
	return verdict, options.DataOut
}

// counted is what the counters have grown by since before.
func (r *rig) counted(before []ReasonCount) map[Reason]ReasonCount {
	r.t.Helper()
	grown := map[Reason]ReasonCount{}
	for i, c := range r.counters() {
		c.Packets -= before[i].Packets
		c.Bytes -= before[i].Bytes
		if c.Packets != 0 || c.Bytes != 0 {
			grown[c.Reason] = c
		}
	}
	return grown
}

func (r *rig) counters() []ReasonCount {
	r.t.Helper()
	c, err := r.plane.Counters()
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// event takes the next event, if there is one.
func (r *rig) event() (Event, bool) {
	r.t.Helper()
	r.events.SetDeadline(time.Unix(1, 0))
	raw, err := r.events.Read()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return Event{}, false
	}
	if err != nil {
		r.t.Fatal(err)
	}
	e, err := decodeEvent(raw.RawSample)
	if err != nil {
		r.t.Fatal(err)
	}
	return e, true
}

// The standard scene: a call between a caller at .10 and a callee at .20, relayed at .1.
var (
	mediaAddr  = netip.MustParseAddr("192.0.2.1")
	caller     = netip.MustParseAddrPort("198.51.100.10:40000")
	callee     = netip.MustParseAddrPort("203.0.113.20:50000")
	callerSide = netip.AddrPortFrom(mediaAddr, 20000) // the caller sends here
	calleeSide = netip.AddrPortFrom(mediaAddr, 20002)
	hopMAC     = [6]byte{2, 0, 0, 0, 0, 0x20}
	ownMAC     = [6]byte{2, 0, 0, 0, 0, 0x01}
	callerMAC  = [6]byte{2, 0, 0, 0, 0, 0x10}
)

// Positions in the standard scene.
const (
	callerRecord, calleeRecord = 2, 3
	callerFlow, calleeFlow     = 12, 13
	calleeHop, callerHop       = 5, 6
)

func scene(r *rig) {
	p := r.plane
	if err := p.OpenMedia(mediaAddr, PortRange{20000, 20009}); err != nil {
		r.t.Fatal(err)
	}
	p.WriteNextHop(calleeHop, NextHop{Ifindex: r.eth0, DMAC: hopMAC, SMAC: ownMAC, MTU: 1500, From: mediaAddr, Valid: true})
	p.WriteNextHop(callerHop, NextHop{Ifindex: ingress, DMAC: callerMAC, SMAC: ownMAC, MTU: 1500, From: mediaAddr, Valid: true})
	p.WriteRecord(callerRecord, sceneRecord())
	p.WriteRecord(calleeRecord, Record{
		Generation: 7, Action: ActionForward, Accept: AcceptAddr, Flags: FlagCheckRTP, Window: 1,
		FromPort: callerSide.Port(), Flow: calleeFlow, Peer: callerRecord, NextHop: callerHop,
		Source: callee.Addr(), To: netip.AddrPortFrom(caller.Addr(), 0),
	})
	p.ClearFlow(callerFlow)
	p.ClearFlow(calleeFlow)
	for port, record := range map[uint16]uint32{20000: callerRecord, 20002: calleeRecord} {
		if err := p.SetIndex(netip.AddrPortFrom(mediaAddr, port), record); err != nil {
			r.t.Fatal(err)
		}
	}
}

func sceneRecord() Record {
	return Record{
		Generation: 7, Action: ActionForward, Accept: AcceptAddr, Flags: FlagCheckRTP, Window: 1,
		FromPort: calleeSide.Port(), Flow: callerFlow, Peer: calleeRecord, NextHop: calleeHop,
		Source: caller.Addr(), To: callee,
	}
}

// goodPacket is from the caller, and is forwarded to the callee as goodResult.
func goodPacket() packet {
	return packet{dmac: ownMAC, smac: callerMAC, tos: 0xb8, id: 99, fragment: 0x4000, ttl: 64, src: caller, dst: callerSide, payload: rtp(160)}
}

func goodResult() packet {
	p := goodPacket()
	p.dmac, p.smac, p.ttl, p.src, p.dst = hopMAC, ownMAC, 63, calleeSide, callee
	return p
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
