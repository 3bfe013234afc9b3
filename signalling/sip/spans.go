package sip

import (
	"errors"
	"strings"
)

// fieldID names a header field that the program looks at. Every other field is fieldOther and passes as it is.
type fieldID uint8

const (
	fieldOther fieldID = iota
	fieldVia
	fieldFrom
	fieldTo
	fieldCallID
	fieldCSeq
	fieldContact
	fieldMaxForwards
	fieldContentLength
	fieldContentType
	fieldRoute
	fieldRecordRoute
	fieldProxyRequire
	fieldRequire
	fieldRAck
	fieldReason
	fieldTimestamp
)

// field is one header field within the raw message: [start, end) is the whole line with its folded continuation lines and the
// last CRLF, [start, name) its name as written, [value, valueEnd) its value without outer blanks.
type field struct {
	id                                fieldID
	start, name, value, valueEnd, end int32
}

// maxFields bounds the header fields of one message.
const maxFields = 256

var (
	errNoStartLine = errors.New("no start line")
	errNoEnd       = errors.New("header section does not end with an empty line")
	errBareLF      = errors.New("line ends without a carriage return")
	errFieldName   = errors.New("malformed header field name")
	errManyFields  = errors.New("too many header fields")
)

// scan indexes the header section that begins at raw[at]. It returns the fields and where the body begins. Names are recognised
// in any case and in their compact form; values are not looked at.
func scan(raw string, at int, fields []field) ([]field, int, error) {
	for {
		if strings.HasPrefix(raw[at:], "\r\n") {
			return fields, at + 2, nil
		}
		end, err := lineEnd(raw, at)
		if err != nil {
			return fields, 0, err
		}
		colon := strings.IndexByte(raw[at:end], ':')
		if colon < 0 {
			return fields, 0, errFieldName
		}
		name := trimRight(raw, at, at+colon)
		if !isToken(raw[at:name]) {
			return fields, 0, errFieldName
		}
		for end < len(raw) && isBlank(raw[end]) {
			if end, err = lineEnd(raw, end); err != nil {
				return fields, 0, err
			}
		}
		if len(fields) == maxFields {
			return fields, 0, errManyFields
		}
		value := at + colon + 1
		valueEnd := trimRight(raw, value, end)
		for value < valueEnd && isSpace(raw[value]) {
			value++
		}
		fields = append(fields, field{
			id: fieldOf(raw[at:name]), start: int32(at), name: int32(name),
			value: int32(value), valueEnd: int32(valueEnd), end: int32(end),
		})
		at = end
	}
}

// lineEnd returns the position behind the CRLF of the line that begins at at.
func lineEnd(raw string, at int) (int, error) {
	i := strings.IndexByte(raw[at:], '\n')
	if i < 0 {
		return 0, errNoEnd
	}
	if i == 0 || raw[at+i-1] != '\r' {
		return 0, errBareLF
	}
	return at + i + 1, nil
}

func trimRight(s string, from, to int) int {
	for to > from && isSpace(s[to-1]) {
		to--
	}
	return to
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// tokenChars marks the characters of a token (RFC 3261 section 25.1).
var tokenChars = func() (t [256]bool) {
	for c := range t {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		t[c] = letter || c < 128 && strings.IndexByte("-.!%*_+`'~", byte(c)) >= 0
	}
	return t
}()

func isToken(s string) bool {
	for i := range len(s) {
		if !tokenChars[s[i]] {
			return false
		}
	}
	return s != ""
}

// fieldOf recognises a header field by its name (RFC 3261 section 7.3.3: compact forms).
func fieldOf(name string) fieldID {
	if len(name) == 1 {
		switch name[0] | 0x20 {
		case 'v':
			return fieldVia
		case 'f':
			return fieldFrom
		case 't':
			return fieldTo
		case 'i':
			return fieldCallID
		case 'm':
			return fieldContact
		case 'l':
			return fieldContentLength
		case 'c':
			return fieldContentType
		}
		return fieldOther
	}
	is := func(long string, id fieldID) fieldID {
		if strings.EqualFold(name, long) {
			return id
		}
		return fieldOther
	}
	switch len(name) {
	case 2:
		return is("To", fieldTo)
	case 3:
		return is("Via", fieldVia)
	case 4:
		if id := is("From", fieldFrom); id != fieldOther {
			return id
		}
		if id := is("CSeq", fieldCSeq); id != fieldOther {
			return id
		}
		return is("RAck", fieldRAck)
	case 5:
		return is("Route", fieldRoute)
	case 6:
		return is("Reason", fieldReason)
	case 7:
		if id := is("Call-ID", fieldCallID); id != fieldOther {
			return id
		}
		if id := is("Contact", fieldContact); id != fieldOther {
			return id
		}
		return is("Require", fieldRequire)
	case 9:
		return is("Timestamp", fieldTimestamp)
	case 12:
		if id := is("Max-Forwards", fieldMaxForwards); id != fieldOther {
			return id
		}
		if id := is("Content-Type", fieldContentType); id != fieldOther {
			return id
		}
		return is("Record-Route", fieldRecordRoute)
	case 13:
		return is("Proxy-Require", fieldProxyRequire)
	case 14:
		return is("Content-Length", fieldContentLength)
	}
	return fieldOther
}
