package bpf

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

const (
	xdpDrop     = 1
	xdpPass     = 2
	xdpTX       = 3
	xdpRedirect = 4
)

// TestProgram sends the good packet with one mutation per case, of the packet or of the scene.
func TestProgram(t *testing.T) {
	r := newRig(t, 64)
	type mutation struct {
		name, why string
		scene     func(*Plane)        // what is different about the tables
		packet    func(*packet)       // what is different about the packet
		frame     func([]byte) []byte // what is different about its bytes
		verdict   uint32              // of XDP
		reason    Reason              //
		out       func() packet       // what leaves; nil: the frame as it came
		flow      func(*FlowState)    // how the caller's flow differs from an untouched one; FirstSeen and LastSeen 1 stand for now
		learnt    bool                // the event of learning came, and the callee's record sends to the caller
	}
	record := func(change func(*Record)) func(*Plane) {
		return func(p *Plane) {
			rec := sceneRecord()
			change(&rec)
			p.WriteRecord(callerRecord, rec)
		}
	}
	forwarded := func(f *FlowState) {
		*f = FlowState{Learnt: true, Window: 1, Port: 40000, Packets: 1, Bytes: 172, FirstSeen: 1, LastSeen: 1}
	}
	learntOnly := func(f *FlowState) {
		*f = FlowState{Learnt: true, Window: 1, Port: 40000, FirstSeen: 1, LastSeen: 1}
	}
	punted := func(reason Reason) func(*FlowState) {
		return func(f *FlowState) { f.Punted, f.PuntReason = 1, reason }
	}
	puntedLater := func(reason Reason) func(*FlowState) {
		return func(f *FlowState) {
			learntOnly(f)
			f.Punted, f.PuntReason = 1, reason
		}
	}
	put16 := func(at int, v uint16) func([]byte) []byte {
		return func(f []byte) []byte { binary.BigEndian.PutUint16(f[at:], v); return f }
	}
	cases := []mutation{
		{name: "good", why: "forwarded, learnt and counted", verdict: xdpRedirect, reason: ReasonForwardedRedirect, out: goodResult, flow: forwarded, learnt: true},
		{name: "same interface", why: "no redirect needed", scene: func(p *Plane) {
			p.WriteNextHop(calleeHop, NextHop{Ifindex: ingress, DMAC: hopMAC, SMAC: ownMAC, MTU: 1500, From: mediaAddr, Valid: true})
		}, verdict: xdpTX, reason: ReasonForwardedTX, out: goodResult, flow: forwarded, learnt: true},
		{name: "no checksum", why: "a UDP checksum of 0 stays 0", packet: func(p *packet) { p.noChecksum = true }, verdict: xdpRedirect, reason: ReasonForwardedRedirect,
			out: func() packet { p := goodResult(); p.noChecksum = true; return p }, flow: forwarded, learnt: true},
		{name: "checksum becomes 0", why: "RFC 768: it is sent as ffff", packet: zeroSum, verdict: xdpRedirect, reason: ReasonForwardedRedirect,
			out: func() packet { p := goodResult(); zeroSum(&p); return p }, flow: forwarded, learnt: true},
		{name: "padding", why: "a short frame is padded, and the padding stays", packet: func(p *packet) { p.payload, p.trailer = rtp(1), []byte{9, 8, 7, 6, 5} }, verdict: xdpRedirect,
			reason: ReasonForwardedRedirect, out: func() packet { p := goodResult(); p.payload, p.trailer = rtp(1), []byte{9, 8, 7, 6, 5}; return p },
			flow: func(f *FlowState) { forwarded(f); f.Bytes = 13 }, learnt: true},
		{name: "odd length", why: "checksums of odd payloads", packet: func(p *packet) { p.payload = rtp(33) }, verdict: xdpRedirect, reason: ReasonForwardedRedirect,
			out: func() packet { p := goodResult(); p.payload = rtp(33); return p }, flow: func(f *FlowState) { forwarded(f); f.Bytes = 45 }, learnt: true},
		{name: "TTL 2", why: "the last that may be forwarded", packet: func(p *packet) { p.ttl = 2 }, verdict: xdpRedirect, reason: ReasonForwardedRedirect,
			out: func() packet { p := goodResult(); p.ttl = 1; return p }, flow: forwarded, learnt: true},
		{name: "TTL 1", why: "would be 0", packet: func(p *packet) { p.ttl = 1 }, verdict: xdpDrop, reason: ReasonTTLExpired, flow: learntOnly, learnt: true},
		{name: "TTL 0", why: "must not wrap to 255", packet: func(p *packet) { p.ttl = 0 }, verdict: xdpDrop, reason: ReasonTTLExpired, flow: learntOnly, learnt: true},
		{name: "ECN", why: "DSCP and ECN are kept", packet: func(p *packet) { p.tos = 0xbb }, verdict: xdpRedirect, reason: ReasonForwardedRedirect,
			out: func() packet { p := goodResult(); p.tos = 0xbb; return p }, flow: forwarded, learnt: true},

		{name: "ARP", why: "not IP", frame: put16(12, 0x0806), verdict: xdpPass, reason: ReasonPassNotUDP},
		{name: "TCP", why: "not UDP", frame: func(f []byte) []byte { f[23] = 6; return f }, verdict: xdpPass, reason: ReasonPassNotUDP},
		{name: "IPv4 of version 5", why: "unknown to us", frame: func(f []byte) []byte { f[14] = 0x55; return f }, verdict: xdpPass, reason: ReasonPassUnreadable},
		{name: "header of 16 bytes", why: "the smallest is 20", frame: func(f []byte) []byte { f[14] = 0x44; return f }, verdict: xdpPass, reason: ReasonPassUnreadable},
		{name: "cut in the IP header", why: "cannot be read", frame: func(f []byte) []byte { return f[:33] }, verdict: xdpPass, reason: ReasonPassUnreadable},
		{name: "cut in the UDP header", why: "cannot be read", frame: func(f []byte) []byte { return f[:41] }, verdict: xdpPass, reason: ReasonPassUnreadable},
		{name: "other address", why: "not ours", packet: func(p *packet) { p.dst = netip.MustParseAddrPort("192.0.2.9:20000") }, verdict: xdpPass, reason: ReasonPassOtherAddress},
		{name: "outside the range", why: "SIP, for example", packet: func(p *packet) { p.dst = netip.AddrPortFrom(mediaAddr, 5060) }, verdict: xdpPass, reason: ReasonPassOutsideRange},
		{name: "above the range", why: "the range ends there", packet: func(p *packet) { p.dst = netip.AddrPortFrom(mediaAddr, 20010) }, verdict: xdpPass, reason: ReasonPassOutsideRange},
		{name: "no session", why: "in the range", packet: func(p *packet) { p.dst = netip.AddrPortFrom(mediaAddr, 20009) }, verdict: xdpDrop, reason: ReasonNoSession},

		{name: "no right", why: "the deadline has passed", scene: func(p *Plane) { p.SetRole(Role{ForwardUntil: 1}) }, verdict: xdpDrop, reason: ReasonNoRight},
		{name: "orphaned", why: "the daemon is long gone", scene: func(p *Plane) { p.SetDaemon(1, Never) }, verdict: xdpDrop, reason: ReasonOrphaned},
		{name: "daemon away", why: "what XDP can do alone goes on", scene: func(p *Plane) { p.SetDaemon(Never, 1) }, verdict: xdpRedirect, reason: ReasonForwardedRedirect, out: goodResult, flow: forwarded, learnt: true},
		{name: "daemon away, STUN", why: "nobody would take it", scene: func(p *Plane) { p.SetDaemon(Never, 1) }, packet: func(p *packet) { p.payload = stun() }, verdict: xdpDrop, reason: ReasonNoDaemon},
		{name: "blocked", why: "by the record", scene: record(func(r *Record) { r.Action = ActionBlock }), verdict: xdpDrop, reason: ReasonBlocked},
		{name: "held", why: "dropped, but a sign of life", scene: record(func(r *Record) { r.Action = ActionHold }), verdict: xdpDrop, reason: ReasonHeld, flow: learntOnly, learnt: true},
		{name: "punt", why: "the session has no fast path", scene: record(func(r *Record) { r.Action = ActionPunt }), verdict: xdpPass, reason: ReasonPuntAction, flow: punted(ReasonPuntAction)},
		{name: "action 0", why: "an empty record", scene: record(func(r *Record) { *r = Record{} }), verdict: xdpDrop, reason: ReasonInvalidRecord},
		{name: "action 5", why: "unknown", scene: record(func(r *Record) { r.Action = 5 }), verdict: xdpDrop, reason: ReasonInvalidRecord},
		{name: "flow beyond the pool", why: "bounds", scene: record(func(r *Record) { r.Flow = 64 }), verdict: xdpDrop, reason: ReasonInvalidRecord},
		{name: "next hop beyond the pool", why: "bounds", scene: record(func(r *Record) { r.NextHop = 4096 }), verdict: xdpPass, reason: ReasonPuntNoNextHop, flow: puntedLater(ReasonPuntNoNextHop), learnt: true},

		{name: "UDP longer than IP", why: "lengths contradict each other", frame: put16(38, 181), verdict: xdpDrop, reason: ReasonMalformed},
		{name: "UDP of 7 bytes", why: "shorter than its header", frame: put16(38, 7), verdict: xdpDrop, reason: ReasonMalformed},
		{name: "IP longer than the frame", why: "cut off", frame: func(f []byte) []byte { return f[:len(f)-1] }, verdict: xdpDrop, reason: ReasonMalformed},
		{name: "IP of 27 bytes", why: "no room for UDP", frame: put16(16, 27), verdict: xdpDrop, reason: ReasonMalformed},

		{name: "other source address", why: "spoofed", packet: func(p *packet) { p.src = netip.MustParseAddrPort("198.51.100.11:40000") }, verdict: xdpDrop, reason: ReasonSourceMismatch},
		{name: "accept nothing", why: "nobody may send here", scene: record(func(r *Record) { r.Accept = AcceptNone }), verdict: xdpDrop, reason: ReasonSourceMismatch},
		{name: "latched to another port", why: "the first one wins", scene: func(p *Plane) { p.SetLatch(callerFlow, 1, 40002) }, verdict: xdpDrop, reason: ReasonSourceMismatch,
			flow: func(f *FlowState) { f.Learnt, f.Window, f.Port = true, 1, 40002 }},
		{name: "latched to this port", why: "nothing to learn", scene: func(p *Plane) { p.SetLatch(callerFlow, 1, 40000) }, verdict: xdpRedirect, reason: ReasonForwardedRedirect, out: goodResult, flow: forwarded},
		{name: "latched in an older window", why: "does not count any more", scene: func(p *Plane) { p.SetLatch(callerFlow, 0, 40002) }, verdict: xdpRedirect, reason: ReasonForwardedRedirect, out: goodResult, flow: forwarded, learnt: true},
		{name: "accept a set", why: "the slow path decides", scene: record(func(r *Record) { r.Accept = AcceptOpen }), verdict: xdpPass, reason: ReasonPuntLearning, flow: punted(ReasonPuntLearning)},

		{name: "STUN", why: "answered by the slow path", packet: func(p *packet) { p.payload = stun() }, verdict: xdpPass, reason: ReasonPuntSTUN, flow: punted(ReasonPuntSTUN)},
		{name: "STUN from a stranger", why: "never punted", packet: func(p *packet) {
			p.payload, p.src = stun(), netip.MustParseAddrPort("198.51.100.11:40000")
		}, verdict: xdpDrop, reason: ReasonSourceMismatch},
		{name: "STUN without the cookie", why: "is not STUN", packet: func(p *packet) { p.payload = stun(); p.payload[4] = 0 }, verdict: xdpDrop, reason: ReasonMalformedRTP},
		{name: "STUN of 19 bytes", why: "is not STUN", packet: func(p *packet) { p.payload = stun()[:19] }, verdict: xdpDrop, reason: ReasonMalformedRTP},
		{name: "DTLS", why: "neither RTP nor RTCP", packet: func(p *packet) { p.payload[0] = 22 }, verdict: xdpDrop, reason: ReasonMalformedRTP},
		{name: "RTP of 11 bytes", why: "shorter than its header", packet: func(p *packet) { p.payload = rtp(0)[:11] }, verdict: xdpDrop, reason: ReasonMalformedRTP},
		{name: "no payload", why: "nothing to look at", packet: func(p *packet) { p.payload = nil }, verdict: xdpDrop, reason: ReasonMalformedRTP},
		{name: "muxed RTCP of 8 bytes", why: "RFC 5761", packet: muxed, verdict: xdpRedirect, reason: ReasonForwardedRedirect,
			out: func() packet { p := goodResult(); muxed(&p); return p }, flow: func(f *FlowState) { forwarded(f); f.Bytes = 8 }, learnt: true},
		{name: "opaque UDP", why: "T.38 is not RTP", scene: record(func(r *Record) { r.Flags = 0 }), packet: func(p *packet) { p.payload = []byte{1} }, verdict: xdpRedirect, reason: ReasonForwardedRedirect,
			out: func() packet { p := goodResult(); p.payload = []byte{1}; return p }, flow: func(f *FlowState) { forwarded(f); f.Bytes = 1 }, learnt: true},

		{name: "no destination port", why: "nobody learnt yet", scene: record(func(r *Record) { r.To = netip.AddrPortFrom(callee.Addr(), 0) }), verdict: xdpDrop, reason: ReasonNoDestination, flow: learntOnly, learnt: true},
		{name: "no destination address", why: "not known", scene: record(func(r *Record) { r.To = netip.AddrPort{} }), verdict: xdpDrop, reason: ReasonNoDestination, flow: learntOnly, learnt: true},
		{name: "IPv6 destination", why: "translated by the slow path", scene: record(func(r *Record) { r.To = netip.MustParseAddrPort("[2001:db8::1]:5") }), verdict: xdpPass, reason: ReasonPuntIPv6, flow: puntedLater(ReasonPuntIPv6), learnt: true},
		{name: "no next hop", why: "not resolved", scene: record(func(r *Record) { r.NextHop = 0 }), verdict: xdpPass, reason: ReasonPuntNoNextHop, flow: puntedLater(ReasonPuntNoNextHop), learnt: true},
		{name: "invalid next hop", why: "the neighbour is gone", scene: func(p *Plane) { p.WriteNextHop(calleeHop, NextHop{}) }, verdict: xdpPass, reason: ReasonPuntNoNextHop, flow: puntedLater(ReasonPuntNoNextHop), learnt: true},
		{name: "egress not allowed", why: "it did not prove to send", scene: func(p *Plane) {
			p.WriteNextHop(calleeHop, NextHop{Ifindex: 77, DMAC: hopMAC, SMAC: ownMAC, MTU: 1500, From: mediaAddr, Valid: true})
		}, verdict: xdpPass, reason: ReasonPuntNoNextHop, flow: puntedLater(ReasonPuntNoNextHop), learnt: true},
		{name: "as large as the MTU", why: "fits", scene: mtu(200), verdict: xdpRedirect, reason: ReasonForwardedRedirect, out: goodResult, flow: forwarded, learnt: true},
		{name: "larger than the MTU", why: "the kernel fragments", scene: mtu(199), verdict: xdpPass, reason: ReasonPuntMTU, flow: puntedLater(ReasonPuntMTU), learnt: true},

		{name: "first fragment", why: "reassembled by the kernel", packet: func(p *packet) { p.fragment = 0x2000 }, verdict: xdpPass, reason: ReasonPuntFragment, flow: punted(ReasonPuntFragment)},
		{name: "first fragment, UDP longer", why: "as it is with fragments", packet: func(p *packet) { p.fragment = 0x2000 }, frame: put16(38, 900), verdict: xdpPass, reason: ReasonPuntFragment, flow: punted(ReasonPuntFragment)},
		{name: "first fragment from a stranger", why: "spoofed", packet: func(p *packet) { p.fragment, p.src = 0x2000, callee }, verdict: xdpDrop, reason: ReasonSourceMismatch},
		{name: "later fragment", why: "has no ports", packet: func(p *packet) { p.fragment = 0x0010 }, verdict: xdpPass, reason: ReasonPuntFragment},
		{name: "later fragment for another address", why: "not ours", packet: func(p *packet) { p.fragment, p.dst = 0x0010, callee }, verdict: xdpPass, reason: ReasonPassOtherAddress},
		{name: "fragment outside the range", why: "large SIP", packet: func(p *packet) { p.fragment, p.dst = 0x2000, netip.AddrPortFrom(mediaAddr, 5060) }, verdict: xdpPass, reason: ReasonPassOutsideRange},
		{name: "options", why: "relayed by the slow path", packet: func(p *packet) { p.options = []byte{1, 1, 1, 0} }, verdict: xdpPass, reason: ReasonPuntOptions, flow: punted(ReasonPuntOptions)},
		{name: "options from a stranger", why: "spoofed", packet: func(p *packet) { p.options, p.src = []byte{1, 1, 1, 0}, callee }, verdict: xdpDrop, reason: ReasonSourceMismatch},
		{name: "options, no session", why: "dropped like any other", packet: func(p *packet) { p.options, p.dst = []byte{1, 1, 1, 0}, netip.AddrPortFrom(mediaAddr, 20004) }, verdict: xdpDrop, reason: ReasonNoSession},
		{name: "VLAN", why: "belongs to another device", packet: func(p *packet) { p.vlans = []uint16{5} }, verdict: xdpPass, reason: ReasonPuntVLAN, flow: punted(ReasonPuntVLAN)},
		{name: "two VLANs", why: "QinQ", packet: func(p *packet) { p.vlans = []uint16{5, 6} }, verdict: xdpPass, reason: ReasonPuntVLAN, flow: punted(ReasonPuntVLAN)},
		{name: "three VLANs", why: "not looked into", packet: func(p *packet) { p.vlans = []uint16{5, 6, 7} }, verdict: xdpPass, reason: ReasonPassNotUDP},
		{name: "VLAN, no session", why: "dropped like any other", packet: func(p *packet) { p.vlans, p.dst = []uint16{5}, netip.AddrPortFrom(mediaAddr, 20004) }, verdict: xdpDrop, reason: ReasonNoSession},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r.t = t
			r.plane.SetRole(Role{ForwardUntil: Never})
			r.plane.SetDaemon(Never, Never)
			scene(r)
			if c.scene != nil {
				c.scene(r.plane)
			}
			p := goodPacket()
			if c.packet != nil {
				c.packet(&p)
			}
			frame := p.frame()
			if c.frame != nil {
				frame = c.frame(frame)
			}
			want := frame
			if c.out != nil {
				want = c.out().frame()
			}
			before, flow, start := r.counters(), r.plane.Flow(callerFlow), Now()
			verdict, got := r.run(bytes.Clone(frame))
			if verdict != c.verdict {
				t.Errorf("verdict %d, want %d: %s", verdict, c.verdict, c.why)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("frame\n%x, want\n%x", got, want)
			}
			if grown := r.counted(before); len(grown) != 1 || grown[c.reason].Packets != 1 {
				t.Errorf("counted %v, want one %s: %s", grown, c.reason, c.why)
			} else if got := grown[c.reason].Bytes; got != uint64(len(frame)) {
				t.Errorf("counted %d bytes, want %d", got, len(frame))
			}
			if c.flow != nil {
				c.flow(&flow)
			}
			checkFlow(t, r.plane.Flow(callerFlow), flow, start)
			checkLearnt(t, r, c.learnt)
		})
	}
}

// zeroSum makes the packet that leaves have a UDP checksum of 0 by two bytes of payload. They are the same on the way in.
func zeroSum(p *packet) {
	probe := goodResult()
	probe.payload = rtp(160)
	probe.payload[20], probe.payload[21] = 0, 0
	u := probe.udp()
	// Adding the checksum itself to the words makes their sum ffff.
	p.payload = rtp(160)
	copy(p.payload[20:22], u[6:8])
}

func muxed(p *packet) { p.payload = []byte{0x80, 201, 0, 1, 1, 2, 3, 4} }

func mtu(n uint32) func(*Plane) {
	return func(p *Plane) {
		hop := p.ReadNextHop(calleeHop)
		hop.MTU = n
		p.WriteNextHop(calleeHop, hop)
	}
}

// coarse is more than the coarse clock may lag behind.
const coarse = 50_000_000

func checkFlow(t *testing.T, got, want FlowState, start uint64) {
	t.Helper()
	for _, seen := range []struct {
		name      string
		got, want *uint64
	}{{"first", &got.FirstSeen, &want.FirstSeen}, {"last", &got.LastSeen, &want.LastSeen}} {
		if *seen.want != 1 {
			continue
		}
		if *seen.got+coarse < start || *seen.got > Now() {
			t.Errorf("%s seen at %d, want %d to %d", seen.name, *seen.got, start-coarse, Now())
		}
		*seen.got = 1
	}
	if got != want {
		t.Errorf("flow %+v, want %+v", got, want)
	}
}

func checkLearnt(t *testing.T, r *rig, want bool) {
	t.Helper()
	e, ok := r.event()
	if ok != want {
		t.Errorf("event %v %+v, want %v", ok, e, want)
	}
	to := netip.AddrPortFrom(caller.Addr(), 0)
	if want {
		to = caller
		wanted := Event{Kind: EventLearnt, Record: callerRecord, Generation: 7, Local: callerSide, Remote: caller, Time: e.Time}
		if rec := r.plane.ReadRecord(callerRecord); rec.Generation != 7 {
			wanted.Generation = rec.Generation
		}
		if e != wanted {
			t.Errorf("event %+v, want %+v", e, wanted)
		}
	}
	if got := r.plane.ReadRecord(calleeRecord).To; got != to {
		t.Errorf("the callee's record sends to %s, want %s", got, to)
	}
}

// TestProgramIPv6 sees that IPv6 to a media address is punted, and dropped where IPv4 would be.
func TestProgramIPv6(t *testing.T) {
	r := newRig(t, 64)
	media := netip.MustParseAddr("2001:db8::1")
	source := netip.MustParseAddrPort("[2001:db8::10]:40000")
	if err := r.plane.OpenMedia(media, PortRange{20000, 20001}); err != nil {
		t.Fatal(err)
	}
	r.plane.WriteRecord(2, Record{Action: ActionForward, Accept: AcceptAddr, Source: source.Addr(), Flow: 2})
	if err := r.plane.SetIndex(netip.AddrPortFrom(media, 20000), 2); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		src, dst netip.AddrPort
		change   func([]byte)
		verdict  uint32
		reason   Reason
	}{
		{"session", source, netip.AddrPortFrom(media, 20000), nil, xdpPass, ReasonPuntIPv6},
		{"stranger", netip.AddrPortFrom(media, 1), netip.AddrPortFrom(media, 20000), nil, xdpDrop, ReasonSourceMismatch},
		{"no session", source, netip.AddrPortFrom(media, 20001), nil, xdpDrop, ReasonNoSession},
		{"outside", source, netip.AddrPortFrom(media, 5060), nil, xdpPass, ReasonPassOutsideRange},
		{"other address", source, source, nil, xdpPass, ReasonPassOtherAddress},
		{"too long", source, netip.AddrPortFrom(media, 20000), func(f []byte) { f[19] = 200 }, xdpDrop, ReasonMalformed},
		{"extension header", source, netip.AddrPortFrom(media, 20000), func(f []byte) { f[20] = 60 }, xdpPass, ReasonPassNotUDP},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.t = t
			frame := ipv6Frame(c.src, c.dst, rtp(20))
			if c.change != nil {
				c.change(frame)
			}
			before := r.counters()
			verdict, out := r.run(bytes.Clone(frame))
			if verdict != c.verdict || !bytes.Equal(out, frame) {
				t.Errorf("verdict %d, want %d", verdict, c.verdict)
			}
			if grown := r.counted(before); len(grown) != 1 || grown[c.reason].Packets != 1 {
				t.Errorf("counted %v, want one %s", grown, c.reason)
			}
		})
	}
}
