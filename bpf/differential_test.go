package bpf

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/tandem-relay/tandem/relay/oracle"
)

// Sizes of the tables in differential tests: small, so that positions beyond them and collisions are common.
const (
	diffRecords = 16
	diffHops    = 6
)

// differ compares program and oracle, table by table and frame by frame.
type differ struct {
	*rig
	tables oracle.Tables
	media  []netip.Addr
}

func newDiffer(t testing.TB) *differ {
	d := &differ{
		rig:   newRig(t, diffRecords),
		media: []netip.Addr{mediaAddr, netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")},
	}
	for _, addr := range d.media {
		if err := d.plane.OpenMedia(addr, PortRange{20000, 20007}); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// pick chooses one of the values.
func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// chance is true once in n times.
func chance(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

func (d *differ) sources() []netip.Addr {
	return []netip.Addr{caller.Addr(), callee.Addr(), netip.MustParseAddr("2001:db8::10"), d.media[1]}
}

// fill makes random tables, in the oracle's form and in the maps.
func (d *differ) fill(r *rand.Rand) {
	t := &d.tables
	deadline := func() uint64 {
		if chance(r, 30) {
			return pick(r, uint64(0), 1, Now()-2*coarse)
		}
		return pick(r, Never, Now()+3_600_000_000_000)
	}
	*t = oracle.Tables{
		Media:        map[netip.Addr]map[uint16]uint32{},
		Records:      make([]oracle.Record, diffRecords),
		Flows:        make([]oracle.Flow, diffRecords),
		NextHops:     make([]oracle.NextHop, 4096),
		Devices:      map[uint32]bool{ingress: true, d.eth0: true},
		ForwardUntil: deadline(),
		OrphanAt:     deadline(),
		AliveUntil:   deadline(),
	}
	d.plane.SetRole(Role{ForwardUntil: t.ForwardUntil})
	d.plane.SetDaemon(t.OrphanAt, t.AliveUntil)
	for _, addr := range d.media {
		t.Media[addr] = map[uint16]uint32{}
		for port := uint16(20000); port < 20008; port++ {
			v := oracle.FirstRecord + uint32(r.IntN(diffRecords-2))
			if chance(r, 10) {
				v = pick(r, oracle.Outside, oracle.Empty)
			}
			t.Media[addr][port] = v
			if err := d.plane.SetIndex(netip.AddrPortFrom(addr, port), v); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	for i := range uint32(diffRecords) {
		d.fillRecord(r, i)
		d.fillFlow(r, i)
	}
	for i := uint32(1); i < diffHops; i++ {
		hop := oracle.NextHop{
			Ifindex: pick(r, ingress, d.eth0, d.eth0, 77),
			DMAC:    hopMAC,
			SMAC:    ownMAC,
			MTU:     pick[uint16](r, 1500, 1500, 1500, 100, 65535),
			From:    pick(r, d.media[0], d.media[1]),
			Valid:   !chance(r, 8),
		}
		t.NextHops[i] = hop
		d.plane.WriteNextHop(i, NextHop{Ifindex: hop.Ifindex, DMAC: hop.DMAC, SMAC: hop.SMAC, MTU: uint32(hop.MTU), From: hop.From, Valid: hop.Valid})
	}
}

func (d *differ) fillRecord(r *rand.Rand, i uint32) {
	sources := d.sources()
	rec := oracle.Record{
		Generation: r.Uint32(),
		Action:     pick(r, oracle.Forward, oracle.Forward, oracle.Forward, oracle.Forward, oracle.Forward, oracle.Forward, oracle.Hold, oracle.Block, oracle.Punt),
		Accept:     pick(r, oracle.AcceptAddr, oracle.AcceptAddr, oracle.AcceptAddr, oracle.AcceptAddr, oracle.AcceptAddr, oracle.AcceptAddr, oracle.AcceptOpen, oracle.AcceptNone),
		CheckRTP:   chance(r, 2),
		RTCP:       chance(r, 3),
		Window:     uint16(r.IntN(3)),
		FromPort:   uint16(r.Uint32()),
		Flow:       uint32(r.IntN(diffRecords)),
		Peer:       uint32(r.IntN(diffRecords)),
		NextHop:    uint32(1 + r.IntN(diffHops-1)),
		Source:     pick(r, append(sources, sources[0], sources[0], sources[1], sources[1])...),
		To:         netip.AddrPortFrom(pick(r, append(sources, sources[0], sources[0], sources[1], sources[1])...), uint16(r.Uint32())),
	}
	if chance(r, 8) {
		switch r.IntN(8) {
		case 0:
			rec.Action = oracle.Action(r.Uint32())
		case 1:
			rec.Accept = oracle.Accept(r.Uint32())
		case 2:
			rec.Flow = diffRecords + uint32(r.IntN(3))
		case 3:
			rec.Peer = pick(r, 0, i, diffRecords, ^uint32(0))
		case 4:
			rec.NextHop = pick[uint32](r, 0, 4096, 4095)
		case 5:
			rec.Source = netip.Addr{}
		case 6:
			rec.To = netip.AddrPortFrom(netip.Addr{}, 5)
		case 7:
			rec.To = netip.AddrPortFrom(rec.To.Addr(), 0)
		}
	}
	d.tables.Records[i] = rec
	d.plane.WriteRecord(i, toPlane(rec))
}

func toPlane(rec oracle.Record) Record {
	out := Record{
		Generation: rec.Generation, Action: Action(rec.Action), Accept: Accept(rec.Accept), Window: rec.Window, FromPort: rec.FromPort,
		Flow: rec.Flow, Peer: rec.Peer, NextHop: rec.NextHop, Source: rec.Source, To: rec.To,
	}
	if rec.CheckRTP {
		out.Flags |= FlagCheckRTP
	}
	if rec.RTCP {
		out.Flags |= FlagRTCP
	}
	return out
}

func (d *differ) fillFlow(r *rand.Rand, i uint32) {
	d.plane.ClearFlow(i)
	f := oracle.Flow{}
	if chance(r, 2) {
		f.Learnt, f.Window, f.Port = true, uint16(r.IntN(3)), uint16(40000+r.IntN(2))
		d.plane.SetLatch(i, f.Window, f.Port)
	}
	d.tables.Flows[i] = f
}

// frame makes a random frame, mostly one that gets far.
func (d *differ) frame(r *rand.Rand) []byte {
	payload := pick(r,
		func() []byte { return rtp(r.IntN(200)) },
		func() []byte { return rtp(160) },
		func() []byte { return rtp(20) },
		stun,
		func() []byte { return []byte{0x80, byte(190 + r.IntN(36)), 0, 1, 1, 2, 3, 4, 5, 6}[:r.IntN(11)] },
		func() []byte { b := make([]byte, r.IntN(64)); fillRandom(r, b); return b },
	)()
	src := netip.AddrPortFrom(pick(r, d.sources()...), uint16(40000+r.IntN(2)))
	dst := netip.AddrPortFrom(pick(r, d.media[0], d.media[0], d.media[1], d.media[1], d.media[2]), uint16(20000+r.IntN(8)))
	if v := d.tables.Media[dst.Addr()][dst.Port()]; v >= oracle.FirstRecord && v < diffRecords && !chance(r, 6) {
		// The source that the record accepts, and mostly the port that was learnt.
		if rec := d.tables.Records[v]; rec.Source.IsValid() && rec.Flow < diffRecords {
			src = netip.AddrPortFrom(rec.Source, src.Port())
			if f := d.tables.Flows[rec.Flow]; f.Learnt && !chance(r, 6) {
				src = netip.AddrPortFrom(rec.Source, f.Port)
			}
		}
	}
	if chance(r, 20) {
		dst = netip.AddrPortFrom(pick(r, dst.Addr(), caller.Addr()), uint16(r.Uint32()))
	}
	var frame []byte
	if !dst.Addr().Is4() || !src.Addr().Is4() {
		frame = ipv6Frame(src, dst, payload)
	} else {
		p := packet{dmac: ownMAC, smac: callerMAC, tos: byte(r.Uint32()), id: uint16(r.Uint32()), ttl: byte(r.Uint32()), src: src, dst: dst, payload: payload, noChecksum: chance(r, 6)}
		if chance(r, 12) {
			p.fragment = pick[uint16](r, 0x2000, 0x0001, 0x4000, 0x2010, 0x8000)
		}
		if chance(r, 12) {
			p.options = make([]byte, 4*(1+r.IntN(10)))
		}
		if chance(r, 12) {
			p.vlans = make([]uint16, 1+r.IntN(3))
		}
		if chance(r, 4) {
			p.trailer = make([]byte, r.IntN(20))
			fillRandom(r, p.trailer)
		}
		frame = p.frame()
	}
	// Half of the frames are broken somewhere in the headers, or cut.
	if chance(r, 4) {
		at := r.IntN(min(len(frame), 64))
		frame[at] = pick(r, byte(r.Uint32()), frame[at]^1<<r.IntN(8), 0, 0xff)
	}
	if chance(r, 8) {
		frame = frame[:14+r.IntN(len(frame)-13)]
	}
	return frame
}

func fillRandom(r *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

// try puts a frame through both and compares everything.
func (d *differ) try(frame []byte) error {
	before, start := d.counters(), Now()
	verdict, out := d.run(slices.Clone(frame))
	end := Now()
	want := oracle.Decide(&d.tables, frame, ingress, end)

	if verdict != uint32(want.Verdict) {
		return fmt.Errorf("verdict %d, the oracle says %d, %s", verdict, want.Verdict, want.Reason)
	}
	if !bytes.Equal(out, want.Frame) {
		return fmt.Errorf("frame\n%x, the oracle says\n%x, %s", out, want.Frame, want.Reason)
	}
	grown := d.counted(before)
	for reason, c := range grown {
		if len(grown) != 1 || reason.String() != want.Reason || c.Packets != 1 || c.Bytes != want.Bytes {
			return fmt.Errorf("counted %v, the oracle says %s, %d bytes", grown, want.Reason, want.Bytes)
		}
	}
	if len(grown) == 0 {
		return fmt.Errorf("counted nothing, the oracle says %s", want.Reason)
	}
	if err := d.compareEvent(want); err != nil {
		return err
	}
	d.tables.Apply(want)
	return d.compareTables(start, end)
}

func (d *differ) compareEvent(want oracle.Decision) error {
	got, ok := d.event()
	if ok != (want.Event != nil) {
		return fmt.Errorf("event %v %+v, the oracle says %+v, %s", ok, got, want.Event, want.Reason)
	}
	if !ok {
		return nil
	}
	if got.Record != want.Event.Record || got.Generation != want.Event.Generation || got.Local != want.Event.Local || got.Remote != want.Event.Remote {
		return fmt.Errorf("event %+v, the oracle says %+v", got, want.Event)
	}
	return nil
}

func (d *differ) compareTables(start, end uint64) error {
	for i := range uint32(diffRecords) {
		if got, want := d.plane.ReadRecord(i), toPlane(d.tables.Records[i]); got != want {
			return fmt.Errorf("record %d\n%+v, the oracle says\n%+v", i, got, want)
		}
		got, want := d.plane.Flow(i), &d.tables.Flows[i]
		// The oracle was given the precise time of the end; the program read the coarse clock.
		for _, seen := range []struct {
			got  uint64
			want *uint64
		}{{got.FirstSeen, &want.FirstSeen}, {got.LastSeen, &want.LastSeen}} {
			if *seen.want == end && seen.got <= end && seen.got+coarse >= start {
				*seen.want = seen.got
			}
		}
		reason := ""
		if got.PuntReason != ReasonNone {
			reason = got.PuntReason.String()
		}
		is := oracle.Flow{
			Learnt: got.Learnt, Window: got.Window, Port: got.Port, Packets: got.Packets, Bytes: got.Bytes,
			FirstSeen: got.FirstSeen, LastSeen: got.LastSeen, Punted: got.Punted, PuntReason: reason,
		}
		if is != *want {
			return fmt.Errorf("flow %d\n%+v, the oracle says\n%+v", i, is, *want)
		}
	}
	return nil
}

// resetBudget lets events through: a test sends more than the program allows per second.
func (d *differ) resetBudget() {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.plane.objects.Budget.Put(uint32(0), make([]relayEventBudget, cpus)); err != nil {
		d.t.Fatal(err)
	}
}

// TestDifferential compares the program with the oracle on random tables and frames.
func TestDifferential(t *testing.T) {
	d := newDiffer(t)
	cases := 24_000
	if os.Getenv("TANDEM_LONG") != "" {
		cases = 400_000
	}
	seed := uint64(Now())
	r := rand.New(rand.NewPCG(seed, 0))
	seen := map[string]int{}
	for i := range cases {
		if i%16 == 0 {
			d.fill(r)
			d.resetBudget()
		}
		frame := d.frame(r)
		seen[oracle.Decide(&d.tables, frame, ingress, Now()).Reason]++
		if err := d.try(frame); err != nil {
			t.Fatalf("seed %d, case %d, frame\n%x\n%v", seed, i, frame, err)
		}
	}
	// A test that does not get everywhere says less than it seems.
	for reason := ReasonNone + 1; reason < NumReasons; reason++ {
		if seen[reason.String()] == 0 {
			t.Errorf("no case of %s in %d", reason, cases)
		}
	}
	t.Log(seen)
}

// FuzzDifferential compares the program with the oracle on frames of the fuzzer's choice and tables of its seed.
func FuzzDifferential(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	d := newDiffer(f)
	for i := range uint64(64) {
		f.Add(i, d.frame(r))
	}
	f.Fuzz(func(t *testing.T, seed uint64, frame []byte) {
		if len(frame) < 14 || len(frame) > 3000 {
			return
		}
		d.t = t
		enter(t, d.ns)
		d.fill(rand.New(rand.NewPCG(seed, 3)))
		d.resetBudget()
		if err := d.try(frame); err != nil {
			t.Fatal(err)
		}
		// The same once more: what was learnt counts now.
		if err := d.try(frame); err != nil {
			t.Fatal("second time:", err)
		}
	})
}
