package config

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// syntaxProblem turns the decoder's error, whose columns are bytes, into a problem.
func syntaxProblem(source []byte, line, column int, message string) *Problem {
	lines := bytes.Split(source, []byte{'\n'})
	p := &Problem{Line: line, Column: column, Message: printable(strings.TrimPrefix(message, "toml: "))}
	if line < 1 || line > len(lines) {
		return p
	}
	text := lines[line-1]
	before := min(max(column-1, 0), len(text))
	for before > 0 && before < len(text) && !utf8.RuneStart(text[before]) {
		before--
	}
	p.Column = utf8.RuneCount(text[:before]) + 1
	p.Hint = syntaxHint(p.Message, text, string(text[before:]))
	return p
}

const quoteHint = `text, addresses and durations stand in quotes, as in name = "outside"`

// syntaxHints are what to do about the decoder's messages, by a part of them that does not name anything of the file.
var syntaxHints = [...]struct{ part, hint string }{
	{"is already defined", "a key stands once in its table: leave one of the two out"},
	{"to close", "a header ends with as many brackets as it begins with, as in [[network]]"},
	{"already exists", "a table stands once: put all its keys below one header"},
	{"cannot have new lines", "text ends on its line with the quotation mark with which it begins: one is missing here"},
	{"not terminated", "text that begins with three quotation marks ends with three"},
	{"array is incomplete", "a list ends with a bracket, as in [\"eth0\", \"eth1\"]"},
	{"inline table is incomplete", "a table in braces ends with a brace, on the same line"},
	{"after key", `a key has a value, as in name = "outside"`},
}

// syntaxHint says what to do about a message of the decoder. Rest is what stands at its place in the line.
func syntaxHint(message string, line []byte, rest string) string {
	first, _ := utf8.DecodeRuneInString(rest)
	switch {
	case !utf8.Valid(line) || bytes.ContainsFunc(line, func(r rune) bool { return unicode.IsControl(r) && r != '\t' && r != '\r' }):
		return "the line holds characters that are no text: remove them, and save the file as UTF-8"
	case strings.Contains(message, "already exists as a"):
		return bracketHint(line)
	case strings.Contains(message, "at start of key") && (first == ';' || first == '/'):
		return "comments begin with #"
	}
	for _, h := range syntaxHints {
		if strings.Contains(message, h.part) {
			return h.hint
		}
	}
	if strings.Contains(message, "at start of value") {
		word, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		switch {
		case strings.TrimSpace(rest) == "":
			return `a value is missing, as in name = "outside"`
		case strings.EqualFold(word, "true") || strings.EqualFold(word, "false"):
			return "write true or false in lower-case letters"
		case slices.Contains([]rune("\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb"), first):
			return `use the plain quotation mark "`
		case unicode.IsLetter(first):
			return quoteHint
		}
	}
	if unquoted(line) {
		return quoteHint
	}
	return ""
}

// bracketHint is the hint for a header with two brackets where another has one.
func bracketHint(line []byte) string {
	header := strings.Trim(string(line), "[] \t\r")
	if slices.Contains([]string{"network", "network.media", "trunk"}, header) {
		return "there may be several: write each with two brackets, as [[" + header + "]]"
	}
	return "write each header of that name with the same brackets"
}

// unquoted reports whether the line looks like key = text without quotes, the commonest slip of those who come from INI files.
func unquoted(line []byte) bool {
	_, after, ok := bytes.Cut(line, []byte{'='})
	after = bytes.TrimSpace(after)
	return ok && len(after) > 0 && !bytes.ContainsAny(after[:1], `"'[{`)
}
