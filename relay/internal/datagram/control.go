// Package datagram reads and writes UDP datagrams together with the few control messages that the socket planes need: traffic
// class and original destination.
package datagram

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Space is the size of a buffer that holds everything that Enable asks for, in octets.
const Space = 128

// Info is what came with a datagram.
type Info struct {
	// TOS is the IPv4 TOS octet or the IPv6 traffic class: DSCP and ECN (RFC 2474, RFC 3168).
	TOS uint8
	// Dst is the destination of the packet before any steering, unmapped. Zero if the socket was not asked for it.
	Dst netip.AddrPort
}

// Parse reads the control messages of one datagram. Unknown ones are skipped; it stops at the first malformed one.
func Parse(oob []byte) Info {
	var info Info
	for len(oob) >= unix.SizeofCmsghdr {
		hdr, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return info
		}
		oob = rest
		switch {
		case hdr.Level == unix.SOL_IP && hdr.Type == unix.IP_TOS && len(data) >= 1:
			info.TOS = data[0]
		case hdr.Level == unix.SOL_IPV6 && hdr.Type == unix.IPV6_TCLASS && len(data) >= 4:
			info.TOS = uint8(binary.NativeEndian.Uint32(data))
		case hdr.Level == unix.SOL_IP && hdr.Type == unix.IP_ORIGDSTADDR,
			hdr.Level == unix.SOL_IPV6 && hdr.Type == unix.IPV6_ORIGDSTADDR:
			info.Dst = Sockaddr(data)
		}
	}
	return info
}

// Sockaddr reads a struct sockaddr_in or sockaddr_in6 as the kernel writes it. IPv4-mapped addresses are unmapped.
// It returns the zero value for any other family or a buffer that is too short.
func Sockaddr(b []byte) netip.AddrPort {
	if len(b) < 8 {
		return netip.AddrPort{}
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch binary.NativeEndian.Uint16(b) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
	case unix.AF_INET6:
		if len(b) >= 24 {
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])).Unmap(), port)
		}
	}
	return netip.AddrPort{}
}

// PutSockaddr writes a into b, which must hold unix.SizeofSockaddrInet6 octets, and returns the length used.
// Scoped addresses are not supported.
func PutSockaddr(b []byte, a netip.AddrPort) int {
	addr := a.Addr().Unmap()
	clear(b[:unix.SizeofSockaddrInet6])
	binary.BigEndian.PutUint16(b[2:], a.Port())
	if addr.Is4() {
		binary.NativeEndian.PutUint16(b, unix.AF_INET)
		ip := addr.As4()
		copy(b[4:], ip[:])
		return unix.SizeofSockaddrInet4
	}
	binary.NativeEndian.PutUint16(b, unix.AF_INET6)
	ip := addr.As16()
	copy(b[8:], ip[:])
	return unix.SizeofSockaddrInet6
}

// AppendTOS appends the message that gives one datagram its traffic class. A class of 0 needs none: it is what a
// socket sends by itself.
func AppendTOS(b []byte, v6 bool, tos uint8) []byte {
	if tos == 0 {
		return b
	}
	hdr := unix.Cmsghdr{Level: unix.SOL_IP, Type: unix.IP_TOS}
	if v6 {
		hdr.Level, hdr.Type = unix.SOL_IPV6, unix.IPV6_TCLASS
	}
	hdr.SetLen(unix.CmsgLen(4))
	start := len(b)
	b = append(b, unsafe.Slice((*byte)(unsafe.Pointer(&hdr)), unix.SizeofCmsghdr)...)
	b = binary.NativeEndian.AppendUint32(b, uint32(tos))
	for len(b) < start+unix.CmsgSpace(4) {
		b = append(b, 0)
	}
	return b
}

// EnableTOS asks for the traffic class of datagrams received on fd, in both families for an IPv6 socket.
func EnableTOS(fd int, v6 bool) error {
	return enable(fd, v6, unix.IP_RECVTOS, unix.IPV6_RECVTCLASS)
}

// EnableDst asks for the original destination of datagrams received on fd.
func EnableDst(fd int, v6 bool) error {
	return enable(fd, v6, unix.IP_RECVORIGDSTADDR, unix.IPV6_RECVORIGDSTADDR)
}

// enable sets opt4, and opt6 on an IPv6 socket: IPv4 packets that reach one carry the IPv4 messages.
func enable(fd int, v6 bool, opt4, opt6 int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, opt4, 1); err != nil {
		return err
	}
	if v6 {
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, opt6, 1)
	}
	return nil
}
