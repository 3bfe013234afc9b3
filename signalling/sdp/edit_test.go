package sdp

import (
	"strings"
	"testing"
)

func TestEdit(t *testing.T) {
	ours, other := addr("203.0.113.10"), addr("203.0.113.11")
	v6 := addr("2001:db8::10")
	head := []string{"v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-"}
	doc := func(lines ...string) string { return text(append(append([]string(nil), head...), lines...)...) }
	for _, c := range []struct {
		name     string
		in, want string
		edit     func(*Description)
	}{
		{"session address, o= stays",
			doc("c=IN IP4 192.0.2.1", "t=0 0", "m=audio 4000 RTP/AVP 0"),
			doc("c=IN IP4 203.0.113.10", "t=0 0", "m=audio 20000 RTP/AVP 0"),
			func(d *Description) { d.SetSessionAddress(ours); d.SetAddress(0, ours); d.SetPort(0, 20000) }},
		{"every c= line of the session, wherever it stands",
			doc("c=IN IP4 192.0.2.1", "t=0 0", "a=x", "c=IN IP4 192.0.2.2", "m=audio 4000 RTP/AVP 0"),
			doc("c=IN IP4 203.0.113.10", "t=0 0", "a=x", "c=IN IP4 203.0.113.10", "m=audio 4000 RTP/AVP 0"),
			func(d *Description) { d.SetSessionAddress(ours) }},
		{"every c= line of the stream, none of another",
			doc("m=audio 4000 RTP/AVP 0", "c=IN IP4 192.0.2.1", "a=x", "c=IN IP4 host.example", "m=video 4002 RTP/AVP 31", "c=IN IP4 192.0.2.3"),
			doc("m=audio 4000 RTP/AVP 0", "c=IN IP4 203.0.113.10", "a=x", "c=IN IP4 203.0.113.10", "m=video 4002 RTP/AVP 31", "c=IN IP4 192.0.2.3"),
			func(d *Description) { d.SetAddress(0, ours) }},
		{"another address than the session's: a line is added behind i=",
			doc("c=IN IP4 192.0.2.1", "m=audio 4000 RTP/AVP 0", "m=video 4002 RTP/AVP 31", "i=camera", "a=x"),
			doc("c=IN IP4 203.0.113.10", "m=audio 4000 RTP/AVP 0", "m=video 4002 RTP/AVP 31", "i=camera", "c=IN IP4 203.0.113.11", "a=x"),
			func(d *Description) { d.SetSessionAddress(ours); d.SetAddress(0, ours); d.SetAddress(1, other) }},
		{"no c= line at all: one is added",
			doc("m=audio 4000 RTP/AVP 0"),
			doc("m=audio 4000 RTP/AVP 0", "c=IN IP4 203.0.113.10"),
			func(d *Description) { d.SetSessionAddress(ours); d.SetAddress(0, ours) }},
		{"a kept address gets its own line",
			doc("c=IN IP4 192.0.2.1", "m=message 2855 TCP/MSRP *", "a=x"),
			doc("c=IN IP4 203.0.113.10", "m=message 2855 TCP/MSRP *", "c=IN IP4 192.0.2.1", "a=x"),
			func(d *Description) { d.KeepAddress(0); d.SetSessionAddress(ours) }},
		{"a kept address that has its own line already",
			doc("c=IN IP4 192.0.2.1", "m=message 2855 TCP/MSRP *", "c=IN IP4 192.0.2.2"),
			doc("c=IN IP4 203.0.113.10", "m=message 2855 TCP/MSRP *", "c=IN IP4 192.0.2.2"),
			func(d *Description) { d.KeepAddress(0); d.SetSessionAddress(ours) }},
		{"hold by 0.0.0.0 at session level",
			doc("c=IN IP4 0.0.0.0", "m=audio 4000 RTP/AVP 0"),
			doc("c=IN IP4 0.0.0.0", "m=audio 20000 RTP/AVP 0"),
			func(d *Description) {
				d.KeepAddress(0)
				d.SetSessionAddress(ours)
				d.SetAddress(0, ours)
				d.SetPort(0, 20000)
			}},
		{"hold by 0.0.0.0 of one stream",
			doc("c=IN IP4 192.0.2.1", "m=audio 4000 RTP/AVP 0", "c=IN IP4 0.0.0.0", "m=video 4002 RTP/AVP 31"),
			doc("c=IN IP4 203.0.113.10", "m=audio 4000 RTP/AVP 0", "c=IN IP4 0.0.0.0", "m=video 4002 RTP/AVP 31"),
			func(d *Description) { d.SetSessionAddress(ours); d.SetAddress(0, ours); d.SetAddress(1, ours) }},
		{"hold by ::",
			doc("c=IN IP6 ::", "m=audio 4000 RTP/AVP 0"), doc("c=IN IP6 ::", "m=audio 4000 RTP/AVP 0"),
			func(d *Description) { d.SetSessionAddress(ours); d.SetAddress(0, ours) }},
		{"not of the internet",
			doc("c=TN RFC2543 +1-201-555-0123", "m=audio 4000 RTP/AVP 0"), doc("c=TN RFC2543 +1-201-555-0123", "m=audio 4000 RTP/AVP 0"),
			func(d *Description) { d.SetSessionAddress(ours); d.SetAddress(0, ours) }},
		{"from IPv4 to IPv6",
			doc("c=IN IP4 192.0.2.1", "m=audio 4000 RTP/AVP 0", "a=rtcp:4001 IN IP4 192.0.2.1", "m=audio 4002 RTP/AVP 0", "c=IN IP4 192.0.2.2"),
			doc("c=IN IP6 2001:db8::10", "m=audio 4000 RTP/AVP 0", "a=rtcp:20001 IN IP6 2001:db8::10", "m=audio 4002 RTP/AVP 0", "c=IN IP6 2001:db8::10"),
			func(d *Description) {
				d.SetSessionAddress(v6)
				d.SetAddress(0, v6)
				d.SetAddress(1, v6)
				d.SetRTCP(0, 20001, v6)
			}},
		{"from IPv6 to IPv4",
			doc("c=IN IP6 2001:db8::1", "m=audio 4000 RTP/AVP 0"), doc("c=IN IP4 203.0.113.10", "m=audio 4000 RTP/AVP 0"),
			func(d *Description) { d.SetSessionAddress(ours); d.SetAddress(0, ours) }},
		{"TTL and count of a group go with it",
			doc("c=IN IP4 224.2.1.1/127/3", "m=audio 4000 RTP/AVP 0"), doc("c=IN IP4 203.0.113.10", "m=audio 4000 RTP/AVP 0"),
			func(d *Description) { d.SetSessionAddress(ours) }},
		{"blanks and what follows stay",
			doc("c=in  ip4   192.0.2.1  x ", "m=audio  4000   RTP/AVP  0  ", "a=rtcp: 4001  x"),
			doc("c=in  ip4   203.0.113.10  x ", "m=audio  20000   RTP/AVP  0  ", "a=rtcp: 20001  x"),
			func(d *Description) { d.SetSessionAddress(ours); d.SetPort(0, 20000); d.SetRTCP(0, 20001, ours) }},
		{"a port count of 1 stays, a higher one goes",
			doc("m=audio 4000/1 RTP/AVP 0", "m=audio 4002/2 RTP/AVP 0"), doc("m=audio 20000/1 RTP/AVP 0", "m=audio 20002 RTP/AVP 0"),
			func(d *Description) { d.SetPort(0, 20000); d.SetPort(1, 20002) }},
		{"an edit done twice is the second",
			doc("c=IN IP4 192.0.2.1", "m=audio 4000 RTP/AVP 0", "a=rtcp:4001"), doc("c=IN IP4 203.0.113.11", "m=audio 6 RTP/AVP 0", "a=rtcp:7"),
			func(d *Description) {
				d.SetSessionAddress(ours)
				d.SetPort(0, 20000)
				d.SetRTCP(0, 20001, ours)
				d.SetSessionAddress(other)
				d.SetPort(0, 6)
				d.SetRTCP(0, 7, ours)
			}},
		{"rtcp with port and with address",
			doc("m=audio 4000 RTP/AVP 0", "a=rtcp:4001", "m=audio 4002 RTP/AVP 0", "a=rtcp:4003 IN IP4 192.0.2.1"),
			doc("m=audio 4000 RTP/AVP 0", "a=rtcp:20001", "m=audio 4002 RTP/AVP 0", "a=rtcp:20003 IN IP4 203.0.113.10"),
			func(d *Description) { d.SetRTCP(0, 20001, ours); d.SetRTCP(1, 20003, ours) }},
		{"rtcp twice, port 0, held and unreadable",
			doc("m=audio 4000 RTP/AVP 0", "a=rtcp:4001", "a=rtcp:0", "a=rtcp:4003 IN IP4 0.0.0.0", "a=rtcp:x", "a=rtcp", "a=rtcp-mux", "a=rtcp-fb:* nack"),
			doc("m=audio 4000 RTP/AVP 0", "a=rtcp:9", "a=rtcp:0", "a=rtcp:9 IN IP4 0.0.0.0", "a=rtcp:9", "a=rtcp:9", "a=rtcp-mux", "a=rtcp-fb:* nack"),
			func(d *Description) { d.SetRTCP(0, 9, ours) }},
		{"rtcp added in front of the first attribute",
			doc("m=audio 4000 RTP/AVP 0", "c=IN IP4 192.0.2.1", "b=AS:64", "a=ptime:20", "b=AS:1", "m=video 0 RTP/AVP 31", "a=rtcp:1"),
			doc("m=audio 4000 RTP/AVP 0", "c=IN IP4 192.0.2.1", "b=AS:64", "a=rtcp:9", "a=ptime:20", "b=AS:1", "m=video 0 RTP/AVP 31", "a=rtcp:1"),
			func(d *Description) { d.SetRTCP(0, 9, ours) }},
		{"rtcp added with a c= line",
			doc("m=audio 4000 RTP/AVP 0", "a=x"), doc("m=audio 4000 RTP/AVP 0", "c=IN IP4 203.0.113.10", "a=rtcp:9", "a=x"),
			func(d *Description) { d.SetRTCP(0, 9, ours); d.SetAddress(0, ours) }},
		{"rtcp is not put behind an empty line",
			doc("m=audio 4000 RTP/AVP 0", "", ""), doc("m=audio 4000 RTP/AVP 0", "a=rtcp:9", "", ""),
			func(d *Description) { d.SetRTCP(0, 9, ours) }},
		{"ICE goes from session and streams, in any case",
			doc("a=ice-lite", "a=ice-options:trickle ice2", "a=ice-pacing:50", "m=audio 4000 RTP/AVP 0", "a=ice-ufrag:a", "a=ice-pwd:b", "a=mid:0", "a=candidate:1 1 UDP 1 192.0.2.1 4000 typ host",
				"a=Candidate:1 1 UDP 1 192.0.2.1 4000 typ host", "a=remote-candidates:1 192.0.2.1 4000", "a=end-of-candidates", "a=ice-mismatch", "a=msid:x y", "a=candidates:other", "a=x-ice-lite"),
			doc("m=audio 4000 RTP/AVP 0", "a=mid:0", "a=msid:x y", "a=candidates:other", "a=x-ice-lite"),
			func(d *Description) { d.RemoveICE() }},
		{"BUNDLE goes, other groups stay, and so does port 0",
			doc("a=group:BUNDLE 0 1", "a=group:LS 0 1", "a=group: bundle 0", "a=group", "m=audio 4000 RTP/AVP 0", "a=mid:0", "m=video 0 RTP/AVP 31", "a=bundle-only", "a=mid:1"),
			doc("a=group:LS 0 1", "a=group", "m=audio 4000 RTP/AVP 0", "a=mid:0", "m=video 0 RTP/AVP 31", "a=mid:1"),
			func(d *Description) { d.RemoveBundle() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, v := range []struct {
				name string
				form func(string) string
			}{
				{"CRLF", func(s string) string { return s }},
				{"LF", func(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }},
				{"no last line end", func(s string) string { return strings.TrimSuffix(s, "\r\n") }},
			} {
				in := v.form(c.in)
				d := parse(t, in)
				c.edit(d)
				if got, want := string(d.Bytes()), v.form(c.want); got != want {
					t.Errorf("%s:\ngot  %q\nwant %q", v.name, got, want)
				}
			}
		})
	}
}

// TestRemoveLast: the last line goes, and nothing else with it.
func TestRemoveLast(t *testing.T) {
	d := parse(t, "v=0\r\nm=audio 4000 RTP/AVP 0\r\na=ice-lite")
	d.RemoveICE()
	d.SetRTCP(0, 9, addr("203.0.113.10"))
	if got, want := string(d.Bytes()), "v=0\r\nm=audio 4000 RTP/AVP 0\r\na=rtcp:9\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestLoneCR: what some peers take for a line is one.
func TestLoneCR(t *testing.T) {
	d := parse(t, "v=0\rc=IN IP4 192.0.2.1\rm=audio 4000 RTP/AVP 0\ra=rtcp:5\r\r")
	d.SetSessionAddress(addr("203.0.113.10"))
	d.SetPort(0, 20000)
	d.SetRTCP(0, 20001, addr("203.0.113.10"))
	if got, want := string(d.Bytes()), "v=0\rc=IN IP4 203.0.113.10\rm=audio 20000 RTP/AVP 0\ra=rtcp:20001\r\r"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
