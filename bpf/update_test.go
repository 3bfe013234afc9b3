package bpf

import (
	"bytes"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// TestUpdateIsNotTorn replaces a record again and again while packets go through it. Each packet must be wholly the one's or the other's.
func TestUpdateIsNotTorn(t *testing.T) {
	const slots = 1000
	r := newRig(t, slots)
	scene(r)
	r.plane.SetLatch(callerFlow, 1, caller.Port())
	otherMAC := [6]byte{2, 0, 0, 0, 0, 0x99}
	r.plane.WriteNextHop(calleeHop+10, NextHop{Ifindex: r.eth0, DMAC: otherMAC, SMAC: callerMAC, MTU: 1500, From: caller.Addr(), Valid: true})
	records := [2]Record{sceneRecord(), sceneRecord()}
	records[1].To = netip.MustParseAddrPort("192.0.2.77:7777")
	records[1].FromPort, records[1].NextHop = 1, calleeHop+10
	other := goodResult()
	other.dmac, other.smac, other.src, other.dst = otherMAC, callerMAC, netip.AddrPortFrom(caller.Addr(), 1), records[1].To
	want := [2][]byte{goodResult().frame(), other.frame()}

	var runs atomic.Uint64
	var stop atomic.Bool
	done := make(chan uint64)
	go func() {
		var updates uint64
		defer func() { done <- updates }()
		for !stop.Load() {
			// A slot is written again only after the packets that may still be reading it are through.
			for before := runs.Load(); runs.Load() < before+2; {
				if stop.Load() {
					return
				}
				runtime.Gosched()
			}
			for slot := uint32(FirstRecord); slot < slots; slot++ {
				r.plane.WriteRecord(slot, records[slot%2])
				if err := r.plane.SetIndex(callerSide, slot); err != nil {
					t.Error(err)
					return
				}
				updates++
			}
		}
	}()

	var seen [2]int
	frame, out := goodPacket().frame(), make([]byte, 512)
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); {
		options := &ebpf.RunOptions{Data: frame, DataOut: out, Repeat: 1}
		if _, err := r.plane.objects.TandemRelay.Run(options); err != nil {
			t.Fatal(err)
		}
		runs.Add(1)
		switch {
		case bytes.Equal(options.DataOut, want[0]):
			seen[0]++
		case bytes.Equal(options.DataOut, want[1]):
			seen[1]++
		default:
			t.Fatalf("neither the one's nor the other's:\n%x", options.DataOut)
		}
	}
	stop.Store(true)
	updates := <-done
	t.Logf("%d updates, packets of either: %v", updates, seen)
	if seen[0] == 0 || seen[1] == 0 {
		t.Error("updates and packets did not meet")
	}
}

// TestInstructions keeps the verifier's budget.
func TestInstructions(t *testing.T) {
	r := newRig(t, 64)
	if err := checkInstructions(r.plane); err != nil {
		t.Error(err)
	}
}

// checkInstructions compares what the verifier had to walk through, of a million that it may, with a budget for each program. It walks
// further where it must not trust the CPU's speculation, that is, without CAP_PERFMON.
func checkInstructions(p *Plane) error {
	for _, c := range []struct {
		name   string
		prog   *ebpf.Program
		budget uint32
	}{
		{"relay", p.objects.TandemRelay, 25_000},
		{"steer", p.objects.TandemSteer, 300},
	} {
		info, err := c.prog.Info()
		if err != nil {
			return err
		}
		n, ok := info.VerifiedInstructions()
		if !ok || n > c.budget {
			return fmt.Errorf("%s: the verifier walked through %d instructions, the budget is %d", c.name, n, c.budget)
		}
		fmt.Printf("%s: %d instructions of %d\n", c.name, n, c.budget)
	}
	return nil
}

// TestEventBudget lets a CPU learn more in a second than it may tell: the flows know better.
func TestEventBudget(t *testing.T) {
	r := newRig(t, 64)
	scene(r)
	lost := func() uint64 {
		n, err := r.plane.EventsLost()
		check(t, err)
		return n
	}
	frame := goodPacket().frame()
	const packets = 20_000
	told := 0
	for range packets {
		r.plane.ClearFlow(callerFlow)
		if verdict, _ := r.run(slices.Clone(frame)); verdict != xdpRedirect {
			t.Fatalf("verdict %d", verdict)
		}
		if _, ok := r.event(); ok {
			told++
		}
	}
	if lost() == 0 || told+int(lost()) != packets {
		t.Errorf("%d told and %d lost of %d", told, lost(), packets)
	}
}

func TestMeasure(t *testing.T) {
	newRig(t, 64)
	for _, sessions := range []int{1, 70_000} {
		ns, baseline, err := Measure(sessions)
		check(t, err)
		if ns <= 0 || ns > 100_000 || baseline <= 0 {
			t.Errorf("%d sessions: %v ns above %v", sessions, ns, baseline)
		}
	}
	for _, sessions := range []int{0, -1, MeasureMax + 1} {
		if _, _, err := Measure(sessions); err == nil {
			t.Errorf("%d sessions are measured", sessions)
		}
	}
}

func TestCountsXDPSent(t *testing.T) {
	for name, want := range map[string]bool{
		"tx_queue_0_xdp_xmit":        true, // veth
		"tx_xdp_xmit":                true, // mlx5
		"tx3_xdp_xmit":               true,
		"tx_queue_0_xdp_tx":          true, // virtio_net
		"tx_queue_0_xdp_xmit_errors": false,
		"rx_queue_0_xdp_redirect":    false, // what came in
		"rx_xdp_tx_xmit":             false, // what was sent back
		"tx_xdp_full":                false,
		"tx_xdp_cqes":                false,
		"tx_packets":                 false,
		"rx_queue_0_xdp_drops":       false,
	} {
		if got := countsXDPSent(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestClock(t *testing.T) {
	if got := Time(0); !got.IsZero() {
		t.Errorf("Time(0) is %s", got)
	}
	if ago := time.Since(Time(Now())); ago < -time.Second || ago > time.Second {
		t.Errorf("now is %s ago", ago)
	}
	if d := Deadline(time.Minute) - Now(); d > uint64(time.Minute) || d < uint64(59*time.Second) {
		t.Errorf("a minute is %d ns", d)
	}
}

// TestLayout goes there and back.
func TestLayout(t *testing.T) {
	for _, r := range []Record{{}, sceneRecord(), {
		Generation: 1, Action: 2, Accept: 1, Flags: 3, Window: 4, FromPort: 5, Flow: 6, Peer: 7, NextHop: 8,
		Source: netip.MustParseAddr("2001:db8::5"), To: netip.MustParseAddrPort("[2001:db8::6]:258"),
	}} {
		if got := fromRecord(toRecord(r)); got != r {
			t.Errorf("record %+v, want %+v", got, r)
		}
	}
	raw := toRecord(sceneRecord())
	if raw.FromPort != [2]byte{20002 >> 8, 20002 & 255} || raw.To != [16]byte{10: 0xff, 0xff, 203, 0, 113, 20} {
		t.Errorf("record %+v", raw)
	}
	if got := toNextHop(NextHop{MTU: 70000}).Mtu; got != 65535 {
		t.Errorf("MTU %d", got)
	}
	if l := toLatch(0xabcd, 0x1234); l != 1<<32|0xabcd1234 || !latchedIn(l, 0xabcd) || latchedIn(l, 0xabce) || latchedIn(0, 0) {
		t.Errorf("latch %x", l)
	}
	if _, err := decodeEvent(make([]byte, 55)); err == nil {
		t.Error("an event of 55 bytes is decoded")
	}
}
