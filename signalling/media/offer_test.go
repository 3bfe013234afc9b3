package media

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/tandem-relay/tandem/signalling/sdp"
)

func TestBasicCall(t *testing.T) {
	c := newCall(t)
	o := "o=- 1 1 IN IP4 198.51.100.20"
	got := c.offer(c.a, c.b, audio("198.51.100.20", "4000"))
	c.expect(got, strings.Replace(audio("10.0.0.1", "20000"), "o=- 1 1 IN IP4 10.0.0.1", o, 1))
	got = c.answer(c.b, c.a, audio("10.0.0.5", "6000"))
	c.expect(got, strings.Replace(audio("203.0.113.10", "20000"), "o=- 1 1 IN IP4 203.0.113.10", "o=- 1 1 IN IP4 10.0.0.5", 1))
	want := &relay.Session{ID: "s",
		Parties: []relay.Party{
			{ID: "a", Network: "outside", Label: "phone", Streams: []relay.Stream{{
				Media: "audio", Proto: "RTP/AVP", Window: 1, Accept: only("198.51.100.20"),
				Local:  relay.Pair{Addr: addr("203.0.113.10"), RTP: 20000, RTCP: 20001},
				Remote: relay.Remote{RTP: addrPort("198.51.100.20:4000"), RTCP: addrPort("198.51.100.20:4001"), Signalled: addrPort("198.51.100.20:4000")},
			}}},
			{ID: "b", Network: "inside", Label: "pbx", Streams: []relay.Stream{{
				Media: "audio", Proto: "RTP/AVP", Window: 1, Accept: only("10.0.0.5"),
				Local:  relay.Pair{Addr: addr("10.0.0.1"), RTP: 20000, RTCP: 20001},
				Remote: relay.Remote{RTP: addrPort("10.0.0.5:6000"), RTCP: addrPort("10.0.0.5:6001"), Signalled: addrPort("10.0.0.5:6000")},
			}}},
		},
		Subscriptions: []relay.Subscription{
			{Source: relay.StreamRef{Party: "a"}, Sink: relay.StreamRef{Party: "b"}},
			{Source: relay.StreamRef{Party: "b"}, Sink: relay.StreamRef{Party: "a"}},
		},
	}
	if !reflect.DeepEqual(c.session, want) {
		t.Errorf("\ngot  %+v\nwant %+v", c.session, want)
	}
}

// TestRepeats: 183 and 200, session refreshes from either side, hold by direction: nothing changes.
func TestRepeats(t *testing.T) {
	c := newCall(t)
	c.setUp()
	before := c.session.Clone()
	c.answer(c.b, c.a, audio("10.0.0.5", "6000"))
	c.offer(c.a, c.b, audio("198.51.100.20", "4000"))
	c.answer(c.b, c.a, audio("10.0.0.5", "6000"))
	c.offer(c.b, c.a, audio("10.0.0.5", "6000", "a=sendonly"))
	c.answer(c.a, c.b, audio("198.51.100.20", "4000", "a=recvonly"))
	if !reflect.DeepEqual(c.session, before) {
		t.Errorf("\ngot  %+v\nwant %+v", c.session, before)
	}
}

// TestWindow: learning opens again when a line's address, port or source changed, for that side alone.
func TestWindow(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*call)
		want   [2]uint16
	}{
		{"answer from another address", func(c *call) { c.answer(c.b, c.a, audio("10.0.0.6", "6000")) }, [2]uint16{1, 2}},
		{"answer with another port", func(c *call) { c.answer(c.b, c.a, audio("10.0.0.5", "6002")) }, [2]uint16{1, 2}},
		{"answer with another RTCP port", func(c *call) { c.answer(c.b, c.a, audio("10.0.0.5", "6000", "a=rtcp:6007")) }, [2]uint16{1, 2}},
		{"offer with another port", func(c *call) { c.offer(c.a, c.b, audio("198.51.100.20", "4002")) }, [2]uint16{2, 1}},
		{"offer of the callee with another port", func(c *call) { c.offer(c.b, c.a, audio("10.0.0.5", "6002")) }, [2]uint16{1, 2}},
		{"other codecs", func(c *call) {
			c.offer(c.a, c.b, strings.Replace(audio("198.51.100.20", "4000"), "AVP 0 8", "AVP 8", 1))
		}, [2]uint16{1, 1}},
		{"signalling from another address, which does not matter", func(c *call) {
			c.a.From = addr("198.51.100.21")
			c.offer(c.a, c.b, audio("198.51.100.20", "4000"))
		}, [2]uint16{1, 1}},
		{"a private address behind NAT", func(c *call) { c.offer(c.a, c.b, audio("192.168.1.5", "4000")) }, [2]uint16{2, 1}},
		{"another private port behind NAT, though nothing is sent there", func(c *call) {
			c.offer(c.a, c.b, audio("192.168.1.5", "4000"))
			c.offer(c.a, c.b, audio("192.168.1.5", "4002"))
		}, [2]uint16{3, 1}},
		{"signalling from another address behind NAT", func(c *call) {
			c.offer(c.a, c.b, audio("192.168.1.5", "4000"))
			c.a.From = addr("198.51.100.21")
			c.offer(c.a, c.b, audio("192.168.1.5", "4000"))
		}, [2]uint16{3, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newCall(t)
			k.setUp()
			locals := [2]relay.Pair{k.stream("a", 0).Local, k.stream("b", 0).Local}
			c.change(k)
			if got := k.windows(); got != c.want {
				t.Errorf("windows %v, want %v", got, c.want)
			}
			if got := [2]relay.Pair{k.stream("a", 0).Local, k.stream("b", 0).Local}; got != locals {
				t.Errorf("local ports went from %v to %v", locals, got)
			}
		})
	}
}

// TestHold: 0.0.0.0 stops what goes to its party and keeps everything that was learnt; the description says 0.0.0.0 still.
func TestHold(t *testing.T) {
	for _, hold := range []string{"0.0.0.0", "::"} {
		c := newCall(t)
		c.setUp()
		before := c.session.Clone()
		held := strings.Replace(audio("0.0.0.0", "4000"), "IN IP4 0.0.0.0", "IN IP4 198.51.100.20", 1)
		if hold == "::" {
			held = strings.Replace(held, "c=IN IP4 0.0.0.0", "c=IN IP6 ::", 1)
		}
		got := c.offer(c.a, c.b, held)
		c.expect(got, strings.Replace(held, "m=audio 4000", "m=audio 20000", 1))
		if c.stream("b", 0).Mode != relay.Hold || c.stream("a", 0).Mode != 0 {
			t.Errorf("modes %v and %v", c.stream("a", 0).Mode, c.stream("b", 0).Mode)
		}
		c.answer(c.b, c.a, audio("10.0.0.5", "6000")) // music on hold
		c.offer(c.b, c.a, audio("10.0.0.5", "6000"))  // a refresh of the held side does not end the hold
		c.answer(c.a, c.b, held)
		if c.stream("b", 0).Mode != relay.Hold {
			t.Error("a refresh ended the hold")
		}
		want := before.Clone()
		want.Party("b").Streams[0].Mode = relay.Hold
		if !reflect.DeepEqual(c.session, want) {
			t.Errorf("held\ngot  %+v\nwant %+v", c.session, want)
		}
		c.offer(c.a, c.b, audio("198.51.100.20", "4000"))
		if !reflect.DeepEqual(c.session, before) {
			t.Errorf("resumed\ngot  %+v\nwant %+v", c.session, before)
		}
	}
}

// TestHeldFromTheStart: a first description of 0.0.0.0 has no former remote; the next one is what counts.
func TestHeldFromTheStart(t *testing.T) {
	c := newCall(t)
	c.offer(c.a, c.b, audio("0.0.0.0", "4000"))
	c.answer(c.b, c.a, audio("10.0.0.5", "6000"))
	c.offer(c.a, c.b, audio("0.0.0.0", "4000"))
	a := c.stream("a", 0)
	if a.Remote != (relay.Remote{Signalled: addrPort("0.0.0.0:4000")}) || a.Window != 1 || c.stream("b", 0).Mode != relay.Hold {
		t.Errorf("held: %+v, other side %v", *a, c.stream("b", 0).Mode)
	}
	c.a.From = addr("198.51.100.21") // there is nothing learnt to keep
	c.offer(c.a, c.b, audio("0.0.0.0", "4000"))
	if a := c.stream("a", 0); !equalSets(a.Accept, only("198.51.100.21")) || a.Window != 2 {
		t.Errorf("held, signalling moved: %+v", *a)
	}
	c.offer(c.a, c.b, audio("198.51.100.20", "4000"))
	if a := c.stream("a", 0); a.Remote.RTP != addrPort("198.51.100.20:4000") || a.Window != 3 || c.stream("b", 0).Mode != 0 {
		t.Errorf("resumed: %+v, other side %v", *a, c.stream("b", 0).Mode)
	}
}

func TestBlockStays(t *testing.T) {
	c := newCall(t)
	c.setUp()
	c.stream("b", 0).Mode = relay.Block
	c.offer(c.a, c.b, audio("198.51.100.20", "4002"))
	if c.stream("b", 0).Mode != relay.Block {
		t.Error("an offer took a block away")
	}
}

// TestLateOffer: the callee offers in its 200, the caller answers in its ACK.
func TestLateOffer(t *testing.T) {
	c := newCall(t)
	got := c.offer(c.b, c.a, audio("10.0.0.5", "6000"))
	if !strings.Contains(got, "c=IN IP4 203.0.113.10") || !strings.Contains(got, "m=audio 20000") {
		t.Errorf("offer %q", got)
	}
	got = c.answer(c.a, c.b, audio("198.51.100.20", "4000"))
	if !strings.Contains(got, "c=IN IP4 10.0.0.1") || !strings.Contains(got, "m=audio 20000") {
		t.Errorf("answer %q", got)
	}
	if c.stream("a", 0).Remote.RTP != addrPort("198.51.100.20:4000") || c.stream("b", 0).Remote.RTP != addrPort("10.0.0.5:6000") {
		t.Errorf("%+v", c.session.Parties)
	}
}

func TestLinesComeAndGo(t *testing.T) {
	c := newCall(t)
	c.setUp()
	video := func(address, port, videoPort string) string {
		return audio(address, port, "m=video "+videoPort+" RTP/AVP 31")
	}
	got := c.offer(c.a, c.b, video("198.51.100.20", "4000", "4002"))
	if !strings.Contains(got, "m=video 20002 ") {
		t.Errorf("added: %q", got)
	}
	c.answer(c.b, c.a, video("10.0.0.5", "6000", "6002"))
	if n := len(c.session.Subscriptions); n != 4 {
		t.Errorf("%d subscriptions", n)
	}
	pair := c.stream("a", 1).Local

	got = c.offer(c.a, c.b, video("198.51.100.20", "4000", "0"))
	if !strings.Contains(got, "m=video 0 ") {
		t.Errorf("removed: %q", got)
	}
	c.answer(c.b, c.a, video("10.0.0.5", "6000", "0"))
	for _, id := range []relay.PartyID{"a", "b"} {
		s := c.stream(id, 1)
		if s.Local.RTP != pair.RTP || s.Remote != (relay.Remote{}) || s.Mode != relay.Hold || s.Accept.Any || s.Accept.Nets != nil {
			t.Errorf("removed %s: %+v", id, *s)
		}
	}
	got = c.offer(c.b, c.a, video("10.0.0.5", "6000", "6002")) // the other side brings it back
	if !strings.Contains(got, "m=video 20002 ") {
		t.Errorf("back: %q", got)
	}
	got = c.answer(c.a, c.b, video("198.51.100.20", "4000", "4002"))
	if !strings.Contains(got, "m=video 20002 ") || c.stream("a", 1).Local != pair || c.stream("a", 1).Mode != 0 || c.stream("b", 1).Mode != 0 {
		t.Errorf("back: %q, %+v", got, c.session.Parties)
	}
	// A line that vanishes, against RFC 3264 section 8, is one that was removed.
	c.offer(c.a, c.b, audio("198.51.100.20", "4000"))
	if s := c.stream("a", 1); s.Remote != (relay.Remote{}) || s.Local != pair || c.stream("b", 1).Mode != relay.Hold {
		t.Errorf("vanished: %+v", *s)
	}
	if n := len(c.session.Subscriptions); n != 4 {
		t.Errorf("%d subscriptions", n)
	}
}

func TestAnswerShapes(t *testing.T) {
	two := func(address, first, second string) string {
		return audio(address, first, "m=video "+second+" RTP/AVP 31")
	}
	t.Run("fewer lines than offered: the others are rejected", func(t *testing.T) {
		c := newCall(t)
		c.offer(c.a, c.b, two("198.51.100.20", "4000", "4002"))
		c.answer(c.b, c.a, audio("10.0.0.5", "6000"))
		if c.stream("b", 1).Remote != (relay.Remote{}) || c.stream("a", 1).Mode != relay.Hold {
			t.Errorf("%+v", c.session.Parties)
		}
	})
	t.Run("a port for a line that was not offered", func(t *testing.T) {
		c := newCall(t)
		c.offer(c.a, c.b, two("198.51.100.20", "4000", "0"))
		got := c.answer(c.b, c.a, two("10.0.0.5", "6000", "6002"))
		if !strings.Contains(got, "m=video 0 RTP/AVP 31") || c.stream("b", 1).Remote != (relay.Remote{}) || c.stream("b", 1).Local.IsValid() {
			t.Errorf("%q, %+v", got, c.session.Parties)
		}
	})
	t.Run("all lines rejected", func(t *testing.T) {
		c := newCall(t)
		c.offer(c.a, c.b, audio("198.51.100.20", "4000"))
		got := c.answer(c.b, c.a, audio("10.0.0.5", "0"))
		if !strings.Contains(got, "m=audio 0 ") || !strings.Contains(got, "c=IN IP4 203.0.113.10") {
			t.Errorf("the address inside shows: %q", got)
		}
	})
	t.Run("a rejected line shows no address of the other side", func(t *testing.T) {
		c := newCall(t)
		c.offer(c.a, c.b, two("198.51.100.20", "4000", "4002"))
		got := c.answer(c.b, c.a, two("10.0.0.5", "6000", "0")+"c=IN IP4 10.0.0.5\r\n")
		if !strings.HasSuffix(got, "m=video 0 RTP/AVP 31\r\nc=IN IP4 203.0.113.10\r\n") {
			t.Errorf("%q", got)
		}
	})
	t.Run("no lines at all", func(t *testing.T) {
		c := newCall(t)
		none := text("v=0", "o=- 1 1 IN IP4 198.51.100.20", "s=-", "t=0 0")
		c.expect(c.offer(c.a, c.b, none), none)
		c.expect(c.answer(c.b, c.a, none), none)
	})
	t.Run("183, then a 200 that differs", func(t *testing.T) {
		c := newCall(t)
		c.offer(c.a, c.b, audio("198.51.100.20", "4000"))
		first := c.answer(c.b, c.a, audio("10.0.0.5", "6000"))
		second := c.answer(c.b, c.a, audio("10.0.0.6", "7000"))
		if m := strings.Index(first, "m="); first[m:] != second[strings.Index(second, "m="):] {
			t.Errorf("our side of it changed from %q to %q", first, second)
		}
		if s := c.stream("b", 0); s.Remote.RTP != addrPort("10.0.0.6:7000") || s.Window != 2 {
			t.Errorf("%+v", *s)
		}
	})
}

// TestFax: the audio line becomes T.38 on the same ports, and the check for RTP ends with the offer, not the answer.
func TestFax(t *testing.T) {
	fax := func(address, port string) string {
		return text("v=0", "o=- 1 2 IN IP4 "+address, "s=-", "c=IN IP4 "+address, "t=0 0", "m=image "+port+" udptl t38")
	}
	proto := func(c *call) string { return c.stream("a", 0).Proto + " " + c.stream("b", 0).Proto }
	c := newCall(t)
	c.setUp()
	before := c.session.Clone()
	got := c.offer(c.b, c.a, fax("10.0.0.5", "6000"))
	if !strings.Contains(got, "m=image 20000 udptl t38\r\n") || proto(c) != "udptl udptl" {
		t.Errorf("%q, %s", got, proto(c))
	}
	refused := c.session.Clone()
	Revert(refused, before)
	if refused.Party("a").Streams[0].Proto != "RTP/AVP" {
		t.Errorf("refused: %+v", refused)
	}
	c.answer(c.a, c.b, fax("198.51.100.20", "4000"))
	if s := c.stream("a", 0); s.Remote.RTCP.IsValid() || s.Media != "image" {
		t.Errorf("%+v", *s)
	}
	c.offer(c.a, c.b, audio("198.51.100.20", "4000"))
	if proto(c) != "udptl udptl" {
		t.Errorf("back to audio, not answered yet: %s", proto(c))
	}
	c.answer(c.b, c.a, audio("10.0.0.5", "6000"))
	if proto(c) != "RTP/AVP RTP/AVP" || c.stream("a", 0).Local != before.Party("a").Streams[0].Local {
		t.Errorf("back to audio: %+v", c.session.Parties)
	}
}

// TestForeignTransport: what does not run over UDP passes untouched, and its address with it.
func TestForeignTransport(t *testing.T) {
	for _, proto := range []string{"TCP/MSRP", "tcp/bfcp", "TCP/TLS/BFCP", "TCP/RTP/AVP", "RTP/AVP/TCP", "SCTP/DTLS", "AAL2/ITU"} {
		c := newCall(t)
		got := c.offer(c.a, c.b, audio("198.51.100.20", "4000", "m=x 2855 "+proto+" *", "a=path:y"))
		if !strings.HasSuffix(got, text("m=x 2855 "+proto+" *", "c=IN IP4 198.51.100.20", "a=path:y")) || !strings.Contains(got, "c=IN IP4 10.0.0.1\r\nt=") {
			t.Errorf("%s: %q", proto, got)
		}
		want := relay.Stream{Media: "x", Proto: proto}
		if got := *c.stream("a", 1); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v", proto, got)
		}
		if n := len(c.session.Subscriptions); n != 2 {
			t.Errorf("%s: %d subscriptions", proto, n)
		}
	}
	for _, proto := range []string{"RTP/AVP", "rtp/savpf", "UDP/TLS/RTP/SAVPF", "udptl", "UDPTL", "udp", "UDP/BFCP", "DTLS/SCTP", "UDP/DTLS/SCTP"} {
		c := newCall(t)
		if got := c.offer(c.a, c.b, audio("198.51.100.20", "4000", "m=x 2855 "+proto+" *")); !strings.Contains(got, "m=x 20002 "+proto+" *") {
			t.Errorf("%s: %q", proto, got)
		}
	}
}

// TestSeveralMediaAddresses: streams of one party may live on different addresses of ours.
func TestSeveralMediaAddresses(t *testing.T) {
	c := newCall(t)
	c.b.Network = "two"
	got := c.offer(c.a, c.b, audio("198.51.100.20", "4000", "m=video 4002 RTP/AVP 31", "m=audio 4004 RTP/AVP 0", "c=IN IP4 198.51.100.21"))
	want := strings.Replace(audio("203.0.113.21", "20000", "m=video 20002 RTP/AVP 31", "c=IN IP4 203.0.113.22", "m=audio 20004 RTP/AVP 0", "c=IN IP4 203.0.113.21"),
		"o=- 1 1 IN IP4 203.0.113.21", "o=- 1 1 IN IP4 198.51.100.20", 1)
	c.expect(got, want)
}

func TestAdvertise(t *testing.T) {
	c := newCall(t)
	c.b.Network, c.b.From = "behind", addr("198.51.100.30")
	c.ports.(*fakePorts).addrs["behind"] = []netip.Addr{addr("10.7.0.1")}
	got := c.offer(c.a, c.b, audio("198.51.100.20", "4000", "a=rtcp:4001 IN IP4 198.51.100.20"))
	if !strings.Contains(got, "c=IN IP4 198.51.100.7\r\n") || !strings.Contains(got, "a=rtcp:20001 IN IP4 198.51.100.7\r\n") || strings.Contains(got, "10.7.0.1") {
		t.Errorf("%q", got)
	}
	if l := c.stream("b", 0).Local.Addr; l != addr("10.7.0.1") {
		t.Errorf("local %v", l)
	}
}

func TestMuxedRTCP(t *testing.T) {
	c := newCall(t)
	got := c.offer(c.a, c.b, audio("198.51.100.20", "4000", "a=rtcp:4000", "a=rtcp-mux"))
	if !strings.Contains(got, "m=audio 20000 ") || !strings.Contains(got, "a=rtcp:20000\r\n") {
		t.Errorf("one port became two: %q", got)
	}
}

func TestErrors(t *testing.T) {
	limited := func(c *call) { c.ports.(*fakePorts).limit = 1 }
	for _, c := range []struct {
		name  string
		sdp   string
		setUp func(*call)
		want  error
		reads string
	}{
		{"not a description", "hello", nil, sdp.ErrSyntax, "line 1"},
		{"no address", text("v=0", "m=audio 4000 RTP/AVP 0"), nil, sdp.ErrSyntax, "line 2"},
		{"a host name", audio("phone.example.com", "4000"), nil, ErrUnacceptable, `"phone.example.com" is a host name`},
		{"a group", audio("224.2.1.1", "4000"), nil, ErrUnacceptable, "224.2.1.1 is a group"},
		{"everybody", audio("255.255.255.255", "4000"), nil, ErrUnacceptable, "255.255.255.255 is a group"},
		{"not of the internet", text("v=0", "c=TN RFC2543 +1", "m=audio 4000 RTP/AVP 0"), nil, ErrUnacceptable, "not of the internet"},
		{"of another family", text("v=0", "c=IN IP6 2001:db8::1", "m=audio 4000 RTP/AVP 0"), nil, ErrUnacceptable, "another family"},
		{"ports of one side are exhausted by the second line", audio("198.51.100.20", "4000", "m=video 4002 RTP/AVP 31"), limited, ports.ErrExhausted, "allocate ports"},
		{"a network without ports", audio("198.51.100.20", "4000"), func(c *call) { c.b.Network = "lab" }, relay.ErrNoNetwork, "lab"},
		{"unknown network of the sender", audio("198.51.100.20", "4000"), func(c *call) { c.a.Network = "nowhere" }, nil, "nowhere"},
		{"unknown network of the receiver", audio("198.51.100.20", "4000"), func(c *call) { c.b.Network = "nowhere" }, nil, "nowhere"},
		{"one party twice", audio("198.51.100.20", "4000"), func(c *call) { c.b.Party = "a" }, nil, "both sides"},
		{"a party moved to another network", audio("198.51.100.20", "4000"), func(c *call) { c.setUp(); c.a.Network = "inside" }, nil, "is in network"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newCall(t)
			if c.setUp != nil {
				c.setUp(k)
			}
			before := k.session.Clone()
			_, err := k.engine.Offer(k.ports, k.session, k.a, k.b, body(c.sdp))
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.reads) {
				t.Errorf("error %v, want %v with %q", err, c.want, c.reads)
			}
			if !reflect.DeepEqual(k.session, before) {
				t.Errorf("the session was changed: %+v", k.session)
			}
		})
	}
	for _, c := range []struct {
		name, sdp, reads string
		setUp            func(*call)
	}{
		{"answer without an offer", audio("10.0.0.5", "6000"), "without an offer", func(*call) {}},
		{"answer with more lines than the offer", audio("10.0.0.5", "6000", "m=video 0 RTP/AVP 31"), "2 m= lines", func(c *call) { c.offer(c.a, c.b, audio("198.51.100.20", "4000")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newCall(t)
			c.setUp(k)
			if _, err := k.engine.Answer(k.ports, k.session, k.b, k.a, body(c.sdp)); !errors.Is(err, ErrUnacceptable) || !strings.Contains(err.Error(), c.reads) {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("a rejected line may name anything", func(t *testing.T) {
		k := newCall(t)
		k.offer(k.a, k.b, audio("phone.example.com", "0"))
	})
}

func TestRevert(t *testing.T) {
	c := newCall(t)
	c.setUp()
	before := c.session.Clone()
	c.offer(c.a, c.b, audio("198.51.100.21", "5000", "m=video 4002 RTP/AVP 31"))
	c.stream("b", 0).Mode = relay.Block
	Revert(c.session, before)
	want := before.Clone()
	want.Party("a").Streams[0].Window = 3 // there and back
	want.Party("b").Streams[0].Mode = relay.Block
	if !reflect.DeepEqual(c.session, want) {
		t.Errorf("\ngot  %+v\nwant %+v", c.session, want)
	}
	if slices.ContainsFunc(before.Parties, func(p relay.Party) bool { return p.Streams[0].Window != 1 }) {
		t.Error("the former session was changed")
	}
}
