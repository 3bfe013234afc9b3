package sip

import (
	"hash/maphash"
	"net/netip"
	"strconv"
	"strings"
)

// rewrite says what a message that passes through leaves with. What it does not name goes out byte for byte, in its order.
type rewrite struct {
	start string // the start line without CRLF; "": as received
	// via replaces all Via fields. recordRoute, in a response, replaces all Record-Route fields; in a request they go.
	// Both are whole lines.
	via, recordRoute string
	routes           []string // replaces all Route fields of a request
	contact          string   // replaces the URI of the first Contact, and other Contacts go; "": Contacts stay
	needContact      bool     // a Contact is added if there is none
	cseq             uint32   // replaces the number; 0: stays
	rackOffset       uint32   // is added to the CSeq number within RAck (RFC 3262 section 7.2)
	maxForwards      int      // replaces the number, and is added if there is none; below 0: stays
	// Identifiers of the dialog on the other side, where they differ; "": stay.
	callID, fromTag, toTag string
	// newBody replaces the body by body, and the Content-Type value by contentType.
	newBody     bool
	body        []byte
	contentType string
}

// render writes the message as w says, appended to b.
func (m *message) render(b []byte, w *rewrite) []byte {
	if w.start != "" {
		b = append(append(b, w.start...), "\r\n"...)
	} else {
		b = append(b, m.raw[:m.line]...)
	}
	var done struct{ via, contact, forwards bool }
	from := m.line // what stands before this position has been written
	for i := range m.fields {
		f := &m.fields[i]
		if f.id == fieldOther || !w.touches(f.id) {
			continue
		}
		b = append(b, m.raw[from:f.start]...)
		from = int(f.end)
		switch f.id {
		case fieldVia:
			if !done.via {
				b, done.via = w.top(b, m), true
			}
		case fieldRoute, fieldRecordRoute:
		case fieldContact:
			if !done.contact {
				b, done.contact = m.contactField(b, f, w.contact), true
			}
		case fieldMaxForwards:
			b, done.forwards = m.number(b, f, uint64(w.maxForwards)), true
		case fieldCSeq:
			b = m.sequenceField(b, f, w.cseq)
		case fieldRAck:
			b = m.rackField(b, f, w.rackOffset)
		case fieldContentLength:
			b = m.number(b, f, uint64(len(w.body)))
		case fieldContentType:
			b = m.valueField(b, f, w.contentType)
		case fieldCallID:
			b = m.valueField(b, f, w.callID)
		case fieldFrom:
			b = m.valueField(b, f, withTag(m.value(f), w.fromTag))
		case fieldTo:
			b = m.valueField(b, f, withTag(m.value(f), w.toTag))
		}
	}
	bodyAt := len(m.raw) - len(m.body)
	b = append(b, m.raw[from:bodyAt-2]...)
	if w.needContact && !done.contact {
		b = append(append(append(b, "Contact: <"...), w.contact...), ">\r\n"...)
	}
	b = append(b, "\r\n"...)
	if w.newBody {
		return append(b, w.body...)
	}
	return append(b, m.body...)
}

// touches reports whether fields of a kind are written anew.
func (w *rewrite) touches(id fieldID) bool {
	switch id {
	case fieldVia, fieldRoute, fieldRecordRoute:
		return true
	case fieldContact:
		return w.contact != ""
	case fieldMaxForwards:
		return w.maxForwards >= 0
	case fieldCSeq:
		return w.cseq != 0
	case fieldRAck:
		return w.rackOffset != 0
	case fieldContentLength:
		return w.newBody
	case fieldContentType:
		return w.newBody && w.contentType != ""
	case fieldCallID:
		return w.callID != ""
	case fieldFrom:
		return w.fromTag != ""
	case fieldTo:
		return w.toTag != ""
	}
	return false
}

// top writes our own lines in the place of the first Via.
func (w *rewrite) top(b []byte, m *message) []byte {
	b = append(append(b, w.via...), w.recordRoute...)
	b = appendRoutes(b, w.routes)
	if w.maxForwards >= 0 && m.maxForwards < 0 {
		b = append(strconv.AppendInt(append(b, "Max-Forwards: "...), int64(w.maxForwards), 10), "\r\n"...)
	}
	return b
}

// nextForwards is Max-Forwards for the next hop (RFC 3261 section 16.6).
func (m *message) nextForwards() int {
	if m.maxForwards < 0 {
		return 70
	}
	return max(m.maxForwards-1, 0)
}

func appendRoutes(b []byte, routes []string) []byte {
	for _, r := range routes {
		b = append(append(append(b, "Route: "...), r...), "\r\n"...)
	}
	return b
}

// valueField writes a field with another value, its name and blanks as they were.
func (m *message) valueField(b []byte, f *field, value string) []byte {
	b = append(append(b, m.raw[f.start:f.value]...), value...)
	return append(b, m.raw[f.valueEnd:f.end]...)
}

func (m *message) number(b []byte, f *field, n uint64) []byte {
	b = strconv.AppendUint(append(b, m.raw[f.start:f.value]...), n, 10)
	return append(b, m.raw[f.valueEnd:f.end]...)
}

func (m *message) sequenceField(b []byte, f *field, n uint32) []byte {
	value := m.value(f)
	i := 0
	for i < len(value) && !isSpace(value[i]) {
		i++
	}
	b = strconv.AppendUint(append(b, m.raw[f.start:f.value]...), uint64(n), 10)
	return append(b, m.raw[int(f.value)+i:f.end]...)
}

// rackField moves the CSeq number of a RAck value "response-num CSeq-num method".
func (m *message) rackField(b []byte, f *field, offset uint32) []byte {
	parts := strings.Fields(m.value(f))
	if len(parts) != 3 {
		return append(b, m.raw[f.start:f.end]...)
	}
	n, err := strconv.ParseUint(parts[1], 10, 32)
	if err != nil {
		return append(b, m.raw[f.start:f.end]...)
	}
	return m.valueField(b, f, parts[0]+" "+strconv.FormatUint(uint64(uint32(n)+offset), 10)+" "+parts[2])
}

// contactField replaces the URI of the first Contact. Display name and parameters outside the brackets stay.
func (m *message) contactField(b []byte, f *field, uri string) []byte {
	first, _ := nextElement(m.value(f))
	c := parseAddress(first)
	b = append(b, m.raw[f.start:f.value]...)
	switch {
	case first == "*" || !c.wellFormed:
		b = append(append(append(b, '<'), uri...), '>')
	case c.inBrackets:
		b = append(append(append(b, first[:c.start]...), uri...), first[c.end:]...)
	default:
		b = append(append(append(append(append(b, first[:c.start]...), '<'), uri...), '>'), first[c.end:]...)
	}
	return append(b, m.raw[f.valueEnd:f.end]...)
}

// responseVia returns the Via lines of a response to the request: those of the request, with received and rport filled
// in on top (RFC 3261 section 18.2.1, RFC 3581 section 4).
func (m *message) responseVia() string {
	f := m.first(fieldVia)
	if f == nil {
		return ""
	}
	source := m.from.Addr()
	sentBy, err := netip.ParseAddr(m.topVia.host)
	same := err == nil && sentBy.Unmap() == source
	if same && !m.topVia.rport {
		return m.lines(fieldVia)
	}
	element, _ := nextElement(m.value(f))
	head, params := element, ""
	if i := strings.IndexByte(element, ';'); i >= 0 {
		head, params = element[:i], element[i:]
	}
	var b strings.Builder
	b.WriteString(m.raw[f.start:f.value])
	b.WriteString(strings.TrimRight(head, " \t\r\n"))
	for rest := params; rest != ""; {
		var one string
		if one, rest = nextParameter(rest); one == "" {
			continue
		}
		key, _, _ := strings.Cut(one, "=")
		switch key = strings.TrimSpace(key); {
		case strings.EqualFold(key, "received"):
		case strings.EqualFold(key, "rport"):
			b.WriteString(";rport=")
			b.WriteString(strconv.Itoa(int(m.from.Port())))
		default:
			b.WriteByte(';')
			b.WriteString(one)
		}
	}
	b.WriteString(";received=")
	b.WriteString(source.String())
	b.WriteString(m.raw[int(f.value)+len(element) : f.end])
	for i := range m.fields {
		if g := &m.fields[i]; g.id == fieldVia && g != f {
			b.WriteString(m.raw[g.start:g.end])
		}
	}
	return b.String()
}

// phrase is the reason phrase of a response that we make ourselves (RFC 3261 section 21).
func phrase(status int) string {
	switch status {
	case 100:
		return "Trying"
	case 200:
		return "OK"
	case 400:
		return "Bad Request"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 408:
		return "Request Timeout"
	case 416:
		return "Unsupported URI Scheme"
	case 420:
		return "Bad Extension"
	case 480:
		return "Temporarily Unavailable"
	case 481:
		return "Call/Transaction Does Not Exist"
	case 482:
		return "Loop Detected"
	case 483:
		return "Too Many Hops"
	case 487:
		return "Request Terminated"
	case 488:
		return "Not Acceptable Here"
	case 491:
		return "Request Pending"
	case 500:
		return "Server Internal Error"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case 503:
		return "Service Unavailable"
	case 505:
		return "Version Not Supported"
	case 513:
		return "Message Too Large"
	}
	return "Unknown"
}

// tagSeed makes the tags of our own responses the same for every retransmission of a request, without state
// (RFC 3261 section 8.2.7), and different in every process.
type tagSeed struct{ maphash.Seed }

func (s tagSeed) tag(m *message) string {
	var h maphash.Hash
	h.SetSeed(s.Seed)
	for _, part := range [...]string{m.callID, "\n", m.fromTag, "\n", m.uri, "\n", m.topVia.branch} {
		_, _ = h.WriteString(part)
	}
	return strconv.FormatUint(h.Sum64(), 36)
}

// response builds a response of our own to the request. via is what responseVia gave; extra are whole header lines.
// A To without a tag gets the given one, unless it is empty.
func (m *message) response(b []byte, via string, status int, reason, tag, extra string) []byte {
	if reason == "" {
		reason = phrase(status)
	}
	b = strconv.AppendInt(append(b, "SIP/2.0 "...), int64(status), 10)
	b = append(append(append(append(b, ' '), reason...), "\r\n"...), via...)
	for i := range m.fields {
		f := &m.fields[i]
		switch f.id {
		case fieldFrom, fieldCallID, fieldCSeq:
			b = append(b, m.raw[f.start:f.end]...)
		case fieldTimestamp:
			if status == 100 { // RFC 3261 section 8.2.6.1
				b = append(b, m.raw[f.start:f.end]...)
			}
		case fieldTo:
			if tag == "" || m.toTag != "" {
				b = append(b, m.raw[f.start:f.end]...)
			} else {
				b = append(append(append(b, m.raw[f.start:f.valueEnd]...), ";tag="...), tag...)
				b = append(b, m.raw[f.valueEnd:f.end]...)
			}
		}
	}
	return append(append(b, extra...), "Content-Length: 0\r\n\r\n"...)
}

// head returns the part of a request that its responses repeat, as a message of its own, for the journal. What else the request holds,
// credentials among it, is not needed after a restart.
func (m *message) head() string {
	var b strings.Builder
	b.WriteString(m.raw[:m.line])
	for i := range m.fields {
		f := &m.fields[i]
		switch f.id {
		case fieldVia, fieldFrom, fieldTo, fieldCallID, fieldCSeq, fieldRecordRoute:
			b.WriteString(m.raw[f.start:f.end])
		}
	}
	b.WriteString("\r\n")
	return b.String()
}
