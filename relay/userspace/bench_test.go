package userspace

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/relaytest"
)

// flood sends packets from one party, to the given endpoints in turn, and counts them at another. With a pace it sends that
// many packets per millisecond, else as fast as they arrive. It reports packets per second and the CPU time that both
// parties, the plane and the kernel between them took.
func flood(b *testing.B, from, to *net.UDPConn, pace int, via ...netip.AddrPort) {
	payload, buf := relaytest.RTP(1, 160), make([]byte, 1500)
	_ = to.SetReadBuffer(4 << 20)
	arrived := make(chan struct{}, 1<<20)
	go func() {
		defer close(arrived)
		for {
			if _, err := to.Read(buf); err != nil {
				return
			}
			arrived <- struct{}{}
		}
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	const window = 64
	sent, received := 0, 0
	before := cpu(b)
	b.ResetTimer()
	for received < b.N {
		burst := window - (sent - received)
		if pace > 0 {
			<-tick.C
			burst = pace
		}
		for range min(burst, b.N-sent) {
			if _, err := from.WriteToUDPAddrPort(payload, via[sent%len(via)]); err != nil {
				b.Fatal(err)
			}
			sent++
		}
		for first := pace == 0 || sent == b.N; first || len(arrived) > 0; first = false {
			select {
			case <-arrived:
				received++
			case <-time.After(patience):
				b.Fatalf("%d of %d packets are lost", sent-received, sent)
			}
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/packet")
	_ = to.Close()
	for range arrived {
	}
}

// cpu is the time that the process spent on all CPUs.
func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkForward compares one flow through the plane with the same packets sent directly: the difference is the plane.
func BenchmarkForward(b *testing.B) {
	b.Run("direct", func(b *testing.B) {
		from, _ := socket(b)
		to, toAddr := socket(b)
		flood(b, from, to, 0, toAddr)
	})
	b.Run("relayed", func(b *testing.B) {
		p := newPlane(b)
		from, _ := socket(b)
		to, toAddr := socket(b)
		apply(b, p, "call", 1, oneWay(at(20000), at(20002), toAddr))
		flood(b, from, to, 0, at(20000))
	})
}

// BenchmarkCalls is the load of 100 calls: 200 sockets with 50 packets per second each.
func BenchmarkCalls(b *testing.B) {
	const flows, pace = 200, 10
	b.Run("direct", func(b *testing.B) {
		from, _ := socket(b)
		to, toAddr := socket(b)
		flood(b, from, to, pace, toAddr)
	})
	b.Run("relayed", func(b *testing.B) {
		p := newPlane(b)
		from, _ := socket(b)
		to, toAddr := socket(b)
		var via []netip.AddrPort
		for i := range uint16(flows) {
			via = append(via, at(20000+i))
			apply(b, p, relay.SessionID(fmt.Sprint(i)), 1, oneWay(at(20000+i), at(20400+i), toAddr))
		}
		flood(b, from, to, pace, via...)
	})
}

// BenchmarkApply sets up and ends a call of four endpoints.
func BenchmarkApply(b *testing.B) {
	p := newPlane(b)
	records := []relay.Record{
		oneWay(at(20000), at(20002), netip.AddrPort{}), oneWay(at(20002), at(20000), netip.AddrPort{}),
		oneWay(at(20001), at(20003), netip.AddrPort{}), oneWay(at(20003), at(20001), netip.AddrPort{}),
	}
	b.ReportAllocs()
	for generation := uint32(1); b.Loop(); generation += 2 {
		apply(b, p, "call", generation, records...)
		apply(b, p, "call", generation+1)
	}
}
