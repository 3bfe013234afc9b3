package sip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/signalling/media"
)

// Media is the offer/answer engine; *media.Engine is one.
type Media interface {
	Offer(tx media.Ports, s *relay.Session, from, to media.Side, b media.Body) (media.Body, error)
	Answer(tx media.Ports, s *relay.Session, from, to media.Side, b media.Body) (media.Body, error)
}

// PacketConn is a UDP socket; *net.UDPConn is one. WriteToUDPAddrPort is called concurrently.
type PacketConn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	Close() error
}

// Config is what a Server is made of. Listeners, Trunks, Relay and Media are required.
type Config struct {
	Listeners []Listener
	Trunks    []Trunk
	Relay     *relay.Relay
	Media     Media
	Logger    *slog.Logger // nil: silent
	Limits    Limits
	Timers    Timers
	// Shards is the number of goroutines that handle messages; 0: four for each processor, at most 64.
	Shards int
	// Listen opens a socket; nil: UDP by the standard library.
	Listen func(ctx context.Context, addr netip.AddrPort) (PacketConn, error)
}

// Listener is an address at which messages of a network arrive and from which they leave.
type Listener struct {
	Network string
	Addr    netip.AddrPort
	// Advertise is what Via and Contact show (1:1 NAT); zero: Addr.
	Advertise netip.AddrPort
}

// NATMode says where requests within a dialog go, and responses to requests without rport (RFC 3581).
type NATMode uint8

const (
	// NATAuto follows Contact and Route if their host is the address from which the peer's messages come, or belongs to
	// the trunk; else the peer is behind NAT, and its messages' source is used.
	NATAuto NATMode = iota
	// NATOn always uses the source of the peer's messages.
	NATOn
	// NATOff follows RFC 3261 by the letter.
	NATOff
)

// ParseNAT reads one of the words auto, on and off; an empty one is auto.
func ParseNAT(word string) (NATMode, error) {
	switch word {
	case "", "auto":
		return NATAuto, nil
	case "on":
		return NATOn, nil
	case "off":
		return NATOff, nil
	}
	return 0, fmt.Errorf("nat %q is none of auto, on, off", word)
}

// Trunk is a neighbour in one network: whose messages belong to it, and where calls go.
type Trunk struct {
	Name    string
	Network string
	// Peer is where calls to the trunk are sent.
	Peer netip.AddrPort
	// Sources are the addresses whose messages belong to the trunk; none: the peer's. Among the trunks of a network
	// the most specific prefix decides, of equal ones the first.
	Sources []netip.Prefix
	// Route names the trunk to which calls from this one go; empty: they are refused.
	Route string
	// MediaSource says from where the trunk's media may come.
	MediaSource media.Policy
	NAT         NATMode
}

// Limits bound what a server keeps. Zero values stand for the defaults.
type Limits struct {
	Calls        int // calls at one time; default 50,000
	MessageSize  int // bytes of a message; default 32 KiB, at most 64 KiB
	Queue        int // messages that wait for one shard; default 1,024
	Transactions int // server transactions at one time; default 400,000
	// Complaints is the number of 400 responses per second to one source; what exceeds it is dropped in silence. Default 10.
	Complaints int
}

// Timers are the timers of RFC 3261 section 17 and those of our own. Zero values stand for the defaults.
type Timers struct {
	T1 time.Duration // round-trip time; 500 ms
	T2 time.Duration // longest interval between retransmissions; 4 s
	T4 time.Duration // longest life of a message in the network; 5 s
	// Setup ends a call that neither rings anew nor is answered (Timer C, RFC 3261 section 16.6); 3 min.
	Setup time.Duration
	// Challenge is how long a challenged call waits for the INVITE with credentials; 16 s.
	Challenge time.Duration
	// Commit bounds how long a change waits for the data plane; 2 s.
	Commit time.Duration
}

func (t Timers) withDefaults() Timers {
	for _, d := range [...]struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&t.T1, 500 * time.Millisecond}, {&t.T2, 4 * time.Second}, {&t.T4, 5 * time.Second},
		{&t.Setup, 3 * time.Minute}, {&t.Challenge, 16 * time.Second}, {&t.Commit, 2 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.standard
		}
	}
	return t
}

// timeout is 64*T1, the end of patience.
func (t *Timers) timeout() time.Duration { return 64 * t.T1 }

func (l Limits) withDefaults() Limits {
	for _, d := range [...]struct {
		value    *int
		standard int
	}{
		{&l.Calls, 50_000}, {&l.MessageSize, 32 << 10}, {&l.Queue, 1024}, {&l.Transactions, 400_000}, {&l.Complaints, 10},
	} {
		if *d.value <= 0 {
			*d.value = d.standard
		}
	}
	l.MessageSize = min(l.MessageSize, maxDatagram)
	return l
}

// maxDatagram is the longest payload of a UDP datagram, in bytes.
const maxDatagram = 65535

// withDefaults checks the configuration and fills in what it leaves open.
func (c Config) withDefaults() (Config, error) {
	switch {
	case len(c.Listeners) == 0:
		return c, errors.New("sip needs a listener")
	case c.Relay == nil || c.Media == nil:
		return c, errors.New("sip needs a relay and a media engine")
	case c.Shards < 0 || c.Shards > homes:
		return c, fmt.Errorf("sip shards: %d is not from 1 to %d", c.Shards, homes)
	}
	if c.Shards == 0 {
		c.Shards = min(4*runtime.GOMAXPROCS(0), 64)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Limits, c.Timers = c.Limits.withDefaults(), c.Timers.withDefaults()
	if c.Listen == nil {
		c.Listen = listenUDP
	}
	return c, nil
}

// readBuffer is the size asked for of a socket's receive buffer, in bytes: a burst while a commit waits.
const readBuffer = 4 << 20

func listenUDP(ctx context.Context, addr netip.AddrPort) (PacketConn, error) {
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, "udp", addr.String())
	if err != nil {
		return nil, err
	}
	conn := c.(*net.UDPConn)
	// The kernel's limit may be lower, which is no reason not to start.
	_ = conn.SetReadBuffer(readBuffer)
	_ = conn.SetWriteBuffer(readBuffer)
	return conn, nil
}
