package userspace

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/internal/datagram"
)

// batchSize is the number of datagrams read at once. The memory belongs to whichever endpoints are reading just now.
const batchSize = 8

// maxHairpin is how many sessions of ours a packet may pass in a row, after the first, before it counts as a loop.
const maxHairpin = 3

// endpoint is the socket of one local endpoint, with all that is known of it. It stays while records are replaced.
type endpoint struct {
	plane *Plane
	local netip.AddrPort
	conn  *net.UDPConn
	raw   syscall.RawConn

	// owner is the session whose record this endpoint executes, if any; users counts the sessions that receive at it or
	// send from it. Both are guarded by Plane.mu.
	owner relay.SessionID
	users int

	rule  atomic.Pointer[rule]
	latch atomic.Pointer[latch]

	packets, bytes      atomic.Uint64 // forwarded, and their UDP payload
	firstSeen, lastSeen atomic.Int64  // ns since 1970, of accepted packets; 0 for never
}

// work is the memory that serving a socket takes for a moment.
type work struct {
	batch   *datagram.Batch
	message datagram.Message

	// What send is to send, and how that went. It is made once, because a function of each packet's own takes memory.
	to      netip.AddrPort
	tos     uint8
	payload []byte
	sent    error
	send    func(fd uintptr)
}

func newWork() *work {
	w := &work{batch: datagram.NewBatch(batchSize)}
	w.send = func(fd uintptr) { w.sent = w.message.Send(int(fd), w.to, w.tos, w.payload) }
	return w
}

// open binds the socket in the network namespace of the calling thread.
func (p *Plane) open(ctx context.Context, local netip.AddrPort) (*endpoint, error) {
	network, v6 := "udp4", false
	if local.Addr().Is6() {
		network, v6 = "udp6", true
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = datagram.EnableTOS(int(fd), v6) }), err)
	}}
	pc, err := config.ListenPacket(ctx, network, local.String())
	if err != nil {
		return nil, err
	}
	conn := pc.(*net.UDPConn)
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &endpoint{plane: p, local: local, conn: conn, raw: raw}, nil
}

// serve handles what arrives until the socket is closed.
func (e *endpoint) serve() {
	// Returning false waits for the next arrival without asking the kernel again. The only error is a closed socket.
	_ = e.raw.Read(func(fd uintptr) bool {
		w := e.plane.borrow()
		defer e.plane.giveBack(w)
		for {
			n, err := w.batch.Read(int(fd))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if n > 0 {
				now := time.Now()
				for i := range n {
					e.receive(w, w.batch.Packet(i), now)
				}
			}
			if err != nil || n < batchSize {
				return false
			}
		}
	})
}

// receive handles one packet from the wire. A panic ends there.
func (e *endpoint) receive(w *work, d datagram.Packet, now time.Time) {
	defer e.plane.panics.Catch(e.plane.logger, "userspace data plane")
	e.handle(w, d, now, 0)
}

// handle decides on one packet and carries the decision out. Depth is the number of our sessions that it passed already.
func (e *endpoint) handle(w *work, d datagram.Packet, now time.Time, depth int) {
	r := e.rule.Load()
	why := e.accept(r, d.Remote, d.Payload, now)
	if why == forwarded {
		why = e.forward(w, r, d, now, depth)
	}
	e.plane.counters[why].add(frameSize(e.local, d.Payload))
}

// forward sends the packet to every output that has a destination.
func (e *endpoint) forward(w *work, r *rule, d datagram.Packet, now time.Time, depth int) reason {
	if depth > maxHairpin {
		return loop
	}
	why := noDestination
	for i := range r.outputs {
		o := &r.outputs[i]
		to := o.destination()
		if !to.IsValid() {
			continue
		}
		if next := e.plane.own(to); next != nil {
			// Through the kernel, a circle of sessions would turn for ever: TTL does not outlive a socket.
			next.handle(w, datagram.Packet{Info: d.Info, Remote: o.from.local, Payload: d.Payload}, now, depth+1)
			why = forwarded
			continue
		}
		if o.from.send(w, to, d.TOS, d.Payload) == nil {
			why = forwarded
		} else if why == noDestination {
			why = sendFailed
		}
	}
	if why == forwarded {
		e.packets.Add(1)
		e.bytes.Add(uint64(len(d.Payload)))
	}
	return why
}

// send sends a packet out of the endpoint. It never waits: behind one queue that is full all others would.
func (e *endpoint) send(w *work, to netip.AddrPort, tos uint8, payload []byte) error {
	w.to, w.tos, w.payload = to, tos, payload
	if err := e.raw.Control(w.send); err != nil {
		return err
	}
	return w.sent
}

// saw marks a sign of life of an accepted source.
func (e *endpoint) saw(now time.Time) {
	ns := now.UnixNano()
	if e.firstSeen.Load() == 0 {
		e.firstSeen.Store(ns)
	}
	e.lastSeen.Store(ns)
}

// flow tells the state of the endpoint under a record.
func (e *endpoint) flow(r *rule) relay.Flow {
	return relay.Flow{
		Local:     e.local,
		Component: r.record.Component,
		Action:    r.record.Action,
		Learnt:    e.learnt(),
		Packets:   map[relay.Path]uint64{relay.PathUserspace: e.packets.Load()},
		Bytes:     map[relay.Path]uint64{relay.PathUserspace: e.bytes.Load()},
		FirstSeen: instant(e.firstSeen.Load()),
		LastSeen:  instant(e.lastSeen.Load()),
	}
}

// forget makes the endpoint as new when its session lets go of it.
func (e *endpoint) forget() {
	e.rule.Store(nil)
	e.latch.Store(nil)
	e.packets.Store(0)
	e.bytes.Store(0)
	e.firstSeen.Store(0)
	e.lastSeen.Store(0)
}

func instant(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// frameSize is the size of an untagged Ethernet frame with this payload.
func frameSize(local netip.AddrPort, payload []byte) int {
	if local.Addr().Is6() {
		return 14 + 40 + 8 + len(payload)
	}
	return 14 + 20 + 8 + len(payload)
}
