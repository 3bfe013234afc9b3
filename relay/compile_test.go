package relay_test

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/tandem-relay/tandem/relay"
)

func isError(err, kind error, text string) bool {
	return errors.Is(err, kind) && strings.Contains(err.Error(), text)
}

func pair(addr string, rtp uint16) relay.Pair {
	return relay.Pair{Addr: netip.MustParseAddr(addr), RTP: rtp, RTCP: rtp + 1}
}

var accepted = relay.AcceptSet{Nets: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}

// twoParties is a call between a at 192.0.2.1:20000 and b at 203.0.113.1:30000.
func twoParties() *relay.Session {
	return &relay.Session{
		ID: "s",
		Parties: []relay.Party{
			{ID: "a", Network: "inside", Streams: []relay.Stream{{
				Media: "audio", Proto: "RTP/AVP", Local: pair("192.0.2.1", 20000),
				Remote: relay.Remote{RTP: endpoint("10.0.0.1:4000"), RTCP: endpoint("10.0.0.1:4001")},
				Accept: relay.AcceptSet{Any: true}, Window: 3,
			}}},
			{ID: "b", Network: "outside", Streams: []relay.Stream{{
				Media: "audio", Proto: "RTP/AVP", Local: pair("203.0.113.1", 30000),
				Remote: relay.Remote{RTP: endpoint("198.51.100.2:5000"), RTCP: endpoint("198.51.100.3:6000")},
				Accept: accepted, Window: 4,
			}}},
		},
		Subscriptions: []relay.Subscription{
			{Source: relay.StreamRef{Party: "a"}, Sink: relay.StreamRef{Party: "b"}},
			{Source: relay.StreamRef{Party: "b"}, Sink: relay.StreamRef{Party: "a"}},
		},
	}
}

// twoPartyRecords is what twoParties compiles to.
func twoPartyRecords() []relay.Record {
	record := func(local, network string, c relay.Component, accept relay.AcceptSet, window uint16, from, to, via string) relay.Record {
		return relay.Record{
			Local: endpoint(local), Network: network, Component: c, Action: relay.Forward, CheckRTP: true,
			Accept: accept, Window: window,
			Outputs: []relay.Output{{From: endpoint(from), To: endpoint(to), Network: via}},
		}
	}
	everyone := relay.AcceptSet{Any: true}
	return []relay.Record{
		record("192.0.2.1:20000", "inside", relay.RTP, everyone, 3, "203.0.113.1:30000", "198.51.100.2:5000", "outside"),
		record("192.0.2.1:20001", "inside", relay.RTCP, everyone, 3, "203.0.113.1:30001", "198.51.100.3:6000", "outside"),
		record("203.0.113.1:30000", "outside", relay.RTP, accepted, 4, "192.0.2.1:20000", "10.0.0.1:4000", "inside"),
		record("203.0.113.1:30001", "outside", relay.RTCP, accepted, 4, "192.0.2.1:20001", "10.0.0.1:4001", "inside"),
	}
}

func TestCompile(t *testing.T) {
	third := relay.Party{ID: "c", Network: "outside", Streams: []relay.Stream{{
		Proto: "RTP/AVP", Local: pair("203.0.113.1", 30002), Remote: relay.Remote{RTP: endpoint("198.51.100.9:7000")},
	}}}
	tests := []struct {
		name   string
		why    string
		edit   func(*relay.Session)
		expect func([]relay.Record) []relay.Record
	}{
		{"plain", "two parties hear each other", nil, nil},
		{"empty", "a new session has nothing to forward",
			func(s *relay.Session) { *s = relay.Session{ID: "s"} },
			func([]relay.Record) []relay.Record { return nil }},
		{"action", "what a party sends follows its stream's mode",
			func(s *relay.Session) { s.Parties[0].Streams[0].Mode = relay.Hold },
			func(r []relay.Record) []relay.Record { r[0].Action, r[1].Action = relay.Hold, relay.Hold; return r }},
		{"opaque", "T.38 is no RTP",
			func(s *relay.Session) { s.Parties[0].Streams[0].Proto = "udptl" },
			func(r []relay.Record) []relay.Record { r[0].CheckRTP, r[1].CheckRTP = false, false; return r }},
		{"secure", "SRTP looks like RTP from outside",
			func(s *relay.Session) { s.Parties[0].Streams[0].Proto = "RTP/SAVP" }, nil},
		{"lower case", "some write the proto so, which the grammar's tokens permit (RFC 4566 section 9)",
			func(s *relay.Session) { s.Parties[0].Streams[0].Proto = "rtp/avp" }, nil},
		{"handshake inside", "DTLS shares the port with SRTP",
			func(s *relay.Session) { s.Parties[0].Streams[0].Proto = "UDP/TLS/RTP/SAVPF" },
			func(r []relay.Record) []relay.Record { r[0].CheckRTP, r[1].CheckRTP = false, false; return r }},
		{"framed", "what follows a length field is not RTP by its first byte",
			func(s *relay.Session) { s.Parties[0].Streams[0].Proto = "TCP/RTP/AVP" },
			func(r []relay.Record) []relay.Record { r[0].CheckRTP, r[1].CheckRTP = false, false; return r }},
		{"remote unknown", "nothing is sent before an address was learnt, but the packet is accepted",
			func(s *relay.Session) { s.Parties[1].Streams[0].Remote = relay.Remote{} },
			func(r []relay.Record) []relay.Record {
				r[0].Outputs[0].To, r[1].Outputs[0].To = netip.AddrPort{}, netip.AddrPort{}
				return r
			}},
		{"remote on hold by address", "c=0.0.0.0 is nowhere (RFC 3264 section 8.4)",
			func(s *relay.Session) { s.Parties[1].Streams[0].Remote.RTP = endpoint("0.0.0.0:5000") },
			func(r []relay.Record) []relay.Record { r[0].Outputs[0].To = netip.AddrPort{}; return r }},
		{"remote port zero", "a rejected stream is nowhere (RFC 3264 section 6)",
			func(s *relay.Session) { s.Parties[1].Streams[0].Remote.RTP = endpoint("198.51.100.2:0") },
			func(r []relay.Record) []relay.Record { r[0].Outputs[0].To = netip.AddrPort{}; return r }},
		{"mapped remote", "addresses are compared later, so there is one form",
			func(s *relay.Session) {
				s.Parties[1].Streams[0].Remote.RTP = endpoint("[::ffff:198.51.100.2]:5000")
			}, nil},
		{"stream without ports", "it neither receives nor sends",
			func(s *relay.Session) { s.Parties[1].Streams[0].Local = relay.Pair{} },
			func(r []relay.Record) []relay.Record { r[0].Outputs, r[1].Outputs = nil, nil; return r[:2] }},
		{"no RTCP port", "only RTP is relayed",
			func(s *relay.Session) { s.Parties[1].Streams[0].Local.RTCP = 0 },
			func(r []relay.Record) []relay.Record { r[1].Outputs = nil; return r[:3] }},
		{"one way", "without a subscription nothing goes out",
			func(s *relay.Session) { s.Subscriptions = s.Subscriptions[:1] },
			func(r []relay.Record) []relay.Record { r[2].Outputs, r[3].Outputs = nil, nil; return r }},
		{"two sinks", "outputs keep the order of the subscriptions",
			func(s *relay.Session) {
				s.Parties = append(s.Parties, third)
				s.Subscriptions = append(s.Subscriptions,
					relay.Subscription{Source: relay.StreamRef{Party: "a"}, Sink: relay.StreamRef{Party: "c"}})
			},
			func(r []relay.Record) []relay.Record {
				r[0].Outputs = append(r[0].Outputs, relay.Output{
					From: endpoint("203.0.113.1:30002"), To: endpoint("198.51.100.9:7000"), Network: "outside"})
				r[1].Outputs = append(r[1].Outputs, relay.Output{From: endpoint("203.0.113.1:30003"), Network: "outside"})
				return append(r,
					relay.Record{Local: endpoint("203.0.113.1:30002"), Network: "outside", Action: relay.Forward, CheckRTP: true},
					relay.Record{Local: endpoint("203.0.113.1:30003"), Network: "outside", Action: relay.Forward, CheckRTP: true,
						Component: relay.RTCP})
			}},
		{"second stream", "a subscription names the stream, not only the party",
			func(s *relay.Session) {
				s.Parties[0].Streams = append(s.Parties[0].Streams, relay.Stream{Proto: "RTP/AVP", Local: pair("192.0.2.1", 20010)})
				s.Subscriptions[0].Source.Stream = 1
			},
			func(r []relay.Record) []relay.Record {
				video := relay.Record{Local: endpoint("192.0.2.1:20010"), Network: "inside", Action: relay.Forward, CheckRTP: true,
					Outputs: r[0].Outputs}
				control := relay.Record{Local: endpoint("192.0.2.1:20011"), Network: "inside", Action: relay.Forward, CheckRTP: true,
					Component: relay.RTCP, Outputs: r[1].Outputs}
				r[0].Outputs, r[1].Outputs = nil, nil
				return []relay.Record{r[0], r[1], video, control, r[2], r[3]}
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, want := twoParties(), twoPartyRecords()
			if tt.edit != nil {
				tt.edit(s)
			}
			if tt.expect != nil {
				want = tt.expect(want)
			}
			before := s.Clone()
			got, err := relay.Compile(s)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s\n got %+v\nwant %+v", tt.why, got, want)
			}
			if !reflect.DeepEqual(s, before) {
				t.Error("the session was modified")
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	tests := []struct {
		name string
		edit func(*relay.Session)
		want string // names the thing and the place
	}{
		{"no id", func(s *relay.Session) { s.ID = "" }, "no id"},
		{"party without id", func(s *relay.Session) { s.Parties[1].ID = "" }, "party 1: no id"},
		{"party twice", func(s *relay.Session) { s.Parties[1].ID = "a" }, `party "a": id stands twice`},
		{"port twice", func(s *relay.Session) { s.Parties[1].Streams[0].Local = pair("192.0.2.1", 20000) },
			`party "b" stream 0: local 192.0.2.1:20000 is that of party "a" stream 0 already`},
		{"RTP on an RTCP port", func(s *relay.Session) { s.Parties[1].Streams[0].Local = pair("192.0.2.1", 20001) },
			`party "b" stream 0: local 192.0.2.1:20001 is that of party "a" stream 0 already`},
		{"unknown mode", func(s *relay.Session) { s.Parties[0].Streams[0].Mode = relay.Punt + 1 }, `party "a" stream 0: mode 5`},
		{"broken prefix", func(s *relay.Session) { s.Parties[0].Streams[0].Accept.Nets = make([]netip.Prefix, 1) },
			`party "a" stream 0: accept set`},
		{"other family", func(s *relay.Session) { s.Parties[1].Streams[0].Remote.RTCP = endpoint("[2001:db8::1]:6000") },
			`party "b" stream 0: remote [2001:db8::1]:6000 cannot be reached from local 203.0.113.1`},
		{"source party unknown", func(s *relay.Session) { s.Subscriptions[1].Source.Party = "x" },
			`subscription 1: source party "x" stream 0 does not exist`},
		{"sink stream unknown", func(s *relay.Session) { s.Subscriptions[0].Sink.Stream = 1 },
			`subscription 0: sink party "b" stream 1 does not exist`},
		{"negative stream", func(s *relay.Session) { s.Subscriptions[0].Source.Stream = -1 },
			`subscription 0: source party "a" stream -1 does not exist`},
		{"subscription twice", func(s *relay.Session) { s.Subscriptions[1] = s.Subscriptions[0] },
			`subscription 1: party "a" stream 0 to party "b" stream 0 stands twice`},
		{"transform", func(s *relay.Session) { s.Subscriptions[0].Transforms = []string{"opus"} }, `transform "opus" is unknown`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := twoParties()
			tt.edit(s)
			if records, err := relay.Compile(s); !isError(err, relay.ErrInvalid, tt.want) || records != nil {
				t.Errorf("%v, error %v; want %q", records, err, tt.want)
			}
		})
	}
}
