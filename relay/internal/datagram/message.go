package datagram

import (
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Message is the memory that sending one datagram takes; the kernel reads it by address. It may be used by one goroutine
// at a time.
type Message struct {
	hdr  unix.Msghdr
	iov  unix.Iovec
	name [unix.SizeofSockaddrInet6]byte
	oob  [Space]byte
}

// Send sends payload from fd with a TOS octet or traffic class, without ever waiting: what the kernel does not take at
// once is an error. Payload is not kept.
func (m *Message) Send(fd int, to netip.AddrPort, tos uint8, payload []byte) error {
	*m = Message{}
	m.hdr.Name = &m.name[0]
	m.hdr.Namelen = uint32(PutSockaddr(m.name[:], to))
	m.hdr.Iov = &m.iov
	m.hdr.SetIovlen(1)
	if len(payload) > 0 {
		m.iov.Base = &payload[0]
		m.iov.SetLen(len(payload))
	}
	if oob := AppendTOS(m.oob[:0], to.Addr().Unmap().Is6(), tos); len(oob) > 0 {
		m.hdr.Control = &oob[0]
		m.hdr.SetControllen(len(oob))
	}
	for {
		_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.hdr)), unix.MSG_DONTWAIT)
		if errno == unix.EINTR {
			continue
		}
		m.iov.Base = nil // the payload is the caller's
		if errno != 0 {
			return os.NewSyscallError("sendmsg", errno)
		}
		return nil
	}
}
