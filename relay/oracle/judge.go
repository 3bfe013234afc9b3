package oracle

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// judgement is one decision in the making.
type judgement struct {
	*Tables
	now     uint64
	ingress uint32
	out     *Decision

	p        datagram
	position uint32 // of the record
	record   Record
	flow     Flow
}

func (j *judgement) judge(frame []byte) string {
	if reason := j.p.parse(frame); reason != "" {
		return reason
	}
	index, ok := j.Media[j.p.dst.Addr()]
	if !ok {
		return "pass_other_address"
	}
	if j.p.laterFragment {
		return "punt_fragment"
	}
	switch j.position = index[j.p.dst.Port()]; j.position {
	case Outside:
		return "pass_outside_range"
	case Empty:
		return "no_session"
	}
	if uint64(j.position) >= uint64(len(j.Records)) {
		return "invalid_record"
	}
	j.record = j.Records[j.position]
	if uint64(j.record.Flow) >= uint64(len(j.Flows)) {
		return "invalid_record"
	}
	j.flow = j.Flows[j.record.Flow]

	switch {
	case j.now >= j.ForwardUntil:
		return "no_right"
	case j.now >= j.OrphanAt:
		return "orphaned"
	case j.record.Action == Block:
		return "blocked"
	case j.record.Action < Forward || j.record.Action > Punt:
		return "invalid_record"
	case j.p.malformed:
		return "malformed"
	}
	if reason := j.accept(); reason != "" {
		return reason
	}
	if j.flow.FirstSeen == 0 {
		j.flow.FirstSeen = j.now
	}
	j.flow.LastSeen = j.now
	j.keepFlow()
	if j.record.Action == Hold {
		return "held"
	}
	return j.send(frame)
}

func (j *judgement) keepFlow() {
	j.out.Flow = &FlowChange{Position: j.record.Flow, Flow: j.flow}
}

// punt gives the packet to the slow path as long as somebody lives there.
func (j *judgement) punt(reason string) string {
	if j.now >= j.AliveUntil {
		return "no_daemon"
	}
	j.flow.Punted++
	j.flow.PuntReason = reason
	j.keepFlow()
	return reason
}

// accept says why the packet does not count as the party's media, or nothing.
func (j *judgement) accept() string {
	open := j.record.Accept == AcceptOpen
	if !open && (j.record.Accept != AcceptAddr || !sameAddress(j.p.src.Addr(), j.record.Source)) {
		return "source_mismatch"
	}
	if j.p.special != "" {
		return j.punt(j.p.special)
	}
	if j.record.Action == Punt {
		return j.punt("punt_action")
	}
	if IsSTUN(j.p.payload) {
		return j.punt("punt_stun")
	}
	if j.record.CheckRTP && !IsRTP(j.p.payload, j.record.RTCP) {
		return "malformed_rtp"
	}
	if open {
		return j.punt("punt_learning")
	}
	if j.flow.Learnt && j.flow.Window == j.record.Window {
		if j.flow.Port != j.p.src.Port() {
			return "source_mismatch"
		}
		return ""
	}
	j.learn()
	return ""
}

func (j *judgement) learn() {
	j.flow.Learnt, j.flow.Window, j.flow.Port = true, j.record.Window, j.p.src.Port()
	j.keepFlow()
	j.out.Event = &Learnt{Record: j.position, Generation: j.record.Generation, Local: j.p.dst, Remote: j.p.src}
	peer := j.record.Peer
	if peer < FirstRecord || uint64(peer) >= uint64(len(j.Records)) || !sameAddress(j.Records[peer].To.Addr(), j.p.src.Addr()) {
		return
	}
	j.out.ToPort = &PortChange{Position: peer, Port: j.p.src.Port()}
	if peer == j.position {
		j.record.To = netip.AddrPortFrom(j.record.To.Addr(), j.p.src.Port())
	}
}

// sameAddress takes the zero Addr for ::, as the maps do.
func sameAddress(a, b netip.Addr) bool { return unset(a) && unset(b) || a == b }

func unset(a netip.Addr) bool { return !a.IsValid() || a == netip.IPv6Unspecified() }

func (j *judgement) send(frame []byte) string {
	to := j.record.To
	if to.Port() == 0 || unset(to.Addr()) {
		return "no_destination"
	}
	if !to.Addr().Is4() {
		return j.punt("punt_ipv6")
	}
	if j.record.NextHop == 0 || uint64(j.record.NextHop) >= uint64(len(j.NextHops)) {
		return j.punt("punt_no_next_hop")
	}
	hop := j.NextHops[j.record.NextHop]
	if !hop.Valid {
		return j.punt("punt_no_next_hop")
	}
	if j.p.ipLength > int(hop.MTU) {
		return j.punt("punt_mtu")
	}
	if frame[j.p.ip+8] <= 1 {
		return "ttl_expired"
	}
	reason := "forwarded_tx"
	if hop.Ifindex != j.ingress {
		if !j.Devices[hop.Ifindex] {
			return j.punt("punt_no_next_hop")
		}
		reason = "forwarded_redirect"
		j.out.Egress = hop.Ifindex
	}
	j.out.Frame = j.rewritten(frame, hop)
	j.flow.Packets++
	j.flow.Bytes += uint64(len(j.p.payload))
	j.keepFlow()
	return reason
}

// rewritten is the frame as it leaves. What lies behind the IP packet stays.
func (j *judgement) rewritten(frame []byte, hop NextHop) []byte {
	out := slices.Clone(frame)
	copy(out[0:6], hop.DMAC[:])
	copy(out[6:12], hop.SMAC[:])
	ip, udp := out[j.p.ip:], out[j.p.udp:]
	was := slices.Clone(ip[:20])
	wasPorts := slices.Clone(udp[:4])

	ip[8]--
	from, to := hop.From.As4(), j.record.To.Addr().As4()
	copy(ip[12:16], from[:])
	copy(ip[16:20], to[:])
	binary.BigEndian.PutUint16(udp[0:], j.record.FromPort)
	binary.BigEndian.PutUint16(udp[2:], j.record.To.Port())

	// RFC 1624, equation 3, word by word. A checksum that was wrong stays wrong.
	sum := updated(binary.BigEndian.Uint16(ip[10:]), was[8:10], ip[8:10], was[12:20], ip[12:20])
	binary.BigEndian.PutUint16(ip[10:], sum)
	if sum := binary.BigEndian.Uint16(udp[6:]); sum != 0 {
		sum = updated(sum, was[12:20], ip[12:20], wasPorts, udp[:4])
		if sum == 0 {
			sum = 0xffff // RFC 768: 0 would mean none
		}
		binary.BigEndian.PutUint16(udp[6:], sum)
	}
	return out
}

// updated is the checksum after words changed, given as pairs of before and after.
func updated(checksum uint16, pairs ...[]byte) uint16 {
	sum := uint32(^checksum)
	for i := 0; i < len(pairs); i += 2 {
		before, after := pairs[i], pairs[i+1]
		for k := 0; k < len(before); k += 2 {
			sum += uint32(^binary.BigEndian.Uint16(before[k:])) + uint32(binary.BigEndian.Uint16(after[k:]))
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
