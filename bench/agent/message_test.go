package agent

import (
	"net/netip"
	"strings"
	"testing"
)

func lines(text ...string) []byte { return []byte(strings.Join(text, "\r\n")) }

func TestParse(t *testing.T) {
	rest := []string{"Via: SIP/2.0/UDP h;branch=z9hG4bKa", "From: <sip:a@h>;tag=1", "To: <sip:b@h>", "Call-ID: c", "CSeq: 7 BYE"}
	tests := []struct {
		name, why string
		data      []byte
		wrong     string
	}{
		{"request", "", lines(append([]string{"BYE sip:b@h SIP/2.0"}, append(rest, "", "")...)...), ""},
		{"response", "", lines(append([]string{"SIP/2.0 200 All Right"}, append(rest, "", "")...)...), ""},
		{"compact and odd case", "RFC 3261 7.3.3 and 7.3.1", lines("BYE sip:b@h SIP/2.0", "v: SIP/2.0/UDP h;branch=z9hG4bKa",
			"f: <sip:a@h>;tag=1", "T:<sip:b@h>", "i: c", "cSEQ: 7 BYE", "l: 0", "", ""), ""},
		{"folded", "RFC 3261 7.3.1", lines("BYE sip:b@h SIP/2.0", "Via: SIP/2.0/UDP h", "\t;branch=z9hG4bKa", rest[1], rest[2], rest[3], rest[4], "", ""), ""},
		{"no end", "cut off", lines(append([]string{"BYE sip:b@h SIP/2.0"}, rest...)...), "no end of headers"},
		{"no call-id", "every message has one", lines("BYE sip:b@h SIP/2.0", rest[0], rest[1], rest[2], rest[4], "", ""), "no Call-ID"},
		{"body cut off", "Content-Length says more", lines(append([]string{"BYE sip:b@h SIP/2.0"}, append(rest, "Content-Length: 4", "", "abc")...)...), "content length"},
		{"status", "out of range", lines(append([]string{"SIP/2.0 700 No"}, append(rest, "", "")...)...), "status line"},
		{"nonsense", "", []byte("GET / HTTP/1.1\r\n\r\n"), "start line"},
		{"empty header line", "folded line first", []byte("BYE sip:b@h SIP/2.0\r\n x\r\n\r\n"), "folded"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, err := parse(test.data)
			if test.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), test.wrong) {
					t.Errorf("got %v, want an error about %q", err, test.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			number, method := m.cseq()
			if m.branch() != "z9hG4bKa" || number != 7 || method != "BYE" || param(m.get("from"), "tag") != "1" || m.get("Call-ID") != "c" {
				t.Errorf("read as %+v", m)
			}
		})
	}
}

func TestResponse(t *testing.T) {
	m, err := parse(lines("INVITE sip:b@h SIP/2.0", "Via: SIP/2.0/UDP h;rport;branch=z9hG4bKa, SIP/2.0/UDP g;rport", "Via: SIP/2.0/UDP f;rport",
		"Record-Route: <sip:p>", "From: <sip:a@h>;tag=1", "To: <sip:b@h>", "Call-ID: c", "CSeq: 7 INVITE", "Subject: x", "", ""))
	if err != nil {
		t.Fatal(err)
	}
	got := string(m.response(180, "Ringing", "9", netip.MustParseAddrPort("192.0.2.7:9")).bytes())
	want := string(lines("SIP/2.0 180 Ringing", "Via: SIP/2.0/UDP h;rport=9;received=192.0.2.7;branch=z9hG4bKa, SIP/2.0/UDP g;rport", "Via: SIP/2.0/UDP f;rport",
		"Record-Route: <sip:p>", "From: <sip:a@h>;tag=1", "To: <sip:b@h>;tag=9", "Call-ID: c", "CSeq: 7 INVITE", "Content-Length: 0", "", ""))
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDestination(t *testing.T) {
	tests := []struct{ value, want string }{
		{`"B" <sip:b@192.0.2.1:5070;transport=udp>;expires=5`, "192.0.2.1:5070"},
		{"sip:192.0.2.1", "192.0.2.1:5060"},
		{"<sip:b@[2001:db8::1]:5062?x=y>", "[2001:db8::1]:5062"},
		{"<sip:b@[2001:db8::1]>", "[2001:db8::1]:5060"},
		{"<sip:b@example.com>", ""},
		{"<tel:+1>", ""},
	}
	for _, test := range tests {
		got, err := destination(uriOf(test.value))
		if (err != nil) != (test.want == "") || err == nil && got.String() != test.want {
			t.Errorf("%s: %v, %v, want %q", test.value, got, err, test.want)
		}
	}
}

func TestMedia(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"own", string(Describe(netip.MustParseAddrPort("192.0.2.1:4000"))), "192.0.2.1:4000"},
		{"own IPv6", string(Describe(netip.MustParseAddrPort("[2001:db8::1]:4000"))), "[2001:db8::1]:4000"},
		{"media level c=", "v=0\r\nc=IN IP4 192.0.2.9\r\nm=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.1\r\n", "192.0.2.1:4000"},
		{"second stream does not count", "v=0\nc=IN IP4 192.0.2.1\nm=audio 4000 RTP/AVP 0\nm=video 5000 RTP/AVP 31\nc=IN IP4 192.0.2.2\n", "192.0.2.1:4000"},
		{"none", "v=0\r\n", ""},
		{"name", "c=IN IP4 example.com\r\nm=audio 4000 RTP/AVP 0\r\n", ""},
	}
	for _, test := range tests {
		got, err := Media([]byte(test.text))
		if (err != nil) != (test.want == "") || err == nil && got.String() != test.want {
			t.Errorf("%s: %v, %v, want %q", test.name, got, err, test.want)
		}
	}
}
