package xdp

import (
	"encoding/binary"

	"github.com/tandem-relay/tandem/relay"
)

// payload is what the first bytes of a packet say that it is (RFC 7983, RFC 5761 section 4).
type payload int

const (
	payloadOther payload = iota
	payloadSTUN
	payloadRTP
	payloadRTCP  // by its packet type
	payloadShort // of version 2, but too short for RTP
)

const (
	stunHeader = 20
	stunCookie = 0x2112a442
	rtpHeader  = 12
	rtcpHeader = 8
	rtcpFirst  = 192
	rtcpLast   = 223
)

func classify(b []byte) payload {
	switch {
	case len(b) < rtcpHeader:
		return payloadOther
	case b[0]>>6 == 2:
		switch {
		case b[1] >= rtcpFirst && b[1] <= rtcpLast:
			return payloadRTCP
		case len(b) >= rtpHeader:
			return payloadRTP
		}
		return payloadShort
	case b[0] <= 3 && len(b) >= stunHeader && binary.BigEndian.Uint32(b[4:]) == stunCookie:
		return payloadSTUN
	}
	return payloadOther
}

// isRTP reports whether the payload passes on a stream that carries only RTP and RTCP.
func (k payload) isRTP(c relay.Component) bool {
	return k == payloadRTP || k == payloadRTCP || k == payloadShort && c == relay.RTCP
}
