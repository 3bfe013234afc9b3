package bpf

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// packet describes an Ethernet frame with a UDP packet over IPv4. Its checksums are computed in full.
type packet struct {
	dmac, smac [6]byte
	vlans      []uint16
	tos        byte
	id         uint16
	fragment   uint16 // flags and offset
	ttl        byte
	options    []byte
	src, dst   netip.AddrPort
	payload    []byte
	noChecksum bool
	trailer    []byte // Ethernet padding
}

func (p packet) frame() []byte {
	var f []byte
	f = append(f, p.dmac[:]...)
	f = append(f, p.smac[:]...)
	for _, id := range p.vlans {
		f = binary.BigEndian.AppendUint16(f, 0x8100)
		f = binary.BigEndian.AppendUint16(f, id)
	}
	f = binary.BigEndian.AppendUint16(f, 0x0800)
	f = append(f, p.ip()...)
	return append(f, p.trailer...)
}

func (p packet) ip() []byte {
	header := 20 + len(p.options)
	h := make([]byte, 20, header)
	h[0] = 0x40 | byte(header/4)
	h[1] = p.tos
	binary.BigEndian.PutUint16(h[2:], uint16(header+8+len(p.payload)))
	binary.BigEndian.PutUint16(h[4:], p.id)
	binary.BigEndian.PutUint16(h[6:], p.fragment)
	h[8] = p.ttl
	h[9] = 17
	src, dst := p.src.Addr().As4(), p.dst.Addr().As4()
	copy(h[12:], src[:])
	copy(h[16:], dst[:])
	h = append(h, p.options...)
	binary.BigEndian.PutUint16(h[10:], internetChecksum(h))
	return append(h, p.udp()...)
}

func (p packet) udp() []byte {
	u := make([]byte, 8, 8+len(p.payload))
	binary.BigEndian.PutUint16(u[0:], p.src.Port())
	binary.BigEndian.PutUint16(u[2:], p.dst.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(8+len(p.payload)))
	u = append(u, p.payload...)
	if !p.noChecksum {
		src, dst := p.src.Addr().As4(), p.dst.Addr().As4()
		pseudo := slices.Concat(src[:], dst[:], []byte{0, 17}, u[4:6], u)
		sum := internetChecksum(pseudo)
		if sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(u[6:], sum)
	}
	return u
}

// internetChecksum is RFC 1071's.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// rtp is an RTP packet of version 2, payload type 0, with a payload of n bytes.
func rtp(n int) []byte {
	b := make([]byte, 12+n)
	b[0] = 0x80
	binary.BigEndian.PutUint16(b[2:], 4711)
	binary.BigEndian.PutUint32(b[4:], 160000)
	binary.BigEndian.PutUint32(b[8:], 0xdecafbad)
	for i := range n {
		b[12+i] = byte(i*7 + 3)
	}
	return b
}

// stun is a binding request without attributes.
func stun() []byte {
	b := make([]byte, 20)
	b[1] = 1
	binary.BigEndian.PutUint32(b[4:], 0x2112a442)
	return b
}

// ipv6Frame is a UDP packet over IPv6, checksum left out.
func ipv6Frame(src, dst netip.AddrPort, payload []byte) []byte {
	f := make([]byte, 14+40+8, 14+40+8+len(payload))
	f[12], f[13] = 0x86, 0xdd
	f[14] = 0x60
	binary.BigEndian.PutUint16(f[18:], uint16(8+len(payload)))
	f[20], f[21] = 17, 64
	s, d := src.Addr().As16(), dst.Addr().As16()
	copy(f[22:], s[:])
	copy(f[38:], d[:])
	binary.BigEndian.PutUint16(f[54:], src.Port())
	binary.BigEndian.PutUint16(f[56:], dst.Port())
	binary.BigEndian.PutUint16(f[58:], uint16(8+len(payload)))
	return append(f, payload...)
}
