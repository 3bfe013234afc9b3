package demo

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/tandem-relay/tandem/bench/lab"
)

// place is where the demo happens: three stations, and the addresses that they have.
type place struct {
	lab                    *lab.Lab
	caller, tandem, callee *lab.Namespace
	// The stations' own addresses, and Tandem's towards each of them.
	callerAddr, outsideAddr, insideAddr, calleeAddr netip.Addr
	// Over these the reference streams go from station to station without Tandem.
	callerDirect, calleeDirect netip.Addr
	outside, inside            string // Tandem's interfaces
	sipPort                    uint16 // of everybody; 0 at the stations of a shared host
}

// newPlace makes the place for a data plane.
func newPlace(dataplane string) (*place, error) {
	if dataplane == Userspace {
		return loopback(), nil
	}
	p, err := namespaces()
	if err != nil {
		return nil, fmt.Errorf("make network namespaces: %w", err)
	}
	return p, nil
}

// namespaces joins caller, tandem and callee by veth pairs, and caller and callee directly for the reference. All
// addresses are of the documentation ranges (RFC 5737).
func namespaces() (_ *place, err error) {
	p := &place{
		lab:          lab.New(),
		callerAddr:   netip.MustParseAddr("203.0.113.20"),
		outsideAddr:  netip.MustParseAddr("203.0.113.10"),
		insideAddr:   netip.MustParseAddr("198.51.100.10"),
		calleeAddr:   netip.MustParseAddr("198.51.100.20"),
		callerDirect: netip.MustParseAddr("192.0.2.1"),
		calleeDirect: netip.MustParseAddr("192.0.2.2"),
		outside:      "outside",
		inside:       "inside",
		sipPort:      5060,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.lab.Close())
		}
	}()
	for name, ns := range map[string]**lab.Namespace{"caller": &p.caller, "tandem": &p.tandem, "callee": &p.callee} {
		if *ns, err = p.lab.Namespace(name); err != nil {
			return nil, err
		}
	}
	end := func(ns *lab.Namespace, name string, addr netip.Addr, reception lab.Reception) lab.End {
		return lab.End{Namespace: ns, Name: name, Addrs: []netip.Prefix{netip.PrefixFrom(addr, 24)}, Reception: reception}
	}
	for _, cable := range [][2]lab.End{
		{end(p.caller, "eth0", p.callerAddr, lab.XDPPass), end(p.tandem, p.outside, p.outsideAddr, lab.Bare)},
		{end(p.callee, "eth0", p.calleeAddr, lab.XDPPass), end(p.tandem, p.inside, p.insideAddr, lab.Bare)},
		{end(p.caller, "direct", p.callerDirect, lab.XDPPass), end(p.callee, "direct", p.calleeDirect, lab.XDPPass)},
	} {
		if err = p.lab.Connect(cable[0], cable[1]); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// loopback gives every station a loopback address of its own. They depend on the process id, so that demos run side by side.
func loopback() *place {
	pid := os.Getpid()
	addr := func(host byte) netip.Addr {
		return netip.AddrFrom4([4]byte{127, byte(64 + pid>>8%128), byte(pid), host})
	}
	l := lab.New()
	host := l.Host()
	return &place{
		lab: l, caller: host, tandem: host, callee: host,
		callerAddr: addr(20), outsideAddr: addr(10), insideAddr: addr(11), calleeAddr: addr(21),
		callerDirect: addr(20), calleeDirect: addr(21),
		outside: "lo", inside: "lo",
	}
}

// listenSIP opens a station's SIP socket.
func (p *place) listenSIP(ns *lab.Namespace, addr netip.Addr) (*net.UDPConn, error) {
	conn, err := ns.ListenUDP(netip.AddrPortFrom(addr, p.sipPort))
	if err != nil {
		return nil, fmt.Errorf("open SIP socket: %w", err)
	}
	return conn, nil
}

// tandemPort finds a port for Tandem's own SIP listener.
func (p *place) tandemPort(addr netip.Addr) (uint16, error) {
	if p.sipPort != 0 {
		return p.sipPort, nil
	}
	conn, err := p.tandem.ListenUDP(netip.AddrPortFrom(addr, 0))
	if err != nil {
		return 0, fmt.Errorf("find a port for SIP: %w", err)
	}
	return local(conn).Port(), conn.Close()
}

// listenMedia opens a socket on an even port, as RTP wants it (RFC 3550 section 11).
func listenMedia(ns *lab.Namespace, addr netip.Addr) (*net.UDPConn, error) {
	const tries = 64
	for range tries {
		conn, err := ns.ListenUDP(netip.AddrPortFrom(addr, 0))
		if err != nil {
			return nil, fmt.Errorf("open RTP socket: %w", err)
		}
		if local(conn).Port()%2 == 0 {
			return conn, nil
		}
		if err := conn.Close(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("open RTP socket: no even port in %d tries", tries)
}

func local(conn *net.UDPConn) netip.AddrPort { return conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// String draws the place.
func (p *place) String() string {
	return fmt.Sprintf("caller %s ---- %s tandem %s ---- %s callee", p.callerAddr, p.outsideAddr, p.insideAddr, p.calleeAddr)
}
