package sip

import "strings"

// unfold replaces every run of white space that holds a line break by one blank (RFC 3261 section 7.3.1).
func unfold(s string) string {
	if strings.IndexByte(s, '\n') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		if !isSpace(s[i]) {
			b = append(b, s[i])
			i++
			continue
		}
		j, broken := i, false
		for j < len(s) && isSpace(s[j]) {
			broken = broken || s[j] == '\n'
			j++
		}
		if broken {
			b = append(b, ' ')
		} else {
			b = append(b, s[i:j]...)
		}
		i = j
	}
	return string(b)
}

// squeeze removes the white space that the grammar allows around separators, and reduces any other run of it to one
// blank, outside quoted strings. It does for Via values, which hold no display names.
func squeeze(s string) string {
	blanks := 0
	for i := range len(s) {
		if isSpace(s[i]) {
			blanks++
		}
	}
	if blanks == 0 || blanks == 1 && tidy(s) {
		return s
	}
	b := make([]byte, 0, len(s))
	quoted := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quoted:
			if c == '\\' && i+1 < len(s) {
				b = append(b, c)
				i++
				c = s[i]
			} else if c == '"' {
				quoted = false
			}
			b = append(b, c)
		case isSpace(c):
			for i+1 < len(s) && isSpace(s[i+1]) {
				i++
			}
			if len(b) > 0 && !separator(b[len(b)-1]) && i+1 < len(s) && !separator(s[i+1]) {
				b = append(b, ' ')
			}
		default:
			quoted = c == '"'
			b = append(b, c)
		}
	}
	return string(b)
}

// tidy reports whether the only white space of s is a blank between two words.
func tidy(s string) bool {
	i := strings.IndexByte(s, ' ')
	return i > 0 && i < len(s)-1 && !separator(s[i-1]) && !separator(s[i+1])
}

func separator(c byte) bool { return c == '/' || c == ';' || c == '=' || c == ',' || c == ':' }

// nextElement splits the first element off a list separated by commas that stand outside quoted strings and
// angle brackets.
func nextElement(s string) (first, rest string) {
	quoted, angle := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted:
			if c == '\\' {
				i++
			} else if c == '"' {
				quoted = false
			}
		case c == '"' && !angle:
			quoted = true
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case c == ',' && !angle:
			return strings.TrimSpace(s[:i]), strings.TrimSpace(s[i+1:])
		}
	}
	return strings.TrimSpace(s), ""
}

// address is a name-addr or addr-spec with its header parameters (RFC 3261 section 20.10). The positions are those of the
// URI, without angle brackets, in the text that was parsed.
type address struct {
	uri        string
	params     string // what follows, from the first semicolon on
	start, end int
	inBrackets bool
	wellFormed bool
}

// parseAddress takes one element of a From, To, Contact, Route or Record-Route value apart.
func parseAddress(s string) address {
	quoted := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quoted:
			if c == '\\' {
				i++
			} else if c == '"' {
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == '<':
			end := strings.IndexByte(s[i:], '>')
			if end < 0 {
				return address{}
			}
			a := address{uri: s[i+1 : i+end], params: strings.TrimSpace(s[i+end+1:]), start: i + 1, end: i + end, inBrackets: true}
			a.wellFormed = a.uri != "" && (a.params == "" || a.params[0] == ';') && balanced(a.params)
			return a
		}
	}
	if quoted {
		return address{}
	}
	end := strings.IndexByte(s, ';')
	if end < 0 {
		end = len(s)
	}
	start, stop := 0, trimRight(s, 0, end)
	for start < stop && isSpace(s[start]) {
		start++
	}
	a := address{uri: s[start:stop], params: s[end:], start: start, end: stop}
	// Outside brackets a comma, a question mark or white space cannot belong to the URI (RFC 3261 section 20).
	a.wellFormed = a.uri != "" && !strings.ContainsAny(a.uri, " \t\r\n,\"") && balanced(a.params)
	return a
}

// plain reports whether text that ends up in messages of our own holds nothing that could end what it stands in. URIs and
// tags hold none of that.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f || c == '<' || c == '>' || c == '"' {
			return false
		}
	}
	return s != ""
}

// balanced reports whether every quoted string ends.
func balanced(s string) bool {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '\\' && quoted:
			i++
		}
	}
	return !quoted
}

// parameter finds a parameter in text like ";a=1;b". Blanks around its parts are allowed; a quoted value keeps its quotes.
func parameter(params, name string) (value string, ok bool) {
	for params != "" {
		var one string
		one, params = nextParameter(params)
		key, val, has := strings.Cut(one, "=")
		if !strings.EqualFold(strings.TrimSpace(key), name) {
			continue
		}
		if !has {
			return "", true
		}
		return strings.TrimSpace(val), true
	}
	return "", false
}

// nextParameter splits the first parameter off, without its semicolon.
func nextParameter(s string) (one, rest string) {
	s = strings.TrimLeft(s, "; \t\r\n")
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted:
			if c == '\\' {
				i++
			} else if c == '"' {
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == ';':
			return s[:i], s[i:]
		}
	}
	return s, ""
}

// withoutParameter removes every parameter of that name from text like ";a=1;b".
func withoutParameter(params, name string) string {
	if _, ok := parameter(params, name); !ok {
		return params
	}
	var b strings.Builder
	for params != "" {
		var one string
		one, params = nextParameter(params)
		key, _, _ := strings.Cut(one, "=")
		if one != "" && !strings.EqualFold(strings.TrimSpace(key), name) {
			b.WriteByte(';')
			b.WriteString(strings.TrimSpace(one))
		}
	}
	return b.String()
}
