package sdp

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// text joins lines with CRLF, the last one included.
func text(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n" }

func parse(t *testing.T, s string) *Description {
	t.Helper()
	d, err := Parse([]byte(s))
	if err != nil {
		t.Fatalf("parse: %v\n%s", err, s)
	}
	return d
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestUnedited: whatever can be read comes back byte for byte as long as nothing is edited.
func TestUnedited(t *testing.T) {
	for _, c := range []struct{ name, in string }{
		{"plain phone", text("v=0", "o=alice 1 1 IN IP4 192.0.2.1", "s=-", "c=IN IP4 192.0.2.1", "t=0 0", "m=audio 4000 RTP/AVP 0 8 101", "a=rtpmap:101 telephone-event/8000")},
		{"LF only", "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\nm=audio 4000 RTP/AVP 0\n"},
		{"line ends mixed", "v=0\r\no=- 1 1 IN IP4 192.0.2.1\ns=-\r\r\nc=IN IP4 192.0.2.1\rt=0 0\r\n"},
		{"no last line end", "v=0\r\ns=-\r\nm=audio 4000 RTP/AVP 0"},
		{"first line empty, as some devices send", "\r\nv=0\r\ns=-\r\n"},
		{"without o=, s= and t=", text("v=0", "c=IN IP4 192.0.2.1", "m=audio 4000 RTP/AVP 0")},
		{"lines out of place", text("v=0", "a=tool:x", "t=0 0", "b=AS:64", "c=IN IP4 192.0.2.1", "s=-", "o=- 1 1 IN IP4 192.0.2.1", "m=audio 4000 RTP/AVP 0", "a=ptime:20", "b=AS:64", "c=IN IP4 192.0.2.2", "i=late")},
		{"numbers in o= beyond 64 bits", text("v=0", "o=- 18446744073709551616123 99999999999999999999999 IN IP4 192.0.2.1", "s=-")},
		{"surveillance camera with y= and f=", text("v=0", "o=34020000001320000001 0 0 IN IP4 192.0.2.1", "s=Play", "c=IN IP4 192.0.2.1", "t=0 0", "m=video 6000 RTP/AVP 96 98 97", "a=recvonly", "y=0100000001", "f=v/2/4///a///")},
		{"fax", text("v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "c=IN IP4 192.0.2.1", "t=0 0", "m=image 5000 udptl t38", "a=T38FaxVersion:0")},
		{"unknown media, unknown letters, no letter at all", text("v=0", "s=-", "Z=what", "m=hologram 5000 RTP/AVP 0", "nonsense", "=", "a", "", "a=")},
		{"blanks doubled and at the end", text("v=0", "s= ", "c=IN  IP4   192.0.2.1  ", "m=audio  4000  RTP/AVP  0   8 ")},
		{"bytes that are not UTF-8, and NUL", "v=0\r\ns=\xff\xfe\x00\r\na=x:\x80\r\n"},
		{"session without media", text("v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "t=0 0")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := string(parse(t, c.in).Bytes()); got != c.in {
				t.Errorf("got  %q\nwant %q", got, c.in)
			}
		})
	}
}

func TestParseMedia(t *testing.T) {
	in := text("v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "c=IN IP4 192.0.2.1", "t=0 0", "a=sendonly",
		"m=audio 4000 RTP/AVP 0 8",
		"m=video 4002/2 RTP/SAVPF 96", "i=camera", "c=IN IP6 2001:db8::1", "c=IN IP6 2001:db8::2", "a=rtcp:5003 IN IP6 2001:db8::3", "a=inactive", "a=rtcp-mux",
		"m=image 5000 udptl t38", "c=IN IP4 fax.example.com", "a=sendrecv",
		"m=audio 0 RTP/AVP", "a=bundle-only",
		"m=audio 4010 RTP/AVP 0", "c=IN IP4 224.2.1.1/127/3", "a=rtcp:4100",
		"m=audio 4020 RTP/AVP 0", "c=TN RFC2543 +1-201-555-0123",
		"m=audio 4030/1 RTP/AVP 0", "c=in ip6 [2001:db8::9]", "a=rtcp:what",
		"m=audio 4040 RTP/AVP 0", "c=IN IP6 ::ffff:192.0.2.7", "a=rtcp:0",
		"m=audio 4050 RTP/AVP 0", "c=IN IP4 0.0.0.0")
	d := parse(t, in)
	if got, want := d.Connection(), (Connection{Present: true, Addr: addr("192.0.2.1")}); got != want {
		t.Errorf("session connection %+v, want %+v", got, want)
	}
	literal := func(s string) Connection { return Connection{Present: true, Addr: addr(s)} }
	want := []Media{
		{Line: 7, Type: "audio", Proto: "RTP/AVP", Port: 4000, Ports: 1, Formats: []string{"0", "8"}, Connection: literal("192.0.2.1"), Direction: SendOnly},
		{Line: 8, Type: "video", Proto: "RTP/SAVPF", Port: 4002, Ports: 2, Formats: []string{"96"}, Connection: literal("2001:db8::1"), OwnConnection: true,
			RTCP: RTCP{Present: true, Port: 5003, Connection: literal("2001:db8::3")}, Direction: Inactive, RTCPMux: true},
		{Line: 15, Type: "image", Proto: "udptl", Port: 5000, Ports: 1, Formats: []string{"t38"}, Connection: Connection{Present: true, Host: "fax.example.com"}, OwnConnection: true, Direction: SendRecv},
		{Line: 18, Type: "audio", Proto: "RTP/AVP", Ports: 1, Connection: literal("192.0.2.1"), Direction: SendOnly, BundleOnly: true},
		{Line: 20, Type: "audio", Proto: "RTP/AVP", Port: 4010, Ports: 1, Formats: []string{"0"}, Connection: literal("224.2.1.1"), OwnConnection: true, RTCP: RTCP{Present: true, Port: 4100}, Direction: SendOnly},
		{Line: 23, Type: "audio", Proto: "RTP/AVP", Port: 4020, Ports: 1, Formats: []string{"0"}, Connection: Connection{Present: true, Host: "+1-201-555-0123", Foreign: true}, OwnConnection: true, Direction: SendOnly},
		{Line: 25, Type: "audio", Proto: "RTP/AVP", Port: 4030, Ports: 1, Formats: []string{"0"}, Connection: literal("2001:db8::9"), OwnConnection: true, RTCP: RTCP{Present: true}, Direction: SendOnly},
		{Line: 28, Type: "audio", Proto: "RTP/AVP", Port: 4040, Ports: 1, Formats: []string{"0"}, Connection: literal("192.0.2.7"), OwnConnection: true, RTCP: RTCP{Present: true}, Direction: SendOnly},
		{Line: 31, Type: "audio", Proto: "RTP/AVP", Port: 4050, Ports: 1, Formats: []string{"0"}, Connection: literal("0.0.0.0"), OwnConnection: true, Direction: SendOnly},
	}
	got := d.Media()
	if len(got) != len(want) {
		t.Fatalf("%d m= lines, want %d", len(got), len(want))
	}
	for i := range got {
		g := got[i]
		g.line, g.end = 0, 0
		if !reflect.DeepEqual(g, want[i]) {
			t.Errorf("m= line %d\ngot  %+v\nwant %+v", i, g, want[i])
		}
	}
}

func TestParseErrors(t *testing.T) {
	many := func(n int, line string) string { return "v=0\r\n" + strings.Repeat(line+"\r\n", n) }
	for _, c := range []struct{ name, in, reason string }{
		{"empty", "", "nothing there"},
		{"only empty lines", "\r\n\r\n", "nothing there either"},
		{"not a description", "hello\r\n", "v= comes first (RFC 8866 section 5)"},
		{"another version", "v=1\r\ns=-\r\n", "its grammar is unknown"},
		{"m= without transport", text("v=0", "m=audio 4000"), "where its media goes cannot be told"},
		{"m= without anything", text("v=0", "m="), "as before"},
		{"port is a word", text("v=0", "m=audio high RTP/AVP 0"), "not a number"},
		{"port is negative", text("v=0", "m=audio -1 RTP/AVP 0"), "no such port"},
		{"port too high", text("v=0", "m=audio 65536 RTP/AVP 0"), "no such port"},
		{"port count 0", text("v=0", "m=audio 4000/0 RTP/AVP 0"), "no port at all"},
		{"port count is a word", text("v=0", "m=audio 4000/x RTP/AVP 0"), "not a number"},
		{"port count empty", text("v=0", "m=audio 4000/ RTP/AVP 0"), "not a number"},
		{"c= without address", text("v=0", "c=IN IP4", "m=audio 4000 RTP/AVP 0"), "a lenient peer would read something else"},
		{"c= of a stream without address", text("v=0", "m=audio 4000 RTP/AVP 0", "c="), "as before"},
		{"too long", "v=0\r\n" + strings.Repeat("a=x:"+strings.Repeat("y", 1000)+"\r\n", 70), "beyond MaxSize"},
		{"line too long", text("v=0", "a="+strings.Repeat("y", MaxLine)), "beyond MaxLine"},
		{"too many lines", many(MaxLines, "a=x"), "beyond MaxLines"},
		{"too many m= lines", many(MaxMedia+1, "m=audio 4000 RTP/AVP 0"), "beyond MaxMedia"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Parse([]byte(c.in)); !errors.Is(err, ErrSyntax) {
				t.Errorf("error %v, want ErrSyntax: %s", err, c.reason)
			}
		})
	}
	for _, c := range []struct{ name, in string }{
		{"longest line", text("v=0", "a="+strings.Repeat("y", MaxLine-2))},
		{"most lines", many(MaxLines-1, "a=x")},
		{"most m= lines", many(MaxMedia, "m=audio 4000 RTP/AVP 0")},
	} {
		t.Run(c.name, func(t *testing.T) { parse(t, c.in) })
	}
}
