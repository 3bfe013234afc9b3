package sip

import (
	"strconv"
	"strings"

	sipgo "github.com/emiago/sipgo/sip"
)

// fault says how a request that cannot be served is answered. A status of 0 means: not at all.
type fault struct {
	status int
	reason string // the reason phrase and, if it says more than the standard one, the warning text
}

func malformed(text string) *fault { return &fault{400, text} }

// maxCSeq is the highest sequence number (RFC 3261 section 8.1.1.5).
const maxCSeq = 1<<31 - 1

// maxURI bounds the URIs that are looked at, in bytes.
const maxURI = 2048

// check judges a message after index and fills in what the program needs to know. The parser sees a digest of the message:
// the start line and the header fields whose URIs and hosts are acted on, unfolded and without display names, so that white
// space and quoting that are legal but rare do not depend on it. From, To and other URIs only pass, and need not be understood.
func (m *message) check(p *sipgo.Parser, scratch []byte) ([]byte, *fault) {
	var ok bool
	if m.topVia, ok = m.parseTopVia(); !ok {
		return scratch, &fault{} // nobody to answer to
	}
	if f := m.mandatory(); f != nil {
		return scratch, f
	}
	if m.request {
		if f := m.requestLine(); f != nil {
			return scratch, f
		}
	} else if m.version != "SIP/2.0" {
		return scratch, malformed("Unknown SIP Version")
	}
	if f := m.length(); f != nil {
		return scratch, f
	}
	return m.parse(p, scratch)
}

// single holds the fields that may stand once only.
const single = 1<<fieldFrom | 1<<fieldTo | 1<<fieldCallID | 1<<fieldCSeq | 1<<fieldMaxForwards | 1<<fieldContentLength |
	1<<fieldContentType | 1<<fieldRAck

// mandatory checks the header fields that every message needs (RFC 3261 section 8.1.1, 20).
func (m *message) mandatory() *fault {
	seen := 0
	m.maxForwards = -1
	var cseq string
	for i := range m.fields {
		f := &m.fields[i]
		bit := 1 << f.id
		if single&seen&bit != 0 {
			return malformed("Repeated " + m.raw[f.start:f.name] + " Header")
		}
		seen |= bit
		switch f.id {
		case fieldCallID:
			m.callID = m.value(f)
		case fieldCSeq:
			cseq = m.value(f)
		case fieldMaxForwards:
			n, err := strconv.ParseUint(m.value(f), 10, 8)
			if err != nil {
				return malformed("Malformed Max-Forwards Header")
			}
			m.maxForwards = int(n)
		}
	}
	for _, need := range [...]struct {
		id   fieldID
		name string
	}{{fieldFrom, "From"}, {fieldTo, "To"}, {fieldCallID, "Call-ID"}, {fieldCSeq, "CSeq"}} {
		if seen&(1<<need.id) == 0 {
			return malformed("Missing " + need.name + " Header")
		}
	}
	if m.callID == "" || strings.ContainsAny(m.callID, " \t\r\n") {
		return malformed("Malformed Call-ID Header")
	}
	return m.sequence(cseq)
}

// sequence reads the CSeq value.
func (m *message) sequence(value string) *fault {
	i := 0
	for i < len(value) && !isSpace(value[i]) {
		i++
	}
	n, err := strconv.ParseUint(value[:i], 10, 32)
	method := strings.TrimSpace(value[i:])
	if err != nil || n > maxCSeq || !isToken(method) {
		return malformed("Malformed CSeq Header")
	}
	m.cseq = uint32(n)
	if !m.request {
		m.method = method
	} else if method != m.method {
		return malformed("CSeq Method Does Not Match")
	}
	return nil
}

// requestLine checks version and Request-URI.
func (m *message) requestLine() *fault {
	if m.version != "SIP/2.0" {
		if len(m.version) > 6 && m.version[4] >= '0' && m.version[4] <= '9' {
			return &fault{505, "Version Not Supported"}
		}
		return malformed("Malformed Request-Line")
	}
	if len(m.uri) > maxURI || !plain(m.uri) {
		return malformed("Malformed Request-URI")
	}
	scheme, _, ok := strings.Cut(m.uri, ":")
	if !ok || !isToken(scheme) {
		return malformed("Malformed Request-URI")
	}
	return nil
}

// length compares Content-Length with the datagram (RFC 3261 section 18.3): more than there is, is an error, and what
// follows the body is cut off.
func (m *message) length() *fault {
	f := m.first(fieldContentLength)
	if f == nil {
		return nil
	}
	n, err := strconv.ParseUint(m.value(f), 10, 31)
	if err != nil {
		return malformed("Malformed Content-Length Header")
	}
	if n > uint64(len(m.body)) {
		return malformed("Content-Length Exceeds Message")
	}
	surplus := len(m.body) - int(n)
	m.raw, m.body = m.raw[:len(m.raw)-surplus], m.body[:n]
	return nil
}

// parse hands the digest to the parser and keeps what it understood.
func (m *message) parse(p *sipgo.Parser, b []byte) ([]byte, *fault) {
	from := parseAddress(m.text(fieldFrom))
	to := parseAddress(m.text(fieldTo))
	var tagged [2]bool
	m.fromTag, tagged[0] = parameter(from.params, "tag")
	m.toTag, tagged[1] = parameter(to.params, "tag")
	switch {
	case !from.wellFormed || tagged[0] && !plain(m.fromTag):
		return b, malformed("Malformed From Header")
	case !to.wellFormed || tagged[1] && !plain(m.toTag):
		return b, malformed("Malformed To Header")
	}
	b = b[:0]
	if m.request {
		b = append(append(append(append(b, m.method...), ' '), m.uri...), " SIP/2.0\r\n"...)
	} else {
		b = append(strconv.AppendInt(append(b, "SIP/2.0 "...), int64(m.status), 10), " x\r\n"...)
	}
	b = append(append(append(b, "Via: "...), m.topVia.text...), "\r\n"...)
	if f := m.first(fieldContact); f != nil {
		first, _ := nextElement(unfold(m.value(f)))
		if c := parseAddress(first); first != "*" {
			if !c.wellFormed || len(c.uri) > maxURI || !plain(c.uri) {
				return b, malformed("Malformed Contact Header")
			}
			m.contact = c.uri
			b = append(append(append(b, "Contact: <"...), c.uri...), ">\r\n"...)
		}
	}
	b = append(b, "\r\n"...)
	parsed, err := p.ParseSIP(b)
	if err != nil {
		return b, malformed("Malformed Message")
	}
	return b, m.adopt(parsed)
}

// adopt takes over what the parser understood of the digest.
func (m *message) adopt(parsed sipgo.Message) *fault {
	switch parsed := parsed.(type) {
	case *sipgo.Request:
		if !m.request {
			return malformed("Malformed Message")
		}
		m.recipient = parsed.Recipient
		if scheme := m.recipient.Scheme; (scheme == "sip" || scheme == "sips") && m.recipient.Host == "" {
			return malformed("Malformed Request-URI")
		}
	case *sipgo.Response:
		if m.request {
			return malformed("Malformed Message")
		}
	}
	return nil
}

// newParser makes the parser that check uses.
func newParser() *sipgo.Parser { return sipgo.NewParser() }
