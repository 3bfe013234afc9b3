package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// section reads one table of the document. Every key that is asked for becomes a known one; finish reports the rest.
// What is asked for and is of a wrong type is reported and counts as absent.
type section struct {
	*report
	header string // "[[network]]", for messages
	table  *table
	known  []string
	missed []missed // what finish reports, unless it is there under a name that was misspelt
}

// missed is a key that must be there and is not.
type missed struct{ key, hint string }

// text is a string of the document and its place. The zero value was not given.
type text struct {
	string
	at  span
	set bool
}

func (s *section) get(key string, want kind) (*value, bool) {
	again := slices.Contains(s.known, key)
	if !again {
		s.known = append(s.known, key)
	}
	if s.table == nil {
		return nil, false
	}
	e, ok := s.table.values[key]
	if !ok {
		return nil, false
	}
	if e.value.kind == want {
		return e.value, true
	}
	if !again {
		s.add(e.value.at, s.typeHint(key, want, e.value), "%s must be %s, not %s", key, want, e.value.kind)
	}
	return nil, false
}

// typeHint says how to write the value instead.
func (s *section) typeHint(key string, want kind, got *value) string {
	path := key
	if s.header != "" {
		path = strings.Trim(s.header, "[]") + "." + key
	}
	switch {
	case want == kindString && (got.kind == kindInteger || got.kind == kindFloat || got.kind == kindDateTime):
		return fmt.Sprintf("put it in quotes, as in %s = %q", key, got.text)
	case want == kindTables && got.kind == kindTable:
		return fmt.Sprintf("there may be several: write it with two brackets, as [[%s]]", path)
	case want == kindTable && got.kind == kindTables:
		return fmt.Sprintf("there is only one: write it with one bracket, as [%s]", path)
	case want == kindArray && got.kind == kindString:
		return fmt.Sprintf("put it in brackets, as in %s = [%q]", key, got.text)
	case want == kindBool:
		return fmt.Sprintf("write %s = true or %s = false, without quotes", key, key)
	case want == kindInteger && got.kind == kindString:
		return "write the number without quotes"
	}
	return ""
}

func (s *section) text(key string) text {
	v, ok := s.get(key, kindString)
	if !ok {
		return text{}
	}
	return text{v.text, v.at, true}
}

// required is text that must be there and not be empty.
func (s *section) required(key, hint string) text {
	t := s.text(key)
	switch {
	case t.set && t.string == "":
		s.add(t.at, hint, "%s is empty", key)
		return text{}
	case !t.set && !s.given(key):
		s.missing(key, hint)
	}
	return t
}

// given reports whether the key is there at all, whatever its type.
func (s *section) given(key string) bool {
	if s.table == nil {
		return false
	}
	_, ok := s.table.values[key]
	return ok
}

func (s *section) missing(key, hint string) {
	s.missed = append(s.missed, missed{key, hint})
}

// misspelt reports whether the table has an unknown key that was probably meant to be this one. It can be asked once all
// keys of the section have been.
func (s *section) misspelt(key string) bool {
	if s.table == nil {
		return false
	}
	return slices.ContainsFunc(s.table.keys, func(k string) bool {
		near, ok := nearest(k, s.known)
		return ok && near == key && !slices.Contains(s.known, k)
	})
}

// name is the required name of a network or a trunk. What cannot be a name is reported and reads as empty.
func (s *section) name(hint string) text {
	t := s.required("name", hint)
	if t.string != "" && !ValidInstance(t.string) {
		s.add(t.at, nameRule, "name = %q cannot be a name", clip(t.string))
		t.string = ""
	}
	return t
}

// choice is text out of a few words; the first is the default.
func (s *section) choice(key string, words ...string) string {
	t := s.text(key)
	if !t.set {
		return words[0]
	}
	if !slices.Contains(words, t.string) {
		hint := "allowed: " + quoted(words)
		if near, ok := nearest(t.string, words); ok {
			hint = fmt.Sprintf("did you mean %q? %s", near, hint)
		}
		s.add(t.at, hint, "%s = %q is not known", key, t.string)
		return words[0]
	}
	return t.string
}

// texts is a list of strings.
func (s *section) texts(key string) []text {
	v, ok := s.get(key, kindArray)
	if !ok {
		return nil
	}
	return s.elements(key, v)
}

func (s *section) elements(key string, v *value) []text {
	var list []text
	for _, item := range v.items {
		if item.kind != kindString {
			at := item.at
			if at.end == 0 {
				at = v.at
			}
			s.add(at, elementHint(item), "each element of %s must be a string, not %s", key, item.kind)
			continue
		}
		list = append(list, text{item.text, item.at, true})
	}
	return list
}

// elementHint says how to write an element of a list of text instead.
func elementHint(got *value) string {
	switch got.kind {
	case kindInteger, kindFloat, kindDateTime:
		return fmt.Sprintf("put it in quotes, as in %q", got.text)
	case kindArray:
		return "one pair of brackets is enough"
	}
	return ""
}

func (s *section) boolean(key string, fallback bool) bool {
	v, ok := s.get(key, kindBool)
	if !ok {
		return fallback
	}
	return v.text == "true"
}

func (s *section) integer(key string, fallback, low, high int64) int64 {
	v, ok := s.get(key, kindInteger)
	if !ok {
		return fallback
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(v.text, "_", ""), 0, 64)
	if err != nil || n < low || n > high {
		s.add(v.at, fmt.Sprintf("allowed: %d to %d", low, high), "%s = %s is out of range", key, v.text)
		return fallback
	}
	return n
}

func (s *section) duration(key string, fallback, low, high time.Duration) time.Duration {
	t := s.text(key)
	if !t.set {
		return fallback
	}
	d, err := time.ParseDuration(t.string)
	if err != nil {
		s.add(t.at, `a number with a unit, as in "500ms", "2s", "10m" or "1h30m"`, "%s = %q is not a duration", key, t.string)
		return fallback
	}
	if d < low || d > high {
		s.add(t.at, fmt.Sprintf("allowed: %v to %v", low, high), "%s = %q is out of range", key, t.string)
		return fallback
	}
	return d
}

// sub is a table within this one; absent, it reads as empty.
func (s *section) sub(key string) *section {
	sub := &section{report: s.report, header: "[" + key + "]"}
	if v, ok := s.get(key, kindTable); ok {
		sub.table = v.table
	}
	return sub
}

// subs is a list of tables within this one, each called header in messages.
func (s *section) subs(key, header string) []*section {
	v, ok := s.get(key, kindTables)
	if !ok {
		return nil
	}
	var list []*section
	for _, item := range v.items {
		list = append(list, &section{report: s.report, header: header, table: item.table})
	}
	return list
}

// finish reports the keys that are missing and those that nobody asked for.
func (s *section) finish() {
	at := span{}
	if s.table != nil {
		at = s.table.at
	}
	for _, m := range s.missed {
		if !s.misspelt(m.key) {
			s.add(at, m.hint, "%s needs the key %q", s.header, m.key)
		}
	}
	if s.table == nil {
		return
	}
	for _, key := range s.table.keys {
		if slices.Contains(s.known, key) {
			continue
		}
		hint := "known here: " + strings.Join(s.known, ", ")
		if near, ok := nearest(key, s.known); ok {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		where := "at the top level"
		if s.header != "" {
			where = "in " + s.header
		}
		s.add(s.table.values[key].at, hint, "unknown key %q %s", key, where)
	}
}
