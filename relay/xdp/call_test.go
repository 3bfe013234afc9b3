package xdp_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/relaytest"
)

// call is a session with a caller outside and a callee inside, host 0 of each side.
type call struct {
	*rig
	id             relay.SessionID
	generation     uint32
	caller, callee *net.UDPConn
	atOut, atIn    netip.AddrPort // local endpoints
	out, in        relay.Record
}

// newCall prepares call number n of a rig; it is not applied yet.
func (r *rig) newCall(id relay.SessionID, n int) *call {
	r.t.Helper()
	c := &call{rig: r, id: id, atOut: r.local(relaytest.Outside, 2*n), atIn: r.local(relaytest.Inside, 2*n)}
	c.caller, c.callee = r.party(relaytest.Outside, 0), r.party(relaytest.Inside, 0)
	c.out = relay.Record{
		Local: c.atOut, Network: relaytest.Outside, Action: relay.Forward, CheckRTP: true, Window: 1,
		Accept:  relaytest.From(addrOf(c.caller).Addr()),
		Outputs: []relay.Output{{From: c.atIn, To: addrOf(c.callee), Network: relaytest.Inside}},
	}
	c.in = relay.Record{
		Local: c.atIn, Network: relaytest.Inside, Action: relay.Forward, CheckRTP: true, Window: 1,
		Accept:  relaytest.From(addrOf(c.callee).Addr()),
		Outputs: []relay.Output{{From: c.atOut, To: addrOf(c.caller), Network: relaytest.Outside}},
	}
	return c
}

func (r *rig) party(side string, host int) *net.UDPConn {
	r.t.Helper()
	conn, err := r.Listen(side, host)
	must(r.t, err)
	_ = conn.SetReadBuffer(4 << 20)
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func addrOf(conn *net.UDPConn) netip.AddrPort {
	a := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// apply installs the call's records under the next generation.
func (c *call) apply() {
	c.t.Helper()
	c.generation++
	must(c.t, c.plane.Apply(context.Background(), c.id, c.generation, []relay.Record{c.out, c.in}))
}

func (c *call) compiled() relay.Compiled {
	return relay.Compiled{ID: c.id, Generation: c.generation, Records: []relay.Record{c.out, c.in}}
}

// exchange requires that one packet each way arrives.
func (c *call) exchange(sequence uint16) {
	c.t.Helper()
	passes(c.t, c.caller, c.atOut, c.callee, c.atIn, relaytest.RTP(sequence, 160))
	passes(c.t, c.callee, c.atIn, c.caller, c.atOut, relaytest.RTP(sequence, 160))
}

// byXDP exchanges packets and requires that the program forwarded every one of them.
func (c *call) byXDP(sequence uint16) {
	c.t.Helper()
	before := []relay.Flow{c.flow(c.id, c.atOut), c.flow(c.id, c.atIn)}
	c.exchange(sequence)
	for i, local := range []netip.AddrPort{c.atOut, c.atIn} {
		if got := c.flow(c.id, local).Packets[relay.PathXDP] - before[i].Packets[relay.PathXDP]; got != 1 {
			c.t.Fatalf("%s: %d of 1 packet went by XDP; flow %+v", local, got, c.flow(c.id, local))
		}
	}
}

// passes sends a payload from a party to a local endpoint and requires it at another party, from another local endpoint.
func passes(t testing.TB, from *net.UDPConn, at netip.AddrPort, to *net.UDPConn, leaves netip.AddrPort, payload []byte) {
	t.Helper()
	if err := pass(from, at, to, leaves, payload); err != nil {
		t.Fatalf("%s -> %s -> %s: %v", addrOf(from), at, addrOf(to), err)
	}
}

// stream is a numbered series of packets under way.
type stream struct {
	from, to *net.UDPConn
	at       netip.AddrPort
	stop     chan struct{}
	done     sync.WaitGroup

	sent                      uint32
	received, twice, disorder uint32
}

// startStream sends a packet each interval until end is called.
func startStream(from *net.UDPConn, at netip.AddrPort, to *net.UDPConn, interval time.Duration) *stream {
	s := &stream{from: from, to: to, at: at, stop: make(chan struct{})}
	s.done.Add(1)
	go func() {
		defer s.done.Done()
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
				payload := relaytest.RTP(uint16(s.sent), 160)
				binary.BigEndian.PutUint32(payload[12:], s.sent)
				if _, err := from.WriteToUDPAddrPort(payload, at); err == nil {
					s.sent++
				}
			}
		}
	}()
	return s
}

// end stops the stream and counts what arrived. Nothing else may read the receiver meanwhile.
func (s *stream) end() *stream {
	close(s.stop)
	s.done.Wait()
	buf := make([]byte, 2048)
	seen := make(map[uint32]bool)
	var last uint32
	_ = s.to.SetReadDeadline(time.Now().Add(patience))
	for uint32(len(seen)) < s.sent {
		n, _, err := s.to.ReadFromUDPAddrPort(buf)
		if err != nil {
			break
		}
		if n < 16 {
			continue
		}
		number := binary.BigEndian.Uint32(buf[12:])
		if seen[number] {
			s.twice++
		}
		if len(seen) > 0 && number < last {
			s.disorder++
		}
		seen[number], last = true, number
	}
	s.received = uint32(len(seen))
	return s
}

// intact requires that everything that was sent arrived once and in order.
func (s *stream) intact(t testing.TB) {
	t.Helper()
	if s.received != s.sent || s.twice > 0 || s.disorder > 0 {
		t.Errorf("to %s: %d sent, %d received, %d twice, %d out of order", s.at, s.sent, s.received, s.twice, s.disorder)
	}
	if s.sent == 0 {
		t.Error("nothing was sent")
	}
}
