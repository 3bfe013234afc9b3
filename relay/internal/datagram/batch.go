package datagram

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxPayload is the size of each buffer of a Batch, in octets: no datagram is longer.
const MaxPayload = 65536

// Packet is a datagram of a Batch.
type Packet struct {
	Info
	// Remote is the source, unmapped.
	Remote netip.AddrPort
	// Payload belongs to the batch: valid until the next Read.
	Payload []byte
}

// Batch is the memory with which several datagrams are read by one system call. Pages of its buffers that no datagram
// ever reached cost nothing. It may be used by one goroutine at a time.
type Batch struct {
	msgs  []mmsghdr
	iovs  []unix.Iovec
	names [][unix.SizeofSockaddrInet6]byte
	oobs  [][Space]byte
	data  []byte
}

// mmsghdr is the kernel's struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// NewBatch makes a batch for up to size datagrams.
func NewBatch(size int) *Batch {
	b := &Batch{
		msgs:  make([]mmsghdr, size),
		iovs:  make([]unix.Iovec, size),
		names: make([][unix.SizeofSockaddrInet6]byte, size),
		oobs:  make([][Space]byte, size),
		data:  make([]byte, size*MaxPayload),
	}
	for i := range b.msgs {
		b.iovs[i].Base = &b.data[i*MaxPayload]
		b.iovs[i].SetLen(MaxPayload)
		hdr := &b.msgs[i].hdr
		hdr.Name = &b.names[i][0]
		hdr.Iov = &b.iovs[i]
		hdr.SetIovlen(1)
		hdr.Control = &b.oobs[i][0]
	}
	return b
}

// Size is the number of datagrams that fit.
func (b *Batch) Size() int { return len(b.msgs) }

// Read takes what waits on fd, at most Size datagrams, without blocking. It returns EAGAIN if nothing waits.
func (b *Batch) Read(fd int) (int, error) {
	for i := range b.msgs {
		b.msgs[i].hdr.Namelen = unix.SizeofSockaddrInet6
		b.msgs[i].hdr.SetControllen(Space)
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[0])), uintptr(len(b.msgs)),
		unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Packet returns datagram i of those that the last Read took.
func (b *Batch) Packet(i int) Packet {
	m := &b.msgs[i]
	return Packet{
		Info:    Parse(b.oobs[i][:min(int(m.hdr.Controllen), Space)]),
		Remote:  Sockaddr(b.names[i][:min(int(m.hdr.Namelen), unix.SizeofSockaddrInet6)]),
		Payload: b.data[i*MaxPayload:][:m.len:m.len],
	}
}
