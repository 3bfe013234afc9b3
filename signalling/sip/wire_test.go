package sip

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// wire is a network in memory. Each datagram's fate is decided by a function: one delay for every copy that arrives.
type wire struct {
	mu    sync.Mutex
	conns map[netip.AddrPort]*memConn
	fate  func(from, to netip.AddrPort, b string) []time.Duration // nil: everything arrives at once, in order
	seen  func(from, to netip.AddrPort, b string)
}

type datagram struct {
	from netip.AddrPort
	b    string
}

type memConn struct {
	wire   *wire
	addr   netip.AddrPort
	in     chan datagram
	closed chan struct{}
	once   sync.Once
}

func newWire() *wire { return &wire{conns: make(map[netip.AddrPort]*memConn)} }

func (w *wire) open(addr netip.AddrPort) *memConn {
	c := &memConn{wire: w, addr: addr, in: make(chan datagram, 4096), closed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[addr] = c
	return c
}

func (c *memConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case d := <-c.in:
		return copy(b, d.b), d.from, nil
	case <-c.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (c *memConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	c.wire.carry(c.addr, to, string(b))
	return len(b), nil
}

func (c *memConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// carry sends a datagram from an address that need not be open.
func (w *wire) carry(from, to netip.AddrPort, b string) {
	w.mu.Lock()
	fate, seen := w.fate, w.seen
	w.mu.Unlock()
	if seen != nil {
		seen(from, to, b)
	}
	delays := []time.Duration{0}
	if fate != nil {
		delays = fate(from, to, b)
	}
	for _, d := range delays {
		if d == 0 {
			w.deliver(from, to, b)
		} else {
			time.AfterFunc(d, func() { w.deliver(from, to, b) })
		}
	}
}

func (w *wire) deliver(from, to netip.AddrPort, b string) {
	w.mu.Lock()
	c := w.conns[to]
	w.mu.Unlock()
	if c == nil {
		return
	}
	select {
	case c.in <- datagram{from, b}:
	case <-c.closed:
	}
}
