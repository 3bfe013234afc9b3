package oracle

import (
	"encoding/binary"
	"net/netip"
)

const (
	typeIPv4 = 0x0800
	typeIPv6 = 0x86dd
	typeVLAN = 0x8100
	typeQinQ = 0x88a8
	udp      = 17
)

// datagram is what the rules need to know of a UDP packet.
type datagram struct {
	src, dst      netip.AddrPort
	ip, udp       int // where the headers start
	ipLength      int
	payload       []byte // of UDP
	special       string // why only the slow path can handle it
	laterFragment bool   // has no UDP header
	malformed     bool
}

// parse reads a frame, or says why it is left to the kernel.
func (p *datagram) parse(frame []byte) (reason string) {
	if len(frame) < 14 {
		return "pass_unreadable"
	}
	at := 14
	etherType := binary.BigEndian.Uint16(frame[12:])
	for tags := 0; tags < 2 && (etherType == typeVLAN || etherType == typeQinQ); tags++ {
		if len(frame) < at+4 {
			return "pass_unreadable"
		}
		etherType = binary.BigEndian.Uint16(frame[at+2:])
		at += 4
		p.special = "punt_vlan"
	}
	p.ip = at
	switch etherType {
	case typeIPv4:
		return p.parseIPv4(frame)
	case typeIPv6:
		return p.parseIPv6(frame)
	}
	return "pass_not_udp"
}

func (p *datagram) parseIPv4(frame []byte) string {
	h := frame[p.ip:]
	if len(h) < 20 || h[0]>>4 != 4 || h[0]&15 < 5 {
		return "pass_unreadable"
	}
	header := int(h[0]&15) * 4
	p.ipLength = int(binary.BigEndian.Uint16(h[2:]))
	if h[9] != udp {
		return "pass_not_udp"
	}
	src, dst := netip.AddrFrom4([4]byte(h[12:16])), netip.AddrFrom4([4]byte(h[16:20]))
	fragment := binary.BigEndian.Uint16(h[6:])
	p.src, p.dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	if p.special == "" && header > 20 {
		p.special = "punt_options"
	}
	if fragment&0x1fff != 0 {
		p.laterFragment = true
		return ""
	}
	first := fragment&0x2000 != 0
	if p.special == "" && first {
		p.special = "punt_fragment"
	}
	if p.ipLength < header+8 || len(h) < p.ipLength {
		p.malformed = true
	}
	return p.parseUDP(frame, p.ip+header, p.ipLength-header, first)
}

func (p *datagram) parseIPv6(frame []byte) string {
	h := frame[p.ip:]
	if len(h) < 40 {
		return "pass_unreadable"
	}
	length := int(binary.BigEndian.Uint16(h[4:]))
	if h[6] != udp {
		return "pass_not_udp"
	}
	src, dst := netip.AddrFrom16([16]byte(h[8:24])).Unmap(), netip.AddrFrom16([16]byte(h[24:40])).Unmap()
	p.src, p.dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	if p.special == "" {
		p.special = "punt_ipv6"
	}
	if length < 8 || len(h) < 40+length {
		p.malformed = true
	}
	return p.parseUDP(frame, p.ip+40, length, false)
}

// parseUDP reads the UDP header at a place, of an IP payload of a length. The first fragment of a packet holds less than its UDP length.
func (p *datagram) parseUDP(frame []byte, at, available int, first bool) string {
	if len(frame) < at+8 {
		return "pass_unreadable"
	}
	p.udp = at
	h := frame[at:]
	p.src = netip.AddrPortFrom(p.src.Addr(), binary.BigEndian.Uint16(h[0:]))
	p.dst = netip.AddrPortFrom(p.dst.Addr(), binary.BigEndian.Uint16(h[2:]))
	length := int(binary.BigEndian.Uint16(h[4:]))
	if length < 8 || length > available && !first {
		p.malformed = true
	}
	if !p.malformed {
		p.payload = h[8:min(length, len(h))]
	}
	return ""
}

// IsSTUN reports whether a UDP payload is STUN by its first bytes (RFC 7983, RFC 8489 section 5).
func IsSTUN(payload []byte) bool {
	return len(payload) >= 20 && payload[0] <= 3 && binary.BigEndian.Uint32(payload[4:]) == 0x2112a442
}

// IsRTP reports whether a UDP payload is RTP or RTCP by its first bytes and length (RFC 7983, RFC 5761 section 4). An endpoint that only
// RTCP belongs to takes any of version 2. What is too short for an SSRC is neither.
func IsRTP(payload []byte, rtcpOnly bool) bool {
	if len(payload) < 8 || payload[0]>>6 != 2 {
		return false
	}
	return rtcpOnly || payload[1] >= 192 && payload[1] <= 223 || len(payload) >= 12
}
