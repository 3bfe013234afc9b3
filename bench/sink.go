package bench

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveBuffer is what a sink asks of its socket: seconds of a stream, so that a busy machine does not look like a lossy one.
const receiveBuffer = 1 << 20

// prompt is an arrival that no freeze has delayed, even if the freeze has ended meanwhile.
const prompt = 10 * time.Millisecond

// Sink receives the packets of one source and checks each of them, byte by byte.
type Sink struct {
	source *Source
	conn   *net.UDPConn

	mu      sync.Mutex
	report  Report
	highest uint64 // number of the highest packet so far
	seen    []uint64
	transit int64   // of the last packet, in ns, with a constant offset; meaningful once report.Received > 0
	jitter  float64 // in ns
	latency Histogram
}

// Report is what a sink found so far. All figures count packets.
type Report struct {
	Sent       uint64 `json:"packets_sent"`
	Received   uint64 `json:"packets_received"` // each packet once
	Lost       uint64 `json:"lost"`
	Duplicated uint64 `json:"duplicated"`
	Reordered  uint64 `json:"reordered"` // arrived after one that was sent later
	Corrupted  uint64 `json:"corrupted"` // arrived with a header or payload that differs in at least one byte
	Strange    uint64 `json:"strange"`   // not of this stream at all
	// Overrun packets reached the sink's own socket and found its buffer full. They are among the lost ones.
	Overrun uint64 `json:"overrun"`
	// FrozenSent packets were sent while the freeze lasted, and FrozenReceived of them did not wait for its end.
	FrozenSent     uint64 `json:"sent_while_stopped"`
	FrozenReceived uint64 `json:"received_while_stopped"`
	// JitterMS is the interarrival jitter of RFC 3550 section 6.4.1, in milliseconds.
	JitterMS float64 `json:"jitter_ms"`
}

// Freeze is a span of wall-clock time in which packets are also counted apart. The zero value never begins.
type Freeze struct{ begin, end atomic.Int64 }

// Begin starts the span now.
func (f *Freeze) Begin() { f.begin.Store(time.Now().UnixNano()) }

// End ends the span now.
func (f *Freeze) End() { f.end.Store(time.Now().UnixNano()) }

func (f *Freeze) covers(at int64) bool {
	begin, end := f.begin.Load(), f.end.Load()
	return begin != 0 && at >= begin && (end == 0 || at < end)
}

// NewSink prepares a socket for receiving what the source sends.
func NewSink(source *Source, conn *net.UDPConn) (*Sink, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var step error
	if err := raw.Control(func(fd uintptr) {
		if step = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); step != nil {
			step = fmt.Errorf("ask for receive timestamps: %w", step)
			return
		}
		// Beyond the system's limit as root, up to it otherwise.
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			if step = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); step != nil {
				step = fmt.Errorf("set receive buffer: %w", step)
			}
		}
	}); err != nil {
		return nil, err
	}
	if step != nil {
		return nil, step
	}
	return &Sink{source: source, conn: conn}, nil
}

// Run receives until the connection is closed, which is its good end, or fails.
func (s *Sink) Run() error {
	buf, oob := make([]byte, 2048), make([]byte, 128)
	for {
		n, oobn, _, _, err := s.conn.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			continue // an ICMP error for what was sent; the source counts it as lost
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		at, ok := receiveTime(oob[:oobn])
		if !ok {
			return errors.New("receive: the kernel gave no timestamp")
		}
		s.take(buf[:n], at)
	}
}

// receiveTime finds the kernel's timestamp, in ns of the wall clock.
func receiveTime(oob []byte) (int64, bool) {
	for len(oob) > 0 {
		header, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0, false
		}
		if header.Level == unix.SOL_SOCKET && header.Type == unix.SCM_TIMESTAMPNS && len(data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			return (*unix.Timespec)(unsafe.Pointer(&data[0])).Nano(), true
		}
		oob = rest
	}
	return 0, false
}

// take judges one packet that arrived at the given time.
func (s *Sink) take(packet []byte, at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.source.number(packet, s.highest)
	if !ok {
		s.report.Strange++
		return
	}
	var expected [packetSize]byte
	if string(s.source.appendPacket(expected[:0], n)) != string(packet) {
		s.report.Corrupted++
	}
	if word := int(n / 64); word >= len(s.seen) {
		s.seen = append(s.seen, make([]uint64, word-len(s.seen)+1)...)
	}
	if s.seen[n/64]&(1<<(n%64)) != 0 {
		s.report.Duplicated++
		return
	}
	s.seen[n/64] |= 1 << (n % 64)
	if n < s.highest {
		s.report.Reordered++
	}
	s.highest = max(s.highest, n)
	s.measure(n, at)
	s.report.Received++
}

// measure takes latency and jitter of the n-th packet.
func (s *Sink) measure(n uint64, at int64) {
	if s.source.Sent()-n <= sentRing {
		sent := s.source.sentAt[n%sentRing].Load()
		s.latency.Add(time.Duration(at - sent))
		if s.source.freeze.covers(sent) && (s.source.freeze.covers(at) || at-sent < int64(prompt)) {
			s.report.FrozenReceived++
		}
	}
	// RFC 3550 A.8, in ns instead of timestamp units, so nothing is rounded.
	transit := at - int64(n)*int64(FrameInterval)
	if s.report.Received > 0 {
		d := math.Abs(float64(transit - s.transit))
		s.jitter += (d - s.jitter) / 16
	}
	s.transit = transit
}

// Report returns the figures so far. Packets still on their way count as lost.
func (s *Sink) Report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.report
	r.Sent = s.source.Sent()
	r.Lost = r.Sent - r.Received
	r.JitterMS = s.jitter / float64(time.Millisecond)
	r.FrozenSent = s.source.frozen.Load()
	r.Overrun = socketDrops(s.conn)
	return r
}

// Latency returns the time from just before a packet was sent to the kernel's receive timestamp, of all packets so far.
func (s *Sink) Latency() *Histogram {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.latency
	return &h
}

// socketDrops is the number of packets that the socket's buffer had no room for, 0 where the kernel does not tell.
func socketDrops(conn *net.UDPConn) uint64 {
	const drops, words = 8, 9 // SK_MEMINFO_DROPS, SK_MEMINFO_VARS (linux/sock_diag.h)
	var info [words]uint32
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	size := uint32(unsafe.Sizeof(info))
	if err := raw.Control(func(fd uintptr) {
		if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info[0])), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
			info[drops] = 0
		}
	}); err != nil {
		return 0
	}
	return uint64(info[drops])
}
