// Package sdp reads session descriptions (RFC 8866) and edits them in place: what no edit names leaves byte for byte.
package sdp

import (
	"errors"
	"fmt"
	"net/netip"
)

// The limits of Parse. A description beyond one of them is a syntax error.
const (
	MaxSize  = 64 << 10 // bytes
	MaxLine  = 8 << 10  // bytes, without the line end
	MaxLines = 4096
	MaxMedia = 64 // m= lines
)

// ErrSyntax is what every error of Parse wraps.
var ErrSyntax = errors.New("malformed session description")

// Description is a session description under edit. It is not safe for concurrent use.
//
// What Media and Connection tell is the description as it was parsed; edits do not change it.
type Description struct {
	lines []line
	// first is the index of the first m= line, or len(lines).
	first      int
	connection Connection
	media      []Media
}

// line is one line with its line end, and what is to be put behind it.
type line struct {
	text []byte // without the line end
	end  []byte // any number of CRs and an LF, a lone CR, or nothing at the end of input
	gone bool   // removed

	connection []byte // text of a c= line to put behind this one
	attribute  []byte // text of an a= line to put behind that
}

// kind returns the type letter of the line, or 0 if it has none.
func (l *line) kind() byte {
	if len(l.text) < 2 || l.text[1] != '=' {
		return 0
	}
	return l.text[0]
}

// Direction is the direction of a stream as its description gives it (RFC 8866 section 6.7).
type Direction string

// The directions.
const (
	SendRecv Direction = "sendrecv"
	SendOnly Direction = "sendonly"
	RecvOnly Direction = "recvonly"
	Inactive Direction = "inactive"
)

// Connection is the address of a c= line, or of an a=rtcp attribute. Its zero value stands for a missing one.
type Connection struct {
	// Present says that there is such a line.
	Present bool
	// Addr is the address, if it is an IP literal. IPv4-mapped addresses are unmapped, zones are left out.
	Addr netip.Addr
	// Host is the address field if it is none, without TTL and count: a host name, or anything else.
	Host string
	// Foreign says that the network type is not IN or the address type neither IP4 nor IP6.
	Foreign bool
}

// Unspecified reports whether the address is 0.0.0.0 or ::, the hold of RFC 2543.
func (c Connection) Unspecified() bool { return c.Addr.IsValid() && c.Addr.IsUnspecified() }

// RTCP is the a=rtcp attribute of an m= line (RFC 3605).
type RTCP struct {
	// Present says that there is such an attribute, be it readable or not.
	Present bool
	// Port is its port; 0 if it is 0 or unreadable.
	Port uint16
	// Connection is its address, if it has one.
	Connection Connection
}

// Media is one m= line with what belongs to it.
type Media struct {
	// Line is the number of the m= line, from 1.
	Line int
	// Type and Proto are the first and third field, as received.
	Type  string
	Proto string
	// Port is 0 for a stream that is rejected, removed or, with BundleOnly, not offered by itself.
	Port uint16
	// Ports is the port count (m=audio 4000/2), 1 if there is none.
	Ports   uint16
	Formats []string
	// Connection is the one that holds for this stream: its first c= line, else the session's.
	Connection Connection
	// OwnConnection says that it has a c= line of its own.
	OwnConnection bool
	RTCP          RTCP
	// Direction is its own, else the session's, else SendRecv.
	Direction  Direction
	RTCPMux    bool
	BundleOnly bool

	// line and end are the indexes of the m= line and behind the last line of the section.
	line, end int
}

// Media returns the m= lines in order. The caller must not change them.
func (d *Description) Media() []Media { return d.media }

// Connection returns the connection of the session level; the first one, if there are several.
func (d *Description) Connection() Connection { return d.connection }

// Bytes returns the description with all edits.
func (d *Description) Bytes() []byte {
	n := 0
	for i := range d.lines {
		l := &d.lines[i]
		n += len(l.text) + len(l.end) + len(l.connection) + len(l.attribute) + 8
	}
	b := make([]byte, 0, n)
	for i := range d.lines {
		l := &d.lines[i]
		if l.gone {
			continue
		}
		b = append(append(b, l.text...), l.end...)
		for _, extra := range [...][]byte{l.connection, l.attribute} {
			if extra == nil {
				continue
			}
			if len(l.end) == 0 { // the last line, without an end: the new one takes its place
				b = append(append(b, d.lineEnd()...), extra...)
				continue
			}
			b = append(append(b, extra...), l.end...)
		}
	}
	return b
}

// lineEnd is the end that lines of this description have.
func (d *Description) lineEnd() []byte {
	if len(d.lines) > 0 && len(d.lines[0].end) > 0 {
		return d.lines[0].end
	}
	return []byte("\r\n")
}

func syntax(line int, format string, args ...any) error {
	return fmt.Errorf("%w: line %d: %s", ErrSyntax, line, fmt.Sprintf(format, args...))
}
