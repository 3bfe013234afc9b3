// Package bench makes media traffic and measures what becomes of it: paced RTP sources, sinks that check every byte, and
// the figures in between.
package bench

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"

	"github.com/tandem-relay/tandem/bench/speech"
)

// FrameInterval is the time that one packet covers.
const FrameInterval = 20 * time.Millisecond

const (
	headerSize  = 12
	packetSize  = headerSize + speech.FrameSize
	payloadPCMU = 0       // RFC 3551 section 6
	sentRing    = 1 << 11 // 40 s
)

// Source is one RTP stream of G.711 speech (RFC 3550 section 5.1, RFC 3551). Its sink, in the same process, knows from it
// what every packet must contain and when it was sent.
type Source struct {
	ssrc      uint32
	sequence  uint16 // of the first packet
	timestamp uint32 // of the first packet
	voice     speech.Voice
	offset    uint64 // frames into the voice

	sent   atomic.Uint64
	errors atomic.Uint64
	frozen atomic.Uint64 // sent while the freeze lasted
	freeze *Freeze
	// sentAt tells when packets were sent, in ns of the wall clock; the last sentRing of them.
	sentAt [sentRing]atomic.Int64
}

// NewSource returns a stream with a random SSRC, first sequence number and timestamp. It starts offset frames into the voice,
// so that streams which are mixed up can be told apart by their audio. Packets sent during the freeze are also counted apart;
// nil is none.
func NewSource(voice speech.Voice, offset uint64, freeze *Freeze) *Source {
	if freeze == nil {
		freeze = new(Freeze)
	}
	return &Source{
		ssrc:      rand.Uint32(),
		sequence:  uint16(rand.Uint32()),
		timestamp: rand.Uint32(),
		voice:     voice,
		offset:    offset,
		freeze:    freeze,
	}
}

// Sent is the number of packets given to the network so far.
func (s *Source) Sent() uint64 { return s.sent.Load() }

// Errors is the number of packets that the network refused to take. They count as sent, and so as lost.
func (s *Source) Errors() uint64 { return s.errors.Load() }

// appendPacket appends the n-th packet, from 0.
func (s *Source) appendPacket(b []byte, n uint64) []byte {
	header := rtp.Header{
		Version:        2,
		Marker:         n == 0, // beginning of a talkspurt, RFC 3551 section 4.1
		PayloadType:    payloadPCMU,
		SequenceNumber: s.sequence + uint16(n),
		Timestamp:      s.timestamp + uint32(n)*speech.FrameSize,
		SSRC:           s.ssrc,
	}
	b = append(b, make([]byte, headerSize)...)
	if _, err := header.MarshalTo(b[len(b)-headerSize:]); err != nil {
		panic(fmt.Sprintf("RTP header without extensions takes more than %d bytes: %v", headerSize, err))
	}
	return append(b, s.voice.Frame(s.offset+n)...)
}

// send sends the next packet. Only the pacer calls it.
func (s *Source) send(conn *net.UDPConn, to netip.AddrPort, buf []byte) {
	n := s.sent.Load()
	packet := s.appendPacket(buf[:0], n)
	s.stamp(time.Now().UnixNano())
	if _, err := conn.WriteToUDPAddrPort(packet, to); err != nil {
		s.errors.Add(1)
	}
}

// stamp notes when the next packet is sent, just before it is.
func (s *Source) stamp(now int64) {
	n := s.sent.Load()
	s.sentAt[n%sentRing].Store(now)
	s.sent.Store(n + 1)
	if s.freeze.covers(now) {
		s.frozen.Add(1)
	}
}

// number returns which packet of the stream this is, in respect of the highest number seen so far, and whether it is
// one of the stream at all.
func (s *Source) number(packet []byte, highest uint64) (uint64, bool) {
	var header rtp.Header
	if _, err := header.Unmarshal(packet); err != nil || header.Version != 2 || header.SSRC != s.ssrc {
		return 0, false
	}
	base := uint16(highest) + s.sequence
	n := int64(highest) + int64(int16(header.SequenceNumber-base))
	if n < 0 || uint64(n) >= s.sent.Load() {
		return 0, false
	}
	return uint64(n), true
}

// String names the stream by its SSRC.
func (s *Source) String() string { return fmt.Sprintf("ssrc %08x", s.ssrc) }
