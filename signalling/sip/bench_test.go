package sip

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/tandem-relay/tandem/relay/relaytest"
	"github.com/tandem-relay/tandem/signalling/media"
)

// sinkConn keeps the last datagram.
type sinkConn struct{ last []byte }

func (*sinkConn) ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error) { select {} }
func (*sinkConn) Close() error                                            { return nil }
func (c *sinkConn) WriteToUDPAddrPort(b []byte, _ netip.AddrPort) (int, error) {
	c.last = append(c.last[:0], b...)
	return len(b), nil
}

// discard is a journal that keeps nothing.
type discard struct{}

func (discard) Write(feed.Group) error { return nil }

func (discard) Latest(string, string) (feed.Change, bool, error) { return feed.Change{}, false, nil }

// BenchmarkCall measures what the door itself spends on a call of seven messages: no sockets, no journal, no data plane.
func BenchmarkCall(b *testing.B) {
	ranges := []ports.Range{{First: 20000, Last: 59999}}
	plane := relaytest.New()
	rel, err := relay.New(relay.Config{
		Networks: []relay.Network{
			{Name: "outside", Media: []relay.MediaAddress{{Addr: outsideAddr.Addr(), Ranges: ranges}}},
			{Name: "inside", Media: []relay.MediaAddress{{Addr: insideAddr.Addr(), Ranges: ranges}}},
		},
		Log: feed.New(1, 0, discard{}), Plane: noPlane{plane}, Quarantine: -1,
	})
	if err != nil {
		b.Fatal(err)
	}
	engine := media.New(media.Config{Networks: []media.Network{{Name: "outside"}, {Name: "inside", Trust: true, Routable: func(netip.Addr) bool { return true }}}})
	s, err := New(Config{
		Listeners: []Listener{{Network: "outside", Addr: outsideAddr}, {Network: "inside", Addr: insideAddr}},
		Trunks: []Trunk{
			{Name: "phones", Network: "outside", Peer: phoneAddr, Route: "pbx"}, {Name: "pbx", Network: "inside", Peer: pbxAddr, Route: "phones"},
		},
		Relay: rel, Media: engine, Shards: 1, Logger: slog.New(slog.DiscardHandler),
		Timers: Timers{T1: 100 * time.Microsecond, T4: time.Millisecond},
	})
	if err != nil {
		b.Fatal(err)
	}
	a, bSide := &sinkConn{}, &sinkConn{}
	s.listeners[0].conn, s.listeners[1].conn = a, bSide
	sh := s.shards[0]
	var spent time.Duration
	step := func(ln int, from netip.AddrPort, raw string) {
		datagram := []byte(raw)
		start := time.Now()
		s.listeners[ln].receive(datagram, from)
		sh.handle(<-sh.queue)
		spent += time.Since(start)
	}
	extra := "User-Agent: bench\nAllow: INVITE, ACK, BYE, CANCEL\nSupported: replaces\nContact: <sip:me@198.51.100.20:5060>\n"
	offer, reply := description("198.51.100.20", 4000), description("10.9.0.2", 6000)
	request := func(method, uri, to, id string, cseq int, extra, body string) string {
		return crlf(fmt.Sprintf("%s %s SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.20:5060;branch=z9hG4bK%s%s;rport\nMax-Forwards: 70\nFrom: <sip:a@x>;tag=%s\nTo: %s\nCall-ID: %s\nCSeq: %d %s\n%sContent-Type: application/sdp\nContent-Length: %d\n\n%s",
			method, uri, id, method, id, to, id, cseq, method, extra, len(body), body))
	}
	b.ReportAllocs()
	for i := range b.N {
		id := fmt.Sprint("call", i)
		step(0, phoneAddr, request("INVITE", "sip:1@198.51.100.1", "<sip:1@x>", id, 1, extra, offer))
		inv := text(bSide.last)
		step(1, pbxAddr, answer(inv, 100, "", "", ""))
		step(1, pbxAddr, answer(inv, 180, "b1", "Contact: <sip:b@10.9.0.2>\n", ""))
		step(1, pbxAddr, answer(inv, 200, "b1", "Contact: <sip:b@10.9.0.2>\n", reply))
		ok := text(a.last)
		if ok.status() != 200 {
			b.Fatalf("%s", ok)
		}
		step(0, phoneAddr, request("ACK", ok.contact(), ok.get("To"), id, 1, "", ""))
		step(0, phoneAddr, request("BYE", ok.contact(), ok.get("To"), id, 2, "", ""))
		bye := text(bSide.last)
		if !strings.HasPrefix(string(bye), "BYE") {
			b.Fatalf("%s", bye)
		}
		step(1, pbxAddr, answer(bye, 200, "", "", ""))
		start := time.Now()
		sh.fire()
		spent += time.Since(start)
	}
	if s.Len() != 0 {
		b.Fatalf("%d calls are left", s.Len())
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "ns/call")
	b.ReportMetric(0, "ns/op")
}

// noPlane takes every record and keeps none.
type noPlane struct{ *relaytest.Plane }

func (noPlane) Apply(context.Context, relay.SessionID, uint32, []relay.Record) error { return nil }
