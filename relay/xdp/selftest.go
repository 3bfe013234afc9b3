package xdp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-relay/tandem/bpf"
)

const (
	selftestPatience = 250 * time.Millisecond
	selftestAttempts = 2
	nonceLength      = 24
	selftestPort     = 49152 // of the pretended sender
	maxHosts         = 8     // tried as pretended sender per prefix
)

type nonce [nonceLength]byte

// selftest waits for packets that must reach the slow path.
type selftest struct {
	waiting atomic.Int32
	mu      sync.Mutex
	pending map[nonce]chan<- nonce
}

func newSelftest() *selftest { return &selftest{pending: make(map[nonce]chan<- nonce)} }

func (s *selftest) expect(n nonce, arrived chan<- nonce) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending[n] = arrived
	s.waiting.Add(1)
}

func (s *selftest) forget(n nonce) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.pending[n]; ok {
		delete(s.pending, n)
		s.waiting.Add(-1)
	}
}

// took reports whether a packet was one of the test.
func (s *selftest) took(payload []byte) bool {
	if s.waiting.Load() == 0 || len(payload) != nonceLength {
		return false
	}
	n := nonce(payload)
	s.mu.Lock()
	defer s.mu.Unlock()
	arrived, ok := s.pending[n]
	if ok {
		delete(s.pending, n)
		s.waiting.Add(-1)
		arrived <- n
	}
	return ok
}

// probe is one packet of the test.
type probe struct {
	network string
	device  device
	from    netip.Addr
	to      netip.AddrPort
	rule    string // that would let it through
}

// testFirewall checks that what the program punts reaches the slow path: for each media address and each interface of its
// network it lets the kernel receive a packet with IP options to the ends of each port range.
func (p *Plane) testFirewall(ctx context.Context, networks []Network) {
	var open []probe
	for _, n := range networks {
		for _, name := range n.Interfaces {
			d, err := p.kernel.device(name)
			if err != nil || !d.up {
				continue
			}
			for _, m := range n.Media {
				from, ok := p.plausibleSource(d, m.Addr)
				if !ok {
					p.logger.Info("slow path is not tested: no host is reached by the interface", "network", n.Name,
						"interface", name, "address", m.Addr)
					continue
				}
				for _, r := range m.Ranges {
					rule := fmt.Sprintf("nft add rule inet filter input iifname %q ip daddr %s udp dport %v accept", name, m.Addr, r)
					for _, port := range []uint16{r.First, r.Last} {
						open = append(open, probe{n.Name, d, from, netip.AddrPortFrom(m.Addr, port), rule})
					}
				}
			}
		}
	}
	for range selftestAttempts {
		if open = p.try(ctx, open); len(open) == 0 {
			return
		}
	}
	said := make(map[string]bool)
	for _, lost := range open {
		if !said[lost.rule] {
			said[lost.rule] = true
			p.warn(fmt.Sprintf("network %s: packets to %s that XDP leaves to the kernel (fragments, IP options, STUN, first "+
				"packets) do not reach the slow path, most likely because of a firewall rule; allow them, for example: %s",
				lost.network, lost.to, lost.rule))
		}
	}
}

// try sends the probes and returns those that did not arrive.
func (p *Plane) try(ctx context.Context, probes []probe) []probe {
	arrived := make(chan nonce, len(probes))
	sent := make(map[nonce]int) // which of the probes
	for i, t := range probes {
		var n nonce
		_, _ = rand.Read(n[:]) // never fails
		n[0] = 0xff            // neither RTP nor STUN, should anybody else see it
		p.selftest.expect(n, arrived)
		sent[n] = i
		if err := bpf.InjectPass(uint32(t.device.index), optionsFrame(t, n[:]), 1); err != nil {
			p.logger.Info("slow path is not tested", "interface", t.device.name, "err", err)
			p.selftest.forget(n)
			delete(sent, n)
		}
	}
	timeout := time.NewTimer(selftestPatience)
	defer timeout.Stop()
	for done := false; len(sent) > 0 && !done; {
		select {
		case n := <-arrived:
			delete(sent, n)
		case <-timeout.C:
			done = true
		case <-ctx.Done():
			done = true
		}
	}
	var missing []int
	for n, i := range sent {
		p.selftest.forget(n)
		missing = append(missing, i)
	}
	slices.Sort(missing)
	var lost []probe
	for _, i := range missing {
		lost = append(lost, probes[i])
	}
	return lost
}

// plausibleSource finds an address that the kernel reaches by the interface, so that no reverse-path filter drops the
// packet: a known neighbour, another host of the interface's prefix, or a gateway.
func (p *Plane) plausibleSource(d device, media netip.Addr) (netip.Addr, bool) {
	fits := func(candidate netip.Addr) bool {
		if candidate.Is4() != media.Is4() {
			return false
		}
		w, err := p.kernel.route(media, candidate)
		return err == nil && !w.local && w.ifindex == d.index
	}
	if !media.Is4() {
		return netip.Addr{}, false // every IPv6 packet is punted and shows by itself
	}
	addresses, err := p.kernel.addresses()
	if err != nil {
		return netip.Addr{}, false
	}
	for _, prefix := range addresses[d.index] {
		host := prefix.Masked().Addr()
		for range maxHosts {
			if host = host.Next(); !prefix.Contains(host) {
				break
			}
			if host != prefix.Addr() && fits(host) {
				return host, true
			}
		}
	}
	if gateways, err := p.kernel.gateways(d.index); err == nil {
		for _, gateway := range gateways {
			if fits(gateway) {
				return gateway, true
			}
		}
	}
	return netip.Addr{}, false
}

// optionsFrame makes a UDP packet with four no-operation options (RFC 791 section 3.1), without UDP checksum.
func optionsFrame(t probe, payload []byte) []byte {
	const ethernet, ip, udp = 14, 24, 8
	frame := make([]byte, ethernet+ip+udp+len(payload))
	copy(frame, t.device.mac[:])
	copy(frame[6:], []byte{0x02, 0, 0, 0, 0, 1})
	binary.BigEndian.PutUint16(frame[12:], 0x0800)

	h := frame[ethernet:]
	h[0] = 0x40 | ip/4
	binary.BigEndian.PutUint16(h[2:], uint16(ip+udp+len(payload)))
	h[8], h[9] = 64, 17
	from, to := t.from.As4(), t.to.Addr().As4()
	copy(h[12:], from[:])
	copy(h[16:], to[:])
	copy(h[20:], []byte{1, 1, 1, 1})
	binary.BigEndian.PutUint16(h[10:], headerChecksum(h[:ip]))

	u := h[ip:]
	binary.BigEndian.PutUint16(u, selftestPort)
	binary.BigEndian.PutUint16(u[2:], t.to.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(udp+len(payload)))
	copy(u[udp:], payload)
	return frame
}

// headerChecksum is the Internet checksum (RFC 1071) of a header of even length whose checksum field is zero.
func headerChecksum(h []byte) uint16 {
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
