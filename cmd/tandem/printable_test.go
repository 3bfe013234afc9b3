package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/tandem-relay/tandem/signalling/rest"
)

// fill puts text into every string that v holds.
func fill(v reflect.Value, text string) {
	if !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), text)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, text)
		fill(value, text)
		v.SetMapIndex(key, value)
	case reflect.Uint64, reflect.Int:
		if v.CanUint() {
			v.SetUint(1)
		}
	}
}

// TestHostileStrings: whatever a stranger writes into a URI, the terminal gets text, in the lines and cells that are ours.
func TestHostileStrings(t *testing.T) {
	const hostile = "a\x1b]0;owned\x07\x1b[2J\r\nsession faked\t\v\f\x7f\u009b31m\u202e\u200b\xff\xfe\u2028b"
	print := func(text string) map[string]string {
		var status rest.Status
		var sessions rest.Sessions
		var drops rest.Drops
		for _, v := range []any{&status, &sessions, &drops} {
			fill(reflect.ValueOf(v).Elem(), text)
		}
		without := sessions.Sessions[0]
		without.Parties = []rest.Party{without.Parties[0]}
		without.Parties[0].Label, without.Parties[0].Streams = "", []rest.Stream{{Media: text, Signalled: text}}
		sessions.Sessions = append(sessions.Sessions, without)
		out := map[string]string{}
		for name, table := range map[string]func(*strings.Builder) error{
			"status":   func(b *strings.Builder) error { return printStatus(b, status) },
			"sessions": func(b *strings.Builder) error { return printSessions(b, sessions.Sessions, time.Now()) },
			"drops":    func(b *strings.Builder) error { return printDrops(b, drops, true) },
		} {
			var b strings.Builder
			if err := table(&b); err != nil {
				t.Fatal(err)
			}
			out[name] = b.String()
		}
		return out
	}
	tame := print("x")
	for name, text := range print(hostile) {
		for _, r := range text {
			if r != '\n' && !unicode.IsPrint(r) && r != unicode.ReplacementChar {
				t.Errorf("%s: %q reaches the terminal in %q", name, r, text)
				break
			}
		}
		if got, want := strings.Count(text, "\n"), strings.Count(tame[name], "\n"); got != want {
			t.Errorf("%s has %d lines instead of %d:\n%s", name, got, want, text)
		}
		if !strings.Contains(strings.ToLower(text), "session faked") {
			t.Errorf("%s: what is printable is gone:\n%s", name, text)
		}
	}
	// JSON keeps what was sent: it escapes by itself.
	var b strings.Builder
	o := &options{stdout: &b, json: true}
	if err := o.print(rest.Call{From: "a\x1b[2Jb"}, nil); err != nil {
		t.Fatal(err)
	}
	var call rest.Call
	if err := json.Unmarshal([]byte(b.String()), &call); err != nil || call.From != "a\x1b[2Jb" || strings.Contains(b.String(), "\x1b") {
		t.Errorf("%v: %q", err, b.String())
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"": "", "sip:j\u00fcrgen@b \u65e5": "sip:j\u00fcrgen@b \u65e5", "a\nb\tc": "a\nb\tc", "\x1b[1m": "\ufffd[1m", "\x80": "\ufffd"} {
		if got := printable(in, "\n\t"); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := printable("a\nb", ""); got != "a\ufffdb" {
		t.Errorf("%q", got)
	}
}
