package slowpath

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/relay/internal/datagram"
)

const (
	batchSize     = 16
	receiveBuffer = 4 << 20 // octets
	// unreadPause is how long a socket that could not be read is left alone.
	unreadPause = time.Millisecond
)

// receiver is a socket to which packets are steered.
type receiver struct {
	fd    int
	file  *os.File
	local netip.AddrPort // where it is bound; what is addressed to it was not steered
	v6    bool
}

// openReceiver opens a receiving socket. An IPv6 socket that is bound to an IPv4-mapped address stays dual-stack, so
// that the program may steer packets of either family to it; a host without IPv6 gets an IPv4 socket.
func openReceiver() (*receiver, error) {
	const flags = unix.SOCK_DGRAM | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	v6 := true
	fd, err := unix.Socket(unix.AF_INET6, flags, unix.IPPROTO_UDP)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		v6 = false
		fd, err = unix.Socket(unix.AF_INET, flags, unix.IPPROTO_UDP)
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	local, err := prepareReceiver(fd, v6)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &receiver{fd: fd, file: os.NewFile(uintptr(fd), "slowpath"), local: local, v6: v6}, nil
}

func prepareReceiver(fd int, v6 bool) (netip.AddrPort, error) {
	var bind unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if v6 {
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return netip.AddrPort{}, os.NewSyscallError("setsockopt", err)
		}
		bind = &unix.SockaddrInet6{Addr: netip.AddrFrom4([4]byte{127, 0, 0, 1}).As16()}
	}
	if err := datagram.EnableTOS(fd, v6); err != nil {
		return netip.AddrPort{}, os.NewSyscallError("setsockopt", err)
	}
	if err := datagram.EnableDst(fd, v6); err != nil {
		return netip.AddrPort{}, os.NewSyscallError("setsockopt", err)
	}
	// Best effort: beyond net.core.rmem_max it takes CAP_NET_ADMIN.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if err := unix.Bind(fd, bind); err != nil {
		return netip.AddrPort{}, os.NewSyscallError("bind", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, unix.EAFNOSUPPORT
}

// receive reads r until ctx ends or the socket is closed.
func (p *Path) receive(ctx context.Context, r *receiver, handle func(Packet)) error {
	raw, err := r.file.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	b := datagram.NewBatch(batchSize)
	var n int
	var readErr error
	read := func(fd uintptr) bool {
		n, readErr = p.read(b, int(fd))
		return !errors.Is(readErr, unix.EAGAIN)
	}
	for ctx.Err() == nil {
		n, readErr = 0, nil
		if err := raw.Read(read); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
				return nil
			}
			return err
		}
		switch {
		case readErr == nil, errors.Is(readErr, unix.EINTR), errors.Is(readErr, unix.ECONNREFUSED):
		default:
			// Usually a lack of memory that passes; to end here would end every call.
			if p.unread.Add(1) == 1 {
				p.logger.Error("read slow-path socket, going on", "err", os.NewSyscallError("recvmmsg", readErr))
			}
			select {
			case <-time.After(unreadPause):
			case <-ctx.Done():
			case <-p.done:
			}
		}
		for i := range n {
			p.deliver(r, b.Packet(i), handle)
		}
	}
	return nil
}

// deliver gives a datagram to handle, if it was steered. A packet at which handle panics ends there.
func (p *Path) deliver(r *receiver, d datagram.Packet, handle func(Packet)) {
	defer p.panics.Catch(p.logger, "slow path")
	if !d.Dst.IsValid() || d.Dst == r.local {
		p.stray.Add(1)
		return
	}
	p.received.Add(1)
	handle(Packet{Local: d.Dst, Remote: d.Remote, TOS: d.TOS, Payload: d.Payload})
}
