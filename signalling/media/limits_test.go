package media

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/ports"
)

// video are m= lines from a port on.
func video(from, n int) []string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("m=video %d RTP/AVP 31", from+2*i))
	}
	return lines
}

// TestMaxLines: no description takes more than its share of the ports.
func TestMaxLines(t *testing.T) {
	t.Run("at the limit", func(t *testing.T) {
		c := newCall(t)
		c.offer(c.a, c.b, audio("198.51.100.20", "4000", video(4002, MaxLines-1)...))
		c.answer(c.b, c.a, audio("10.0.0.5", "6000", video(6002, MaxLines-1)...))
		c.offer(c.b, c.a, audio("10.0.0.5", "6000", video(6002, MaxLines-1)...)) // those that are there may be offered again
		if n := c.ports.(*fakePorts).used["inside"]; n != MaxLines {
			t.Errorf("%d pairs inside", n)
		}
	})
	t.Run("lines without ports do not count", func(t *testing.T) {
		c := newCall(t)
		c.offer(c.a, c.b, audio("198.51.100.20", "4000", append(video(4002, MaxLines-1), "m=video 0 RTP/AVP 31", "m=x 2855 TCP/MSRP *")...))
	})
	for _, test := range []struct {
		name  string
		setUp func(*call)
		sdp   string
	}{
		{"one beyond it", func(*call) {}, audio("198.51.100.20", "4000", video(4002, MaxLines)...)},
		{"as many as a description can have", func(*call) {}, audio("198.51.100.20", "4000", video(4002, 63)...)},
		{"one after the other: removed lines keep their ports", func(c *call) {
			gone := []string{}
			for range MaxLines - 1 {
				c.offer(c.a, c.b, audio("198.51.100.20", "4000", append(gone, "m=video 4002 RTP/AVP 31")...))
				gone = append(gone, "m=video 0 RTP/AVP 31")
			}
		}, audio("198.51.100.20", "4000", append(strings.Split(strings.Repeat("m=video 0 RTP/AVP 31,", MaxLines-1), ",")[:MaxLines-1], "m=video 4002 RTP/AVP 31")...)},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCall(t)
			test.setUp(c)
			before := c.session.Clone()
			_, err := c.engine.Offer(c.ports, c.session, c.a, c.b, body(test.sdp))
			if !errors.Is(err, ErrUnacceptable) || !strings.Contains(err.Error(), "at most 8 lines") {
				t.Errorf("error %v", err)
			}
			if n := c.ports.(*fakePorts).used["inside"]; n > MaxLines {
				t.Errorf("%d pairs were taken", n)
			}
			if !reflect.DeepEqual(c.session, before) {
				t.Errorf("the session was changed: %+v", c.session)
			}
		})
	}
}

// TestMinPort: media goes to no port of a system service, whoever asks.
func TestMinPort(t *testing.T) {
	for _, test := range []struct {
		name, sdp, reads string
	}{
		{"RTP", audio("198.51.100.20", "53"), "port 53 is below 1024"},
		{"the last of them", audio("198.51.100.20", "1023"), "port 1023 is below 1024"},
		{"the first allowed one", audio("198.51.100.20", "1024"), ""},
		{"RTCP", audio("198.51.100.20", "4000", "a=rtcp:53"), "RTCP port 53 is below 1024"},
		{"RTCP, of a media address of ours", audio("203.0.113.10", "20000", "a=rtcp:53 IN IP4 203.0.113.10"), "RTCP port 53 is below 1024"},
		{"RTCP at no address: nothing is sent there", audio("198.51.100.20", "4000", "a=rtcp:9 IN IP4 0.0.0.0"), ""},
		{"port 0: rejected", audio("198.51.100.20", "0"), ""},
		{"RTCP port 0: none", audio("198.51.100.20", "4000", "a=rtcp:0"), ""},
		{"no address yet", audio("0.0.0.0", "9"), ""},
		{"a transport that passes untouched", audio("198.51.100.20", "4000", "m=x 9 TCP/MSRP *"), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCall(t)
			_, err := c.engine.Offer(c.ports, c.session, c.a, c.b, body(test.sdp))
			switch {
			case test.reads == "" && err != nil:
				t.Error(err)
			case test.reads != "" && (!errors.Is(err, ErrUnacceptable) || !strings.Contains(err.Error(), test.reads)):
				t.Errorf("error %v, want %q", err, test.reads)
			}
		})
	}
}

// TestOwnPorts: at a media address of ours only media is relayed, other services of this host may listen there too.
func TestOwnPorts(t *testing.T) {
	own, other := addr("203.0.113.10"), addr("10.7.0.1")
	e := New(Config{Networks: []Network{
		{Name: "outside", Media: []netip.Addr{own}, Ranges: map[netip.Addr][]ports.Range{own: {{First: 20000, Last: 20999}, {First: 30000, Last: 30999}}}},
		{Name: "inside", Trust: true, Media: []netip.Addr{addr("10.0.0.1"), other}, Advertise: map[netip.Addr]netip.Addr{other: addr("198.51.100.7")},
			Ranges: map[netip.Addr][]ports.Range{other: {{First: 40000, Last: 40999}}}},
	}})
	for to, want := range map[string]bool{
		"203.0.113.10:20000": true, "203.0.113.10:20998": true, "203.0.113.10:30000": true, "203.0.113.10:5060": false, "203.0.113.10:21000": false,
		"203.0.113.10:19998": false, "203.0.113.10:40000": false, "198.51.100.7:40000": true, "198.51.100.7:5060": false, "10.0.0.1:5060": true,
	} {
		c := newCall(t)
		c.engine = e
		c.offer(c.a, c.b, audio(addrPort(to).Addr().String(), fmt.Sprint(addrPort(to).Port())))
		if got := c.stream("a", 0).Remote; got.RTP.IsValid() != want {
			t.Errorf("%s: sent to %v, want %v", to, got.RTP, want)
		}
	}
	c := newCall(t)
	c.engine = e
	c.offer(c.a, c.b, audio("203.0.113.10", "20000", "a=rtcp:5060"))
	want := relay.Remote{Signalled: addrPort("203.0.113.10:20000"), RTP: addrPort("203.0.113.10:20000")}
	if got := c.stream("a", 0).Remote; got != want {
		t.Errorf("RTCP: %+v", got)
	}
}
