package media

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Body is a message body with its Content-Type header value as received. No Content-Type stands for
// application/sdp if the data looks like it.
type Body struct {
	ContentType string
	Data        []byte
}

// The limits of a multipart body. One beyond them is refused, because a session description might hide there.
const (
	maxParts = 64
	maxDepth = 4
)

// HasSDP reports whether the body is or contains a session description.
func HasSDP(b Body) bool {
	at, err := locate(b)
	return err != nil || at != nil
}

// location is where in a body the session description stands.
type location struct {
	from, to int
	// lengths are the Content-Length headers of the parts around it, outermost first.
	lengths []length
}

// length is a Content-Length header: where its digits stand, its value, and how long its part really is.
type length struct{ from, to, value, real int }

// locate finds the session description of a body (RFC 3261 section 7.4, RFC 5621); nil if it has none.
func locate(b Body) (*location, error) {
	if len(b.Data) == 0 {
		return nil, nil
	}
	kind, boundary := contentType(b.ContentType)
	if kind == "application/sdp" || kind == "" && bytes.HasPrefix(b.Data, []byte("v=0")) {
		return &location{to: len(b.Data)}, nil
	}
	f := finder{data: b.Data, parts: maxParts}
	if err := f.multipart(kind, boundary, 0, len(b.Data), nil, maxDepth); err != nil {
		return nil, err
	}
	return f.found, nil
}

// replace returns the body with another session description, the lengths of the parts around it corrected.
func (at *location) replace(b Body, description []byte) Body {
	grown := len(description) - (at.to - at.from)
	out := make([]byte, 0, len(b.Data)+grown+8)
	done := 0
	for _, l := range at.lengths {
		// The end of the last line may count or not: it belongs to the boundary. What the sender counted stays so.
		value := l.real + grown
		if off := l.value - l.real; off == 1 || off == 2 {
			value += off
		}
		out = append(out, b.Data[done:l.from]...)
		out = strconv.AppendInt(out, int64(value), 10)
		done = l.to
	}
	out = append(out, b.Data[done:at.from]...)
	out = append(out, description...)
	out = append(out, b.Data[at.to:]...)
	return Body{ContentType: b.ContentType, Data: out}
}

// contentType returns the media type in lower case and the boundary parameter, in which case counts. It reads more than
// the grammar allows, such as unquoted boundaries with any characters: what is not found here is not anchored.
func contentType(value string) (kind, boundary string) {
	value = strings.NewReplacer("\r", " ", "\n", " ", "\t", " ").Replace(value) // folded
	kind, rest, more := strings.Cut(value, ";")
	for more && boundary == "" {
		var name string
		name, rest, more = strings.Cut(rest, "=")
		if i := strings.LastIndexByte(name, ';'); i >= 0 { // parameters without a value
			name = name[i+1:]
		}
		var v string
		v, rest = parameter(strings.TrimLeft(rest, " "))
		if strings.EqualFold(strings.TrimSpace(name), "boundary") {
			boundary = v
		}
	}
	return strings.ToLower(strings.TrimSpace(kind)), boundary
}

// parameter reads a parameter's value, a quoted string or what stands before the next semicolon, and returns the rest.
func parameter(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		value, rest, _ = strings.Cut(s, ";")
		return strings.TrimRight(value, " "), rest
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// finder looks for the session description in a multipart body (RFC 2046 section 5.1).
type finder struct {
	data  []byte
	parts int // how many more parts may be looked at
	found *location
}

// multipart looks through the parts of data[from:to].
func (f *finder) multipart(kind, boundary string, from, to int, lengths []length, depth int) error {
	if !strings.HasPrefix(kind, "multipart/") || boundary == "" {
		return nil
	}
	if depth == 0 {
		return fmt.Errorf("%w: more than %d multipart bodies in each other", ErrUnacceptable, maxDepth)
	}
	start := -1 // of the part that is being read; -1 in the preamble
	for at := from; at < to; {
		next := lineAfter(f.data[:to], at)
		is, last := delimiter(f.data[at:next], boundary)
		if is {
			if start >= 0 {
				if err := f.part(start, beforeLineEnd(f.data, start, at), lengths, depth); err != nil {
					return err
				}
			}
			start = next
			if last {
				return nil
			}
		}
		at = next
	}
	if start >= 0 { // the closing delimiter is missing
		return f.part(start, to, lengths, depth)
	}
	return nil
}

// part looks at one part: headers, an empty line, the content.
func (f *finder) part(from, to int, lengths []length, depth int) error {
	if f.parts--; f.parts < 0 {
		return fmt.Errorf("%w: more than %d body parts", ErrUnacceptable, maxParts)
	}
	h := headers{}
	at := from
	for at < to {
		next := lineAfter(f.data[:to], at)
		for len(bytes.TrimRight(f.data[at:next], "\r\n")) > 0 && next < to && (f.data[next] == ' ' || f.data[next] == '\t') { // folded
			next = lineAfter(f.data[:to], next)
		}
		text := bytes.TrimRight(f.data[at:next], "\r\n")
		h.read(text, at)
		at = next
		if len(text) == 0 {
			break
		}
	}
	if h.hasLength {
		h.length.real = to - at
		lengths = append(lengths[:len(lengths):len(lengths)], h.length)
	}
	kind, boundary := contentType(h.kind)
	if kind != "application/sdp" {
		return f.multipart(kind, boundary, at, to, lengths, depth-1)
	}
	if h.disposition == "early-session" || at == to { // RFC 3959: a session of its own, which we do not anchor
		return nil
	}
	if h.encoding != "" {
		return fmt.Errorf("%w: encoded as %s", ErrUnacceptable, h.encoding)
	}
	if f.found != nil {
		return fmt.Errorf("%w: two session descriptions in one body", ErrUnacceptable)
	}
	f.found = &location{from: at, to: to, lengths: lengths}
	return nil
}

// headers are those of a part that matter.
type headers struct {
	kind, disposition, encoding string
	length                      length
	hasLength                   bool
}

// read takes a header line, unfolded or not, that begins at data[at].
func (h *headers) read(text []byte, at int) {
	name, value, found := bytes.Cut(text, []byte(":"))
	if !found {
		return
	}
	token, _, _ := strings.Cut(string(value), ";")
	token = strings.ToLower(strings.TrimSpace(token))
	switch strings.ToLower(strings.TrimSpace(string(name))) {
	case "content-type", "c":
		h.kind = string(value)
	case "content-disposition":
		h.disposition = token
	case "content-encoding", "e":
		if token != "identity" {
			h.encoding = token
		}
	case "content-transfer-encoding":
		if token != "7bit" && token != "8bit" && token != "binary" {
			h.encoding = token
		}
	case "content-length", "l":
		digits := bytes.TrimSpace(value)
		n, err := strconv.ParseUint(string(digits), 10, 31)
		if err != nil {
			return
		}
		start := at + len(text) - len(bytes.TrimLeft(value, " \t\r\n"))
		h.length = length{from: start, to: start + len(digits), value: int(n)}
		h.hasLength = true
	}
}

// delimiter reports whether a line is a delimiter of the boundary, and whether it is the closing one.
func delimiter(text []byte, boundary string) (is, last bool) {
	rest, is := bytes.CutPrefix(text, []byte("--"))
	if is {
		rest, is = bytes.CutPrefix(rest, []byte(boundary))
	}
	if !is {
		return false, false
	}
	rest = bytes.TrimRight(rest, " \t\r\n")
	return len(rest) == 0 || string(rest) == "--", string(rest) == "--"
}

// lineAfter returns the index behind the line that begins at data[at].
func lineAfter(data []byte, at int) int {
	if n := bytes.IndexByte(data[at:], '\n'); n >= 0 {
		return at + n + 1
	}
	return len(data)
}

// beforeLineEnd returns the end of data[from:to] without its last line end, which belongs to the delimiter behind it.
func beforeLineEnd(data []byte, from, to int) int {
	if to > from && data[to-1] == '\n' {
		to--
	}
	if to > from && data[to-1] == '\r' {
		to--
	}
	return to
}
