package userspace

import (
	"sync/atomic"

	"github.com/tandem-relay/tandem/relay"
)

// reason is why a packet was forwarded or dropped. Those that the XDP plane has too bear the same name.
type reason uint8

const (
	forwarded reason = iota
	noSession
	blocked
	malformedRTP
	sourceMismatch
	held
	noDestination
	loop
	sendFailed
	reasonCount
)

var reasonTexts = [reasonCount]struct{ name, verdict, help string }{
	forwarded:      {"forwarded_socket", "forward", "forwarded through a socket"},
	noSession:      {"no_session", "drop", "arrived at a port from which a session only sends"},
	blocked:        {"blocked", "drop", "the stream is blocked by an operator or a rule"},
	malformedRTP:   {"malformed_rtp", "drop", "neither RTP nor RTCP by its first bytes or length"},
	sourceMismatch: {"source_mismatch", "drop", "from an address or port that is not the party's"},
	held:           {"held", "drop", "the stream is on hold"},
	noDestination:  {"no_destination", "drop", "no endpoint to send to was signalled or learnt yet"},
	loop:           {"loop", "drop", "sessions send to one another in a circle"},
	sendFailed:     {"send_failed", "drop", "the kernel did not take the packet: no route, a full queue or a firewall"},
}

// counter counts packets and octets.
type counter struct{ packets, bytes atomic.Uint64 }

func (c *counter) add(bytes int) {
	c.packets.Add(1)
	c.bytes.Add(uint64(bytes))
}

// Totals returns the counters since New. Octets are those of an untagged Ethernet frame without IP options.
func (p *Plane) Totals() (relay.Totals, error) {
	t := relay.Totals{Forwarded: map[relay.Path]uint64{relay.PathUserspace: p.counters[forwarded].packets.Load()}}
	for i, text := range reasonTexts {
		c := &p.counters[i]
		t.Reasons = append(t.Reasons, relay.Reason{
			Name: text.name, Verdict: text.verdict, Help: text.help,
			Packets: c.packets.Load(), Bytes: c.bytes.Load(),
		})
	}
	return t, nil
}
