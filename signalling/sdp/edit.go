package sdp

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
)

// SetSessionAddress puts addr into every c= line of the session level. Lines of the unspecified address (hold) and of
// other networks than the internet stay as they are; no line is added.
func (d *Description) SetSessionAddress(addr netip.Addr) { d.setConnections(0, d.first, addr) }

// SetAddress makes addr the address of m= line i, after SetSessionAddress if that is called, too: it goes into every c= line of its own; without any, one is added
// if the session's would not say the same. What SetSessionAddress leaves alone stays here, too: a stream that is held by
// an unspecified address of the session level stays held.
func (d *Description) SetAddress(i int, addr netip.Addr) {
	m := &d.media[i]
	switch {
	case m.OwnConnection:
		d.setConnections(m.line, m.end, addr)
	case m.Connection.Unspecified() || m.Connection.Foreign:
	case d.sessionAddress() != addr:
		d.addConnection(m, "c=IN "+addrType(addr)+" "+addr.String())
	}
}

// KeepAddress gives m= line i a copy of the session's c= line if it has none of its own and SetSessionAddress would
// change that line. It is to be called before SetSessionAddress.
func (d *Description) KeepAddress(i int) {
	if m := &d.media[i]; !m.OwnConnection && !m.Connection.Unspecified() && !m.Connection.Foreign {
		if l := d.sessionConnection(); l != nil {
			d.addConnection(m, string(l.text))
		}
	}
}

// SetPort puts port into m= line i, which must have another than 0. A port count above 1 goes, because it would name
// ports that are not meant.
func (d *Description) SetPort(i int, port uint16) {
	m := &d.media[i]
	l := &d.lines[m.line]
	s := fields(l.text, 2)[1]
	if m.Ports == 1 {
		if n := strings.IndexByte(s.of(l.text), '/'); n >= 0 {
			s.to = s.from + n
		}
	}
	l.replace(s, strconv.Itoa(int(port)))
}

// SetRTCP puts port and, where there is one, addr into the a=rtcp attributes of m= line i, and adds one without address
// if there is none. An attribute with port 0 stays as it is, and so does an unspecified address;
// an unreadable attribute is replaced.
func (d *Description) SetRTCP(i int, port uint16, addr netip.Addr) {
	m := &d.media[i]
	text := "a=rtcp:" + strconv.Itoa(int(port))
	found := false
	before := m.line // the last of the lines that must stand before attributes
	for n := m.line + 1; n < m.end; n++ {
		l := &d.lines[n]
		if before == n-1 && strings.IndexByte("icbk", l.kind()) >= 0 {
			before = n
		}
		if l.kind() != 'a' {
			continue
		}
		if name, value := attribute(l.text); strings.EqualFold(name, "rtcp") {
			found = true
			l.setRTCP(len(l.text)-len(value), text, port, addr)
		}
	}
	if !found {
		d.lines[before].attribute = []byte(text)
	}
}

func (l *line) setRTCP(from int, text string, port uint16, addr netip.Addr) {
	f := fields(l.text, from)
	if len(f) == 0 {
		l.text = []byte(text)
		return
	}
	old, err := strconv.ParseUint(f[0].of(l.text), 10, 16)
	switch {
	case err != nil:
		l.text = []byte(text)
		return
	case old == 0:
		return
	}
	if len(f) >= 4 { // from the back, so that the spans stay right
		l.setConnection(f[1:4], addr)
	}
	l.replace(f[0], strconv.Itoa(int(port)))
}

// RemoveICE removes the attributes of ICE (RFC 8839, RFC 8840) from the session and every m= line.
func (d *Description) RemoveICE() {
	d.removeAttributes(func(name string, _ []byte) bool {
		switch strings.ToLower(name) {
		case "candidate", "remote-candidates", "end-of-candidates",
			"ice-lite", "ice-mismatch", "ice-ufrag", "ice-pwd", "ice-options", "ice-pacing":
			return true
		}
		return false
	})
}

// RemoveBundle removes a=group:BUNDLE and a=bundle-only (RFC 8843); groups of other semantics stay. An m= line that was
// bundle-only keeps its port 0 and is then one that is not offered, which is how an answerer without BUNDLE reads it.
func (d *Description) RemoveBundle() {
	d.removeAttributes(func(name string, value []byte) bool {
		switch strings.ToLower(name) {
		case "bundle-only":
			return true
		case "group":
			f := bytes.Fields(value)
			return len(f) > 0 && strings.EqualFold(string(f[0]), "BUNDLE")
		}
		return false
	})
}

func (d *Description) removeAttributes(match func(name string, value []byte) bool) {
	for i := range d.lines {
		l := &d.lines[i]
		if l.kind() == 'a' && match(attribute(l.text)) {
			l.gone = true
		}
	}
}

func (d *Description) setConnections(from, to int, addr netip.Addr) {
	for i := from; i < to; i++ {
		l := &d.lines[i]
		if l.kind() == 'c' {
			l.setConnection(fields(l.text, 2), addr)
		}
	}
}

// setConnection puts addr into the line's three fields of a connection.
func (l *line) setConnection(f []span, addr netip.Addr) {
	c := newConnection(f[0].of(l.text), f[1].of(l.text), f[2].of(l.text))
	if c.Foreign || c.Unspecified() {
		return
	}
	l.replace(f[2], addr.String())
	if t := addrType(addr); !strings.EqualFold(f[1].of(l.text), t) {
		l.replace(f[1], t)
	}
}

// replace puts text in the place of a field.
func (l *line) replace(s span, text string) {
	b := make([]byte, 0, len(l.text)+len(text))
	b = append(b, l.text[:s.from]...)
	b = append(b, text...)
	l.text = append(b, l.text[s.to:]...)
}

// addConnection puts a c= line behind the m= line and its i= line.
func (d *Description) addConnection(m *Media, text string) {
	at := m.line
	if at+1 < m.end && d.lines[at+1].kind() == 'i' {
		at++
	}
	d.lines[at].connection = []byte(text)
}

// sessionConnection returns the session's first c= line, or nil.
func (d *Description) sessionConnection() *line {
	for i := range d.lines[:d.first] {
		if d.lines[i].kind() == 'c' {
			return &d.lines[i]
		}
	}
	return nil
}

// sessionAddress returns the address that the session's c= line gives by now.
func (d *Description) sessionAddress() netip.Addr {
	l := d.sessionConnection()
	if l == nil {
		return netip.Addr{}
	}
	c, _ := parseConnection(l.text[2:], 0) // it could be read before, and edits put in addresses only
	return c.Addr
}

func addrType(a netip.Addr) string {
	if a.Is4() {
		return "IP4"
	}
	return "IP6"
}
