package sip

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// message is a received SIP message: the bytes as they came, an index of their header fields, and, after check, what
// the transactions and dialogs need to know of it. It is not modified after check.
type message struct {
	raw    string // from the start line to the end of the body
	fields []field
	body   string
	line   int // length of the start line with its CRLF

	// Request line, or status line.
	request bool
	method  string // of a response: that of its CSeq
	uri     string
	version string
	status  int
	reason  string

	// Where it came from.
	from  netip.AddrPort
	ln    *listener
	trunk *trunk
	at    time.Time

	// Set by check.
	topVia      via
	callID      string
	fromTag     string
	toTag       string
	cseq        uint32
	maxForwards int // -1: none
	recipient   sipgo.Uri
	contact     string // the URI of the first Contact; "": none

	store [24]field
}

// via is the topmost Via of a message.
type via struct {
	text   string // the element, squeezed
	sentBy string
	branch string
	host   string
	port   int // 0: none
	rport  bool
}

// magicCookie begins every branch that is unique by itself (RFC 3261 section 8.1.1.7).
const magicCookie = "z9hG4bK"

var (
	errNotSIP     = errors.New("start line is not of SIP")
	errStatusLine = errors.New("malformed status line")
)

// index reads the start line and finds the header fields. A request whose header section is malformed comes back
// with the error and the fields before the fault.
func (m *message) index() error {
	end, err := lineEnd(m.raw, 0)
	if err != nil {
		return errNoStartLine
	}
	m.line = end
	if err := m.startLine(m.raw[:end-2]); err != nil {
		return err
	}
	var body int
	m.fields, body, err = scan(m.raw, end, m.store[:0])
	if err != nil {
		return err
	}
	m.body = m.raw[body:]
	return nil
}

// startLine takes the first line apart. Request lines are judged later, by check, so that they can be answered.
func (m *message) startLine(line string) error {
	first, rest, ok := strings.Cut(line, " ")
	if !ok {
		return errNotSIP
	}
	if strings.HasPrefix(first, "SIP/") {
		code, reason, _ := strings.Cut(rest, " ")
		status, err := strconv.ParseUint(code, 10, 16)
		if err != nil || len(code) != 3 || status < 100 || status > 699 {
			return errStatusLine
		}
		m.version, m.status, m.reason = first, int(status), reason
		return nil
	}
	i := strings.LastIndexByte(rest, ' ')
	if i < 0 || !isToken(first) || len(rest)-i < 5 || !strings.EqualFold(rest[i+1:i+5], "SIP/") {
		return errNotSIP
	}
	m.request, m.method, m.uri, m.version = true, first, rest[:i], rest[i+1:]
	return nil
}

// first returns the first field of a kind, or nil.
func (m *message) first(id fieldID) *field {
	for i := range m.fields {
		if m.fields[i].id == id {
			return &m.fields[i]
		}
	}
	return nil
}

// value returns a field's value, folding included.
func (m *message) value(f *field) string { return m.raw[f.value:f.valueEnd] }

// text returns the value of the first field of a kind, unfolded; "" if there is none.
func (m *message) text(id fieldID) string {
	if f := m.first(id); f != nil {
		return unfold(m.value(f))
	}
	return ""
}

// lines returns all fields of a kind as they stand in the message.
func (m *message) lines(id fieldID) string {
	one, n := "", 0
	for i := range m.fields {
		if f := &m.fields[i]; f.id == id {
			if n == 0 {
				one = m.raw[f.start:f.end]
			} else {
				one += m.raw[f.start:f.end]
			}
			n++
		}
	}
	return one
}

// routeSet returns the elements of all Record-Route fields, in order (RFC 3261 section 7.3.1), without those that name no URI,
// and at most limit of them.
func (m *message) routeSet(limit int) []string {
	var all []string
	for i := range m.fields {
		if m.fields[i].id != fieldRecordRoute {
			continue
		}
		for rest := unfold(m.value(&m.fields[i])); rest != "" && len(all) < limit; {
			var one string
			if one, rest = nextElement(rest); plain(parseAddress(one).uri) {
				all = append(all, strings.Clone(one))
			}
		}
	}
	return all
}

// parseTopVia reads the first element of the first Via.
func (m *message) parseTopVia() (via, bool) {
	f := m.first(fieldVia)
	if f == nil {
		return via{}, false
	}
	element, _ := nextElement(m.value(f))
	v := via{text: squeeze(element)}
	protocol, rest, ok := strings.Cut(v.text, " ")
	if !ok || len(protocol) < 9 || !strings.EqualFold(protocol[:8], "SIP/2.0/") || !isToken(protocol[8:]) {
		return via{}, false
	}
	params := ""
	if i := strings.IndexByte(rest, ';'); i >= 0 {
		rest, params = rest[:i], rest[i:]
	}
	if !balanced(params) {
		return via{}, false // what we add to it would be lost within the quotes
	}
	v.sentBy = rest
	if v.host, v.port, ok = splitHostPort(rest); !ok {
		return via{}, false
	}
	v.branch, _ = parameter(params, "branch")
	_, v.rport = parameter(params, "rport")
	return v, true
}

// splitHostPort splits host[:port]; an IPv6 address keeps its brackets off.
func splitHostPort(s string) (host string, port int, ok bool) {
	digits := ""
	if strings.HasPrefix(s, "[") {
		i := strings.IndexByte(s, ']')
		if i < 0 {
			return "", 0, false
		}
		host, digits = s[1:i], s[i+1:]
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, digits = s[:i], s[i:]
	} else {
		host = s
	}
	if host == "" || strings.IndexByte(host, ' ') >= 0 {
		return "", 0, false
	}
	if digits == "" {
		return host, 0, true
	}
	n, err := strconv.ParseUint(digits[1:], 10, 16)
	if digits[0] != ':' || err != nil {
		return "", 0, false
	}
	return host, int(n), true
}
