package bench

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/speech"
)

// patience is how long a condition may take to come true.
const patience = 5 * time.Second

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func listen(t *testing.T) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func address(conn *net.UDPConn) netip.AddrPort { return conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// relay forwards what arrives at a socket of its own, after the fault has had its hands on it: each packet becomes none, one
// or several, and n counts them from 0.
func relay(t *testing.T, to netip.AddrPort, fault func(n int, packet []byte) [][]byte) netip.AddrPort {
	conn := listen(t)
	go func() {
		for n := 0; ; n++ {
			buf := make([]byte, 2048)
			size, err := conn.Read(buf)
			if err != nil {
				return
			}
			for _, packet := range fault(n, buf[:size]) {
				if _, err := conn.WriteToUDPAddrPort(packet, to); err != nil {
					return
				}
			}
		}
	}()
	return address(conn)
}

// TestSink proves that each figure of the report moves by what a faulty relay does, and only that one.
func TestSink(t *testing.T) {
	const packets = 12
	var held []byte
	tests := []struct {
		name, why string
		fault     func(n int, packet []byte) [][]byte
		want      Report
	}{
		{"clean", "a good relay leaves nothing to report",
			func(_ int, p []byte) [][]byte { return [][]byte{p} },
			Report{Received: packets}},
		{"lost", "one packet is missing",
			func(n int, p []byte) [][]byte {
				if n == 4 {
					return nil
				}
				return [][]byte{p}
			},
			Report{Received: packets - 1, Lost: 1}},
		{"first lost", "counting begins with the first packet sent, not with the first that arrives",
			func(n int, p []byte) [][]byte {
				if n < 2 {
					return nil
				}
				return [][]byte{p}
			},
			Report{Received: packets - 2, Lost: 2}},
		{"duplicated", "a second copy is no second packet",
			func(n int, p []byte) [][]byte {
				if n == 4 {
					return [][]byte{p, p}
				}
				return [][]byte{p}
			},
			Report{Received: packets, Duplicated: 1}},
		{"reordered", "two packets change places",
			func(n int, p []byte) [][]byte {
				switch n {
				case 4:
					held = p
					return nil
				case 5:
					return [][]byte{p, held}
				}
				return [][]byte{p}
			},
			Report{Received: packets, Reordered: 1}},
		{"payload corrupted", "one flipped bit in the last byte of one packet",
			func(n int, p []byte) [][]byte {
				if n == 4 {
					p[len(p)-1] ^= 1
				}
				return [][]byte{p}
			},
			Report{Received: packets, Corrupted: 1}},
		{"truncated", "the audio is not whole",
			func(n int, p []byte) [][]byte {
				if n == 4 {
					p = p[:len(p)-1]
				}
				return [][]byte{p}
			},
			Report{Received: packets, Corrupted: 1}},
		{"timestamp changed", "a relay must not touch it",
			func(n int, p []byte) [][]byte {
				if n == 4 {
					p[7] ^= 1
				}
				return [][]byte{p}
			},
			Report{Received: packets, Corrupted: 1}},
		{"wrong stream", "the packet of another call is not ours, and ours is missing",
			func(n int, p []byte) [][]byte {
				if n == 4 {
					p[11] ^= 1
				}
				return [][]byte{p}
			},
			Report{Received: packets - 1, Lost: 1, Strange: 1}},
		{"never sent", "a sequence number of the future is nobody's packet",
			func(n int, p []byte) [][]byte {
				if n == packets-1 {
					forged := append([]byte(nil), p...)
					forged[2]++
					return [][]byte{p, forged}
				}
				return [][]byte{p}
			},
			Report{Received: packets, Strange: 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			source := NewSource(speech.Caller(), 7, nil)
			source.sequence = 0xfffc // the sequence number turns over on the way
			from, at := listen(t), listen(t)
			sink, err := NewSink(source, at)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- sink.Run() }()
			to := relay(t, address(at), test.fault)
			buf := make([]byte, 0, packetSize)
			for range packets {
				source.send(from, to, buf)
			}
			test.want.Sent = packets
			eventually(t, "the relay is done", func() bool {
				r := sink.Report()
				return r.Received+r.Duplicated+r.Strange >= test.want.Received+test.want.Duplicated+test.want.Strange
			})
			got := sink.Report()
			got.JitterMS = 0
			if got != test.want {
				t.Errorf("report %+v, want %+v: %s", got, test.want, test.why)
			}
			at.Close()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPacer plays several streams at once and looks at the pace and at what arrives.
func TestPacer(t *testing.T) {
	const streams, frames = 20, 25
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pacer := NewPacer()
	var running sync.WaitGroup
	running.Go(func() {
		if err := pacer.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	freeze := new(Freeze)
	freeze.Begin()
	var sinks []*Sink
	start := time.Now()
	for i := range streams {
		source := NewSource(speech.Callee(), uint64(i), freeze)
		from, at := listen(t), listen(t)
		sink, err := NewSink(source, at)
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := sink.Run(); err != nil {
				t.Error(err)
			}
		})
		sinks = append(sinks, sink)
		pacer.Play(source, from, address(at), start.Add(time.Duration(i)*time.Millisecond))
	}
	eventually(t, "every stream sends", func() bool {
		return !slices.ContainsFunc(sinks, func(s *Sink) bool { return s.source.Sent() < frames })
	})
	freeze.End()
	pacer.Stop()
	most := uint64(time.Since(start)/FrameInterval) + 1
	for i, sink := range sinks {
		eventually(t, "all packets arrive", func() bool { return sink.Report().Lost == 0 })
		r := sink.Report()
		if r.Sent > most || r.Received != r.Sent || r.Corrupted+r.Duplicated+r.Strange+r.Reordered != 0 {
			t.Errorf("stream %d: %+v, want at most %d packets sent, and all received", i, r, most)
		}
		if r.FrozenSent < frames || r.FrozenReceived == 0 {
			t.Errorf("stream %d: %d sent and %d received during the freeze", i, r.FrozenSent, r.FrozenReceived)
		}
		if n := sink.Latency().Count(); n != r.Received {
			t.Errorf("stream %d: %d latencies of %d packets", i, n, r.Received)
		}
		sink.conn.Close()
	}
	late := pacer.Lateness()
	t.Logf("late by p50 %s p99 %s, latency p50 %s", late.Quantile(0.5), late.Quantile(0.99), sinks[0].Latency().Quantile(0.5))
	cancel()
	running.Wait()
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Error(ctx.Err())
	}
}

// TestFreeze holds packets back the way a stopped relay does.
func TestFreeze(t *testing.T) {
	const ms = int64(time.Millisecond)
	freeze := new(Freeze)
	freeze.begin.Store(100 * ms)
	freeze.end.Store(200 * ms)
	tests := []struct {
		name           string
		sent, arrived  int64
		frozen, prompt uint64
	}{
		{"before", 90 * ms, 91 * ms, 0, 0},
		{"in time", 120 * ms, 121 * ms, 1, 1},
		{"slow but in time", 120 * ms, 199 * ms, 1, 1},
		{"kept until the end", 120 * ms, 201 * ms, 1, 0},
		{"on its way at the end", 199 * ms, 201 * ms, 1, 1},
		{"after", 200 * ms, 300 * ms, 0, 0},
	}
	for _, test := range tests {
		source := NewSource(speech.Caller(), 0, freeze)
		sink := &Sink{source: source, conn: listen(t)}
		source.stamp(test.sent)
		sink.take(source.appendPacket(nil, 0), test.arrived)
		if r := sink.Report(); r.FrozenSent != test.frozen || r.FrozenReceived != test.prompt {
			t.Errorf("%s: %d sent and %d received while frozen, want %d and %d", test.name, r.FrozenSent, r.FrozenReceived, test.frozen, test.prompt)
		}
	}
}

// TestMeasure feeds arrival times by hand.
func TestMeasure(t *testing.T) {
	tests := []struct {
		name, why string
		delays    []time.Duration // of each packet, from when it should have been sent
		jitter    float64         // ms
		p50       time.Duration
	}{
		{"steady", "a constant delay is no jitter", []time.Duration{5e6, 5e6, 5e6, 5e6}, 0, 5e6},
		{"one step", "16 ms once count for one sixteenth", []time.Duration{5e6, 21e6}, 1, 5e6},
		{"there and back", "1 + (16-1)/16", []time.Duration{5e6, 21e6, 5e6}, 1.9375, 5e6},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			source := NewSource(speech.Caller(), 0, nil)
			sink := &Sink{source: source, conn: listen(t)}
			const epoch = 1_700_000_000_000_000_000
			for n, delay := range test.delays {
				due := int64(epoch) + int64(n)*int64(FrameInterval)
				source.sentAt[n].Store(due)
				source.sent.Store(uint64(n) + 1)
				sink.take(source.appendPacket(nil, uint64(n)), due+int64(delay))
			}
			if got := sink.Report().JitterMS; got != test.jitter {
				t.Errorf("jitter %v ms, want %v: %s", got, test.jitter, test.why)
			}
			if got := sink.Latency().Quantile(0.5); (got - test.p50).Abs() > test.p50/100 {
				t.Errorf("latency %v, want %v", got, test.p50)
			}
		})
	}
}
