package relay

import "net/netip"

// Action is what a record does with an accepted packet.
type Action uint8

// The actions. The zero value of Stream.Mode means Forward; a Record always carries one of these.
const (
	// Forward sends the packet to every output.
	Forward Action = iota + 1
	// Hold drops the packet because the stream is on hold; it still counts as life.
	Hold
	// Block drops the packet because an operator or a rule blocked it.
	Block
	// Punt gives the packet to the slow path.
	Punt
)

// Component tells a stream's RTP port from its RTCP port.
type Component uint8

// The components.
const (
	RTP Component = iota
	RTCP
)

// Record says what the data plane does with packets that arrive at one local endpoint. It is logical: no interface,
// hardware address or table index stands in it, so that it is equal on both boxes of a pair.
type Record struct {
	// Local is the endpoint at which packets arrive; it is the record's key.
	Local netip.AddrPort
	// Network is the network of the party that sends to Local.
	Network   string
	Component Component
	Action    Action
	// Capture asks for a copy of each packet, later.
	Capture bool
	// CheckRTP says that the payload must be RTP or RTCP by its first byte (RFC 7983); else it is opaque UDP. It is set for
	// streams that carry nothing else, whose proto begins with "RTP/" in whatever case: with "UDP/TLS/RTP/..." the DTLS
	// handshakes share the port (RFC 5764 section 5.1.2).
	CheckRTP bool
	// Accept says from where packets may come; Window numbers the learning window (see Stream.Window).
	Accept AcceptSet
	Window uint16
	// Outputs are where accepted packets go. None drops them; more than one takes the slow path.
	Outputs []Output
}

// Output is one destination of a record.
type Output struct {
	// From is our local endpoint from which the packet leaves. It is the key of the record that receives from that party,
	// so what is learnt there replaces To.
	From netip.AddrPort
	// To is the party's endpoint as signalled; zero as long as nothing may be sent before an address was learnt.
	To netip.AddrPort
	// Network is the network over which the packet leaves.
	Network string
}
