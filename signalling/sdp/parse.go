package sdp

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Parse reads a session description. It asks only for what an edit needs: a first line v=0, and m= and c= lines that
// can be read. Everything else may be missing, unknown or out of place. Lines may end in CRLF, LF or CR, the last one
// in nothing. b must not change as long as the description is used. Errors wrap ErrSyntax.
func Parse(b []byte) (*Description, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrSyntax, len(b), MaxSize)
	}
	lines, err := split(b)
	if err != nil {
		return nil, err
	}
	d := &Description{lines: lines, first: len(lines)}
	if err := d.checkVersion(); err != nil {
		return nil, err
	}
	session := Media{Direction: SendRecv}
	cur := &session
	for i := range d.lines {
		l := &d.lines[i]
		if l.kind() == 'm' {
			if len(d.media) == MaxMedia {
				return nil, syntax(i+1, "more than %d m= lines", MaxMedia)
			}
			m, err := parseMedia(l.text, i+1)
			if err != nil {
				return nil, err
			}
			m.line = i
			d.first = min(d.first, i)
			d.media = append(d.media, m)
			cur = &d.media[len(d.media)-1]
		}
		cur.end = i + 1
		if err := cur.read(l, i+1); err != nil {
			return nil, err
		}
	}
	d.connection = session.Connection
	for i := range d.media {
		m := &d.media[i]
		m.OwnConnection = m.Connection.Present
		if !m.OwnConnection {
			m.Connection = session.Connection
		}
		if m.Direction == "" {
			m.Direction = session.Direction
		}
	}
	return d, nil
}

// split cuts b into lines.
func split(b []byte) ([]line, error) {
	lines := make([]line, 0, 32)
	run := 0 // behind the CRs that were looked at: a long run of them is many lines, and must not be walked for each
	for at := 0; at < len(b); {
		text, end := len(b), len(b)
		if i := bytes.IndexAny(b[at:], "\r\n"); i >= 0 {
			text = at + i
			for run = max(run, text); run < len(b) && b[run] == '\r'; {
				run++
			}
			if run < len(b) && b[run] == '\n' {
				end = run + 1
			} else {
				end = text + 1 // a lone CR: some peers take it as a line end, so its c= must not escape us
			}
		}
		if len(lines) == MaxLines {
			return nil, syntax(len(lines)+1, "more than %d lines", MaxLines)
		}
		if size := text - at; size > MaxLine {
			return nil, syntax(len(lines)+1, "%d bytes, more than %d", size, MaxLine)
		}
		lines = append(lines, line{text: b[at:text:text], end: b[text:end:end]})
		at = end
	}
	return lines, nil
}

func (d *Description) checkVersion() error {
	for i := range d.lines {
		l := &d.lines[i]
		if len(l.text) == 0 {
			continue // some devices send an empty line first
		}
		if l.kind() != 'v' || string(bytes.TrimSpace(l.text[2:])) != "0" {
			return syntax(i+1, "v=0 expected")
		}
		return nil
	}
	return fmt.Errorf("%w: empty", ErrSyntax)
}

// read takes from a line what concerns its section; m's own m= line is read already.
func (m *Media) read(l *line, number int) error {
	switch l.kind() {
	case 'c':
		c, err := parseConnection(l.text[2:], number)
		if err != nil {
			return err
		}
		if !m.Connection.Present {
			m.Connection = c
		}
	case 'a':
		name, value := attribute(l.text)
		switch strings.ToLower(name) {
		case "sendrecv", "sendonly", "recvonly", "inactive":
			m.Direction = Direction(strings.ToLower(name))
		case "rtcp":
			if !m.RTCP.Present {
				m.RTCP = parseRTCP(value)
			}
		case "rtcp-mux":
			m.RTCPMux = true
		case "bundle-only":
			m.BundleOnly = true
		}
	}
	return nil
}

// attribute returns name and value of an a= line; the value is nil if there is none.
func attribute(text []byte) (name string, value []byte) {
	n, v, found := bytes.Cut(text[2:], []byte(":"))
	if !found {
		v = nil
	}
	return string(bytes.TrimSpace(n)), v
}

// parseMedia reads an m= line: media, port, optional port count, transport, formats (RFC 8866 section 5.14).
func parseMedia(text []byte, number int) (Media, error) {
	f := fields(text, 2)
	if len(f) < 3 {
		return Media{}, syntax(number, "m= line with %d fields", len(f))
	}
	m := Media{Line: number, Type: f[0].of(text), Proto: f[2].of(text), Ports: 1}
	portText, countText, hasCount := strings.Cut(f[1].of(text), "/")
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return Media{}, syntax(number, "port %q", portText)
	}
	m.Port = uint16(port)
	if hasCount {
		count, err := strconv.ParseUint(countText, 10, 16)
		if err != nil || count == 0 {
			return Media{}, syntax(number, "port count %q", countText)
		}
		m.Ports = uint16(count)
	}
	for _, s := range f[3:] {
		m.Formats = append(m.Formats, s.of(text))
	}
	return m, nil
}

// parseConnection reads the value of a c= line (RFC 8866 section 5.7).
func parseConnection(value []byte, number int) (Connection, error) {
	f := fields(value, 0)
	if len(f) < 3 {
		return Connection{}, syntax(number, "c= line with %d fields", len(f))
	}
	return newConnection(f[0].of(value), f[1].of(value), f[2].of(value)), nil
}

// newConnection judges an address by its own form: a literal of the other family than the address type is taken as it is.
func newConnection(netType, addrType, address string) Connection {
	c := Connection{Present: true}
	c.Foreign = !strings.EqualFold(netType, "IN") || !strings.EqualFold(addrType, "IP4") && !strings.EqualFold(addrType, "IP6")
	host, _, _ := strings.Cut(address, "/") // TTL and number of addresses of a multicast group
	if in, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(in, "]") // seen from devices, though not in the grammar
	}
	if a, err := netip.ParseAddr(host); err == nil && !c.Foreign {
		c.Addr = a.Unmap().WithZone("")
	} else {
		c.Host = host
	}
	return c
}

// parseRTCP reads the value of an a=rtcp attribute (RFC 3605 section 2.1).
func parseRTCP(value []byte) RTCP {
	r := RTCP{Present: true}
	f := fields(value, 0)
	if len(f) == 0 {
		return r
	}
	port, err := strconv.ParseUint(f[0].of(value), 10, 16)
	if err != nil {
		return r
	}
	r.Port = uint16(port)
	if len(f) >= 4 {
		r.Connection = newConnection(f[1].of(value), f[2].of(value), f[3].of(value))
	}
	return r
}

// span is a field of a line.
type span struct{ from, to int }

func (s span) of(text []byte) string { return string(text[s.from:s.to]) }

// fields finds the fields of text from an offset on, which blanks and tabs separate.
func fields(text []byte, from int) []span {
	var f []span
	start := -1
	for i := from; i <= len(text); i++ {
		blank := i == len(text) || text[i] == ' ' || text[i] == '\t'
		switch {
		case blank && start >= 0:
			f = append(f, span{start, i})
			start = -1
		case !blank && start < 0:
			start = i
		}
	}
	return f
}
