package slowpath

import (
	"container/list"
	"errors"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/relay/internal/datagram"
)

// senders is the bounded cache of sending sockets, least recently used last.
type senders struct {
	limit     int
	namespace *namespace
	scratch   sync.Pool // of *datagram.Message

	mu              sync.Mutex
	byFrom          map[netip.AddrPort]*list.Element
	order           list.List // of *sender
	closed          bool
	opened, evicted uint64
}

// sender is a socket bound to one of our endpoints. Its fields are guarded by senders.mu; the descriptor may be used
// without it while users is not zero.
type sender struct {
	from  netip.AddrPort
	fd    int
	users int
	gone  bool // no longer in the cache: the last user closes it
	used  time.Time
}

func newSenders(limit int, ns *namespace) *senders {
	return &senders{
		limit: limit, namespace: ns,
		byFrom:  make(map[netip.AddrPort]*list.Element),
		scratch: sync.Pool{New: func() any { return new(datagram.Message) }},
	}
}

func (s *senders) send(from, to netip.AddrPort, tos uint8, payload []byte) error {
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	switch {
	case !from.IsValid() || from.Port() == 0 || from.Addr().IsUnspecified() || !to.IsValid() || to.Port() == 0:
		return unix.EINVAL
	case from.Addr().Is4() != to.Addr().Is4():
		return ErrFamily
	}
	c, err := s.acquire(from)
	if err != nil {
		return err
	}
	defer s.release(c)
	m := s.scratch.Get().(*datagram.Message)
	defer s.scratch.Put(m)
	return m.Send(c.fd, to, tos, payload)
}

// acquire returns the sender bound to from, opened if need be; the caller must release it.
func (s *senders) acquire(from netip.AddrPort) (*sender, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, os.ErrClosed
	}
	if e, ok := s.byFrom[from]; ok {
		s.order.MoveToFront(e)
		c := e.Value.(*sender)
		c.users++
		c.used = time.Now()
		return c, nil
	}
	for s.order.Len() >= s.limit {
		s.drop(s.order.Back())
		s.evicted++
	}
	c := &sender{from: from, fd: -1, users: 1, used: time.Now()}
	if err := s.namespace.do(func() (err error) {
		c.fd, err = openSender(from)
		return err
	}); err != nil {
		return nil, err
	}
	s.opened++
	s.byFrom[from] = s.order.PushFront(c)
	return c, nil
}

func (s *senders) release(c *sender) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.users--
	if c.gone && c.users == 0 {
		_ = unix.Close(c.fd)
	}
}

// drop takes e out of the cache. The caller holds mu.
func (s *senders) drop(e *list.Element) {
	c := s.order.Remove(e).(*sender)
	delete(s.byFrom, c.from)
	c.gone = true
	if c.users == 0 {
		_ = unix.Close(c.fd)
	}
}

// sweep closes what was not used for senderIdle.
func (s *senders) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.order.Back(); e != nil && now.Sub(e.Value.(*sender).used) >= senderIdle; e = s.order.Back() {
		s.drop(e)
	}
}

func (s *senders) counts() (opened, evicted uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened, s.evicted
}

func (s *senders) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for e := s.order.Back(); e != nil; e = s.order.Back() {
		s.drop(e)
	}
	return s.namespace.file.Close()
}

// openSender binds a socket to from. A filter that accepts nothing is in place before the binding, so that it never
// holds a packet, whether or not packets are steered at that moment.
func openSender(from netip.AddrPort) (int, error) {
	family := unix.AF_INET
	if from.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := prepareSender(fd, from); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func prepareSender(fd int, from netip.AddrPort) error {
	reject := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	err := errors.Join(
		os.NewSyscallError("attach filter", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: 1, Filter: &reject})),
		os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0)),
		os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)),
	)
	if err != nil {
		return err
	}
	if from.Addr().Is4() {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(from.Port()), Addr: from.Addr().As4()})
	} else {
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		err = unix.Bind(fd, &unix.SockaddrInet6{Port: int(from.Port()), Addr: from.Addr().As16()})
	}
	return os.NewSyscallError("bind", err)
}
