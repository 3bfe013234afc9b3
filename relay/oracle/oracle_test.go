package oracle_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/tandem-relay/tandem/relay/oracle"
)

var (
	media  = netip.MustParseAddr("192.0.2.1")
	caller = netip.MustParseAddrPort("198.51.100.10:40000")
	callee = netip.MustParseAddrPort("203.0.113.20:50000")
)

// tables hold one call, as the caller's side sees it: 20000 leads to the callee, record 3 leads back.
func tables() *oracle.Tables {
	return &oracle.Tables{
		Media: map[netip.Addr]map[uint16]uint32{media: {20000: 2, 20001: oracle.Empty}},
		Records: []oracle.Record{2: {
			Generation: 7, Action: oracle.Forward, Accept: oracle.AcceptAddr, CheckRTP: true, Window: 1, FromPort: 20002,
			Flow: 1, Peer: 3, NextHop: 1, Source: caller.Addr(), To: callee,
		}, 3: {To: netip.AddrPortFrom(caller.Addr(), 0)}},
		Flows:        make([]oracle.Flow, 2),
		NextHops:     []oracle.NextHop{1: {Ifindex: 5, DMAC: [6]byte{1}, SMAC: [6]byte{2}, MTU: 1500, From: media, Valid: true}},
		Devices:      map[uint32]bool{5: true},
		ForwardUntil: 100, OrphanAt: 100, AliveUntil: 100,
	}
}

// frame is an RTP packet of 12 bytes over IPv4; from, to and the checksums are given as they stand in RFC 791 and RFC 768.
func frame(src, dst netip.AddrPort) []byte {
	f := make([]byte, 14+20+8+12)
	f[12] = 8
	f[14], f[17], f[22], f[23] = 0x45, 40, 64, 17
	s, d := src.Addr().As4(), dst.Addr().As4()
	copy(f[26:], s[:])
	copy(f[30:], d[:])
	binary.BigEndian.PutUint16(f[34:], src.Port())
	binary.BigEndian.PutUint16(f[36:], dst.Port())
	f[39] = 20
	f[42] = 0x80
	fill(f)
	return f
}

// fill computes both checksums in full.
func fill(f []byte) {
	f[24], f[25], f[40], f[41] = 0, 0, 0, 0
	binary.BigEndian.PutUint16(f[24:], sum(f[14:34]))
	binary.BigEndian.PutUint16(f[40:], sum(slices.Concat(f[26:34], []byte{0, 17}, f[38:40], f[34:])))
}

func sum(b []byte) uint16 {
	var s uint32
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

func TestForward(t *testing.T) {
	in := frame(caller, netip.AddrPortFrom(media, 20000))
	want := frame(netip.AddrPortFrom(media, 20002), callee)
	want[0], want[6], want[22] = 1, 2, 63
	fill(want)

	before := slices.Clone(in)
	d := oracle.Decide(tables(), in, 9, 50)
	if !bytes.Equal(in, before) {
		t.Error("the frame that was given is changed")
	}
	if d.Verdict != oracle.Redirect || d.Reason != "forwarded_redirect" || d.Egress != 5 || d.Bytes != uint64(len(in)) {
		t.Errorf("%+v", d)
	}
	if !bytes.Equal(d.Frame, want) {
		t.Errorf("frame\n%x, want\n%x", d.Frame, want)
	}
	if want := (oracle.Flow{Learnt: true, Window: 1, Port: 40000, Packets: 1, Bytes: 12, FirstSeen: 50, LastSeen: 50}); d.Flow == nil || d.Flow.Flow != want || d.Flow.Position != 1 {
		t.Errorf("flow %+v, want %+v", d.Flow, want)
	}
	if d.ToPort == nil || *d.ToPort != (oracle.PortChange{Position: 3, Port: 40000}) {
		t.Errorf("port %+v", d.ToPort)
	}
	if d.Event == nil || *d.Event != (oracle.Learnt{Record: 2, Generation: 7, Local: netip.AddrPortFrom(media, 20000), Remote: caller}) {
		t.Errorf("event %+v", d.Event)
	}
	if d = oracle.Decide(tables(), in, 5, 50); d.Verdict != oracle.TX || d.Reason != "forwarded_tx" {
		t.Errorf("%+v", d)
	}
}

// TestOrder says which rule comes first where several apply.
func TestOrder(t *testing.T) {
	good := func() []byte { return frame(caller, netip.AddrPortFrom(media, 20000)) }
	for _, c := range []struct {
		name   string
		change func(*oracle.Tables, []byte)
		want   string
	}{
		{"good", func(*oracle.Tables, []byte) {}, "forwarded_redirect"},
		{"right before orphan", func(t *oracle.Tables, _ []byte) { t.ForwardUntil, t.OrphanAt = 50, 50 }, "no_right"},
		{"orphan before block", func(t *oracle.Tables, _ []byte) { t.OrphanAt, t.Records[2].Action = 50, oracle.Block }, "orphaned"},
		{"block before lengths", func(t *oracle.Tables, f []byte) { f[39], t.Records[2].Action = 99, oracle.Block }, "blocked"},
		{"lengths before source", func(t *oracle.Tables, f []byte) { f[39], t.Records[2].Source = 99, callee.Addr() }, "malformed"},
		{"source before punt", func(t *oracle.Tables, _ []byte) {
			t.Records[2].Action, t.Records[2].Source = oracle.Punt, callee.Addr()
		}, "source_mismatch"},
		{"punt before payload", func(t *oracle.Tables, f []byte) { f[42], t.Records[2].Action = 0, oracle.Punt }, "punt_action"},
		{"payload before learning", func(t *oracle.Tables, f []byte) { f[42], t.Records[2].Accept = 0, oracle.AcceptOpen }, "malformed_rtp"},
		{"learning before hold", func(t *oracle.Tables, _ []byte) {
			t.Records[2].Action, t.Records[2].Accept = oracle.Hold, oracle.AcceptOpen
		}, "punt_learning"},
		{"port before hold", func(t *oracle.Tables, _ []byte) {
			t.Records[2].Action, t.Flows[1] = oracle.Hold, oracle.Flow{Learnt: true, Window: 1, Port: 1}
		}, "source_mismatch"},
		{"hold before destination", func(t *oracle.Tables, _ []byte) { t.Records[2].Action, t.Records[2].To = oracle.Hold, netip.AddrPort{} }, "held"},
		{"destination before next hop", func(t *oracle.Tables, _ []byte) { t.Records[2].To, t.Records[2].NextHop = netip.AddrPort{}, 0 }, "no_destination"},
		{"next hop before TTL", func(t *oracle.Tables, f []byte) { t.Records[2].NextHop, f[22] = 0, 1 }, "punt_no_next_hop"},
		{"MTU before TTL", func(t *oracle.Tables, f []byte) { t.NextHops[1].MTU, f[22] = 39, 1 }, "punt_mtu"},
		{"TTL before egress", func(t *oracle.Tables, f []byte) { t.Devices, f[22] = nil, 1 }, "ttl_expired"},
		{"nobody to punt to", func(t *oracle.Tables, _ []byte) { t.Records[2].NextHop, t.AliveUntil = 0, 50 }, "no_daemon"},
		{"no session, whatever the rights", func(t *oracle.Tables, f []byte) { f[37], t.ForwardUntil = 0x21, 0 }, "no_session"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tables, f := tables(), good()
			c.change(tables, f)
			if got := oracle.Decide(tables, f, 9, 50).Reason; got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestApply(t *testing.T) {
	tb := tables()
	in := frame(caller, netip.AddrPortFrom(media, 20000))
	tb.Apply(oracle.Decide(tb, in, 9, 50))
	if tb.Records[3].To != caller || tb.Flows[1].Packets != 1 {
		t.Errorf("%+v %+v", tb.Records[3], tb.Flows[1])
	}
	tb.Apply(oracle.Decide(tb, in, 9, 60))
	if want := (oracle.Flow{Learnt: true, Window: 1, Port: 40000, Packets: 2, Bytes: 24, FirstSeen: 50, LastSeen: 60}); tb.Flows[1] != want {
		t.Errorf("%+v, want %+v", tb.Flows[1], want)
	}
}

func TestPayload(t *testing.T) {
	stun := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...)
	for _, c := range []struct {
		name        string
		payload     []byte
		rtcpOnly    bool
		rtp, isSTUN bool
	}{
		{"nothing", nil, false, false, false},
		{"RTP", append([]byte{0x80, 0}, make([]byte, 10)...), false, true, false},
		{"RTP of 11 bytes", append([]byte{0x80, 0}, make([]byte, 9)...), false, false, false},
		{"version 1", append([]byte{0x40, 0}, make([]byte, 10)...), false, false, false},
		{"version 3", append([]byte{0xc0, 0}, make([]byte, 10)...), false, false, false},
		{"RTCP", append([]byte{0x80, 201}, make([]byte, 6)...), false, true, false},
		{"RTCP of 7 bytes", append([]byte{0x80, 201}, make([]byte, 5)...), true, false, false},
		{"type 191", append([]byte{0x80, 191}, make([]byte, 6)...), false, false, false},
		{"type 191 where only RTCP is", append([]byte{0x80, 191}, make([]byte, 6)...), true, true, false},
		{"type 224", append([]byte{0x80, 224}, make([]byte, 6)...), false, false, false},
		{"STUN", stun, false, false, true},
		{"STUN of 19 bytes", stun[:19], false, false, false},
		{"first byte 4", append([]byte{4}, stun[1:]...), false, false, false},
	} {
		if got := oracle.IsRTP(c.payload, c.rtcpOnly); got != c.rtp {
			t.Errorf("%s: RTP %v, want %v", c.name, got, c.rtp)
		}
		if got := oracle.IsSTUN(c.payload); got != c.isSTUN {
			t.Errorf("%s: STUN %v, want %v", c.name, got, c.isSTUN)
		}
	}
}

// FuzzDecide sees that what is forwarded has right checksums if it came with them, and that nothing else is touched.
func FuzzDecide(f *testing.F) {
	f.Add(frame(caller, netip.AddrPortFrom(media, 20000)))
	f.Add(frame(caller, netip.AddrPortFrom(media, 20001)))
	f.Fuzz(func(t *testing.T, in []byte) {
		d := oracle.Decide(tables(), slices.Clone(in), 9, 50)
		if d.Verdict != oracle.Redirect {
			if !bytes.Equal(d.Frame, in) || d.Verdict == oracle.TX {
				t.Errorf("%s changes the frame", d.Reason)
			}
			return
		}
		if len(d.Frame) != len(in) || !bytes.Equal(d.Frame[42:], in[42:]) {
			t.Error("the payload changes")
		}
		if sum(in[14:34]) == 0 && sum(d.Frame[14:34]) != 0 {
			t.Errorf("IP checksum %x", d.Frame[24:26])
		}
		if none := in[40] == 0 && in[41] == 0; none != (d.Frame[40] == 0 && d.Frame[41] == 0) {
			t.Errorf("UDP checksum %x from %x", d.Frame[40:42], in[40:42])
		}
	})
}
