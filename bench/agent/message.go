package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// message is a SIP request or response (RFC 3261 section 7).
type message struct {
	method, uri string // of a request
	status      int    // of a response
	reason      string
	headers     []header
	body        []byte
}

type header struct{ name, value string }

// full maps the short header names (RFC 3261 section 7.3.3) to their full ones.
func full(name string) string {
	switch strings.ToLower(name) {
	case "v":
		return "Via"
	case "f":
		return "From"
	case "t":
		return "To"
	case "i":
		return "Call-ID"
	case "m":
		return "Contact"
	case "l":
		return "Content-Length"
	case "c":
		return "Content-Type"
	}
	return name
}

// parse reads one datagram.
func parse(data []byte) (*message, error) {
	head, body, ok := bytes.Cut(data, []byte("\r\n\r\n"))
	if !ok {
		return nil, errors.New("no end of headers")
	}
	lines := strings.Split(string(head), "\r\n")
	m := &message{}
	if err := m.parseStart(lines[0]); err != nil {
		return nil, err
	}
	for _, line := range lines[1:] {
		if line[:min(1, len(line))] == " " || line[:min(1, len(line))] == "\t" { // folded, section 7.3.1
			if len(m.headers) == 0 {
				return nil, errors.New("folded line before any header")
			}
			m.headers[len(m.headers)-1].value += " " + strings.TrimSpace(line)
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("header without colon: %q", line)
		}
		m.headers = append(m.headers, header{full(strings.TrimSpace(name)), strings.TrimSpace(value)})
	}
	if length := m.get("Content-Length"); length != "" {
		n, err := strconv.Atoi(length)
		if err != nil || n < 0 || n > len(body) {
			return nil, fmt.Errorf("content length %q with %d bytes of body", length, len(body))
		}
		body = body[:n]
	}
	m.body = body
	for _, name := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
		if m.get(name) == "" {
			return nil, fmt.Errorf("no %s", name)
		}
	}
	return m, nil
}

func (m *message) parseStart(line string) error {
	first, rest, _ := strings.Cut(line, " ")
	second, third, ok := strings.Cut(rest, " ")
	switch {
	case first == "SIP/2.0":
		status, err := strconv.Atoi(second)
		if err != nil || status < 100 || status > 699 {
			return fmt.Errorf("status line %q", line)
		}
		m.status, m.reason = status, third
	case ok && third == "SIP/2.0":
		m.method, m.uri = first, second
	default:
		return fmt.Errorf("start line %q", line)
	}
	return nil
}

// get returns the first header of that name, in any case; "" if there is none.
func (m *message) get(name string) string {
	for _, h := range m.headers {
		if strings.EqualFold(h.name, name) {
			return h.value
		}
	}
	return ""
}

// set appends a header.
func (m *message) set(name, value string) { m.headers = append(m.headers, header{name, value}) }

// bytes writes the message out, with its Content-Length.
func (m *message) bytes() []byte {
	var b bytes.Buffer
	if m.method != "" {
		fmt.Fprintf(&b, "%s %s SIP/2.0\r\n", m.method, m.uri)
	} else {
		fmt.Fprintf(&b, "SIP/2.0 %d %s\r\n", m.status, m.reason)
	}
	for _, h := range m.headers {
		if strings.EqualFold(h.name, "Content-Length") {
			continue
		}
		fmt.Fprintf(&b, "%s: %s\r\n", h.name, h.value)
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(m.body))
	b.Write(m.body)
	return b.Bytes()
}

// cseq returns number and method of the CSeq header.
func (m *message) cseq() (number uint32, method string) {
	text, method, _ := strings.Cut(m.get("CSeq"), " ")
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, ""
	}
	return uint32(n), strings.TrimSpace(method)
}

// param returns a parameter of a header value, those inside <> excepted.
func param(value, name string) string {
	if _, after, ok := strings.Cut(value, ">"); ok {
		value = after
	}
	for part := range strings.SplitSeq(value, ";") {
		if key, v, _ := strings.Cut(strings.TrimSpace(part), "="); strings.EqualFold(key, name) {
			return v
		}
	}
	return ""
}

// branch returns the transaction's branch from the topmost Via.
func (m *message) branch() string {
	top, _, _ := strings.Cut(m.get("Via"), ",")
	return param(top, "branch")
}

// response makes a response to a request (RFC 3261 section 8.2.6), with received and rport as RFC 3581 wants them.
func (m *message) response(status int, reason, toTag string, from netip.AddrPort) *message {
	r := &message{status: status, reason: reason}
	top := true
	for _, h := range m.headers {
		value := h.value
		switch strings.ToLower(h.name) {
		case "via":
			if top {
				value = received(value, from)
				top = false
			}
		case "to":
			if toTag != "" && param(value, "tag") == "" {
				value += ";tag=" + toTag
			}
		case "record-route", "from", "call-id", "cseq":
		default:
			continue
		}
		r.set(h.name, value)
	}
	return r
}

// received fills the rport parameter of the topmost Via, where it asks for that.
func received(via string, from netip.AddrPort) string {
	top, rest, more := strings.Cut(via, ",")
	parts := strings.Split(top, ";")
	for i, part := range parts {
		if strings.TrimSpace(part) == "rport" {
			parts[i] = fmt.Sprintf("rport=%d;received=%s", from.Port(), from.Addr())
		}
	}
	if top = strings.Join(parts, ";"); more {
		top += "," + rest
	}
	return top
}

// uriOf returns the URI of a Contact, From, To or Route value.
func uriOf(value string) string {
	if _, after, ok := strings.Cut(value, "<"); ok {
		inside, _, _ := strings.Cut(after, ">")
		return inside
	}
	bare, _, _ := strings.Cut(value, ";")
	return strings.TrimSpace(bare)
}

// destination returns where a request with that URI is sent. Only IP literals will do.
func destination(uri string) (netip.AddrPort, error) {
	host, ok := strings.CutPrefix(uri, "sip:")
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("uri %q is no sip uri", uri)
	}
	if _, after, ok := strings.Cut(host, "@"); ok {
		host = after
	}
	if end := strings.IndexAny(host, ";?"); end >= 0 {
		host = host[:end]
	}
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return netip.AddrPortFrom(addr, 5060), nil
	}
	addr, err := netip.ParseAddrPort(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("uri %q: %w", uri, err)
	}
	return addr, nil
}
