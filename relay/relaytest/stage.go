package relaytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/internal/datagram"
)

// The two networks of a World.
const (
	Outside = "outside"
	Inside  = "inside"
)

// FirstPort and LastPort bound the local ports that scenarios use at each media address.
const FirstPort, LastPort = 20000, 20999

// Hosts is the number of hosts on each side of a World.
const Hosts = 3

// patience is how long a stage waits for what must come.
const patience = 5 * time.Second

// World is a data plane under test between two networks, "outside" and "inside".
type World interface {
	Plane() relay.Dataplane
	// Media is the plane's media address on a side. The ports from FirstPort to LastPort belong to media.
	Media(side string) netip.Addr
	// Listen opens a socket of one of the hosts 0 to Hosts-1 of a side, each with an address of its own, on a port of
	// the kernel's choice.
	Listen(side string, host int) (*net.UDPConn, error)
	// Do calls f where the plane's Apply belongs: on a thread in the plane's network namespace.
	Do(f func() error) error
}

// Stage is where one scenario is played: one session of the plane, and the parties around it.
type Stage struct {
	t       testing.TB
	world   World
	session relay.SessionID
	records []relay.Record
	next    uint32
	ports   uint16
	parties []*Party
	counted map[string]uint64
	batch   *datagram.Batch // for one packet
}

func newStage(t testing.TB, world World, session string, ports uint16) *Stage {
	t.Helper()
	s := &Stage{t: t, world: world, session: relay.SessionID(session), ports: ports, next: 1, batch: datagram.NewBatch(1)}
	s.counted = s.reasons()
	return s
}

// Play plays every scenario in a world, one after the other. The planes must agree on all they can see and tell.
func Play(t *testing.T, world World) {
	t.Helper()
	ports := uint16(FirstPort)
	for _, scenario := range Scenarios() {
		t.Run(scenario.Name, func(t *testing.T) {
			s := newStage(t, world, "stage-"+scenario.Name, ports)
			defer s.end()
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("why it matters: %s", scenario.Reason)
				}
			})
			scenario.Play(s)
			s.Quiet()
		})
		ports += 32
	}
}

// end removes the session and closes the parties' sockets.
func (s *Stage) end() {
	if len(s.records) > 0 {
		s.Apply()
	}
	for _, p := range s.parties {
		_ = p.conn.Close()
	}
}

// Local returns local endpoint n of a side; even numbers are for RTP, the odd ones behind them for RTCP.
func (s *Stage) Local(side string, n int) netip.AddrPort {
	return netip.AddrPortFrom(s.world.Media(side), s.ports+uint16(n))
}

// Apply installs records under the next generation.
func (s *Stage) Apply(records ...relay.Record) {
	s.t.Helper()
	if err := s.ApplyAt(s.next, records...); err != nil {
		s.t.Fatalf("apply: %v", err)
	}
	s.next++
}

// ApplyAt installs records under a generation.
func (s *Stage) ApplyAt(generation uint32, records ...relay.Record) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := s.world.Do(func() error { return s.world.Plane().Apply(ctx, s.session, generation, records) })
	if err == nil {
		s.records = records
	}
	return err
}

// Flow returns the state of the record at local.
func (s *Stage) Flow(local netip.AddrPort) relay.Flow {
	s.t.Helper()
	for _, f := range s.world.Plane().Flows(s.session) {
		if f.Local == local {
			return f
		}
	}
	s.t.Fatalf("no flow at %s", local)
	return relay.Flow{}
}

// Learnt requires that the plane learnt remote at local, and told so by an event; a zero remote, that it learnt nothing.
func (s *Stage) Learnt(local, remote netip.AddrPort) {
	s.t.Helper()
	if got := s.Flow(local).Learnt; got != remote {
		s.t.Errorf("learnt at %s: %s, want %s", local, got, remote)
	}
	if !remote.IsValid() {
		return
	}
	timeout := time.After(patience)
	for {
		select {
		case e := <-s.world.Plane().Events():
			if e.Kind == relay.EventLearnt && e.Session == s.session && e.Local == local && e.Remote == remote {
				return
			}
		case <-timeout:
			s.t.Errorf("no event that %s was learnt at %s", remote, local)
			return
		}
	}
}

// Carried requires the number of packets and octets of payload that the record at local forwarded, on whatever path.
func (s *Stage) Carried(local netip.AddrPort, packets, octets int) {
	s.t.Helper()
	var f relay.Flow
	if !s.eventually(func() bool {
		f = s.Flow(local)
		return sum(f.Packets) == uint64(packets) && sum(f.Bytes) == uint64(octets)
	}) {
		s.t.Errorf("flow at %s carried %v packets, %v octets; want %d and %d", local, f.Packets, f.Bytes, packets, octets)
	}
}

func sum(byPath map[relay.Path]uint64) (n uint64) {
	for v := range maps.Values(byPath) {
		n += v
	}
	return n
}

// Dropped waits until the plane has dropped n more packets for a reason than at the last call for it, and requires that
// none of them reached anybody.
func (s *Stage) Dropped(reason string, n int) {
	s.t.Helper()
	var got uint64
	if !s.eventually(func() bool {
		got = s.reasons()[reason] - s.counted[reason]
		return got >= uint64(n)
	}) || got != uint64(n) {
		s.t.Errorf("dropped for %s: %d packets, want %d; all reasons: %v", reason, got, n, s.reasons())
	}
	s.counted[reason] += got
	s.Quiet()
}

// Quiet requires that no party has a packet waiting.
func (s *Stage) Quiet() {
	s.t.Helper()
	for _, p := range s.parties {
		if got, ok := p.poll(); ok {
			s.t.Errorf("%s got a packet from %s that is not for it: % x", p.Addr, got.Remote, got.Payload[:min(len(got.Payload), 16)])
		}
	}
}

func (s *Stage) reasons() map[string]uint64 {
	s.t.Helper()
	totals, err := s.world.Plane().Totals()
	if err != nil {
		s.t.Fatalf("totals: %v", err)
	}
	m := make(map[string]uint64)
	for _, r := range totals.Reasons {
		if r.Verdict == "drop" {
			// A plane with a slow path counts there under names of its own.
			m[strings.TrimPrefix(r.Name, "slow_")] += r.Packets
		}
	}
	return m
}

func (s *Stage) eventually(holds func() bool) bool {
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

// Party is a socket of a host.
type Party struct {
	s    *Stage
	conn *net.UDPConn
	// Addr is the socket's endpoint.
	Addr netip.AddrPort
}

// Party opens a socket of a host of a side. Two parties of one host differ in the port.
func (s *Stage) Party(side string, host int) *Party {
	s.t.Helper()
	conn, err := s.world.Listen(side, host)
	if err != nil {
		s.t.Fatalf("listen at host %d of %s: %v", host, side, err)
	}
	bound := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	p := &Party{s: s, conn: conn, Addr: netip.AddrPortFrom(bound.Addr().Unmap(), bound.Port())}
	s.parties = append(s.parties, p)
	_ = conn.SetReadBuffer(1 << 20)
	if err := p.control(func(fd int) error { return datagram.EnableTOS(fd, p.Addr.Addr().Is6()) }); err != nil {
		s.t.Fatalf("ask for traffic class: %v", err)
	}
	return p
}

func (p *Party) control(f func(fd int) error) error {
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) { err = f(int(fd)) }), err)
}

// Send sends a packet to one of our endpoints. It never fails for what an earlier packet caused.
func (p *Party) Send(to netip.AddrPort, tos uint8, payload []byte) {
	p.s.t.Helper()
	oob := datagram.AppendTOS(nil, to.Addr().Is6(), tos)
	if _, _, err := p.conn.WriteMsgUDPAddrPort(payload, oob, to); err != nil {
		p.s.t.Fatalf("%s sends to %s: %v", p.Addr, to, err)
	}
}

// Receive requires that the next packet comes from one of our endpoints, with this DSCP, ECN and payload.
func (p *Party) Receive(from netip.AddrPort, tos uint8, payload []byte) {
	p.s.t.Helper()
	if err := p.receive(from, tos, payload); err != nil {
		p.s.t.Errorf("%s: %v", p.Addr, err)
	}
}

func (p *Party) receive(from netip.AddrPort, tos uint8, payload []byte) error {
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	buf, oob := make([]byte, datagram.MaxPayload), make([]byte, datagram.Space)
	n, oobn, _, source, err := p.conn.ReadMsgUDPAddrPort(buf, oob)
	if err != nil {
		return fmt.Errorf("nothing from %s: %w", from, err)
	}
	source = netip.AddrPortFrom(source.Addr().Unmap(), source.Port())
	class := datagram.Parse(oob[:oobn]).TOS
	switch {
	case source != from:
		return fmt.Errorf("packet from %s, want one from %s", source, from)
	case class != tos:
		return fmt.Errorf("packet with DSCP %d, ECN %d, want %d, %d", class>>2, class&3, tos>>2, tos&3)
	case !bytes.Equal(buf[:n], payload):
		return fmt.Errorf("payload of %d octets % x, want %d octets % x", n, buf[:min(n, 16)], len(payload), payload[:min(len(payload), 16)])
	}
	return nil
}

// poll returns a packet that waits, if one does.
func (p *Party) poll() (got datagram.Packet, ok bool) {
	_ = p.control(func(fd int) error {
		n, err := p.s.batch.Read(fd)
		if ok = n == 1; ok {
			got = p.s.batch.Packet(0)
		}
		return err
	})
	return got, ok
}
