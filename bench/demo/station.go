package demo

import (
	"context"
	"errors"
	"math"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tandem-relay/tandem/bench"
	"github.com/tandem-relay/tandem/bench/agent"
	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/speech"
)

// frameSpread is how many frames neighbouring calls are apart in the same recording, so that their audio differs.
const frameSpread = 37

// maxReferences is how many calls get a pair of reference streams beside them, at most. With fewer references than calls, the
// direct link's way through the kernel is colder than Tandem's, and Tandem would seem to take less than no time.
const maxReferences = 100

// station is a user agent and where it stands.
type station struct {
	ns           *lab.Namespace
	addr, direct netip.Addr // towards Tandem, and towards the other station without it
	voice        speech.Voice
	pacer        *bench.Pacer // one for each side, as in reality
	sip          *net.UDPConn
	agent        *agent.Agent
}

// leg is one end of a pair of streams: a socket that both sends and receives, as phones do it.
type leg struct {
	conn   *net.UDPConn
	callee bool
	source *bench.Source
	sink   *bench.Sink // of what the other end sends
}

// pair is two legs that talk with each other.
type pair struct{ caller, callee leg }

// sinks returns the sinks by direction.
func (p *pair) sinks() [directions]*bench.Sink {
	return [directions]*bench.Sink{callerToCallee: p.callee.sink, calleeToCaller: p.caller.sink}
}

// stations are both user agents with the streams of all calls, and the reference streams between them.
type stations struct {
	caller, callee station
	calls          []*pair
	references     []*pair
	epoch          time.Time // from which the phases of all streams count
	freeze         *bench.Freeze

	conns   []*net.UDPConn
	running errgroup.Group
	end     context.CancelFunc // of the pacers
}

// newStations opens all sockets and starts everything that receives, for this number of calls.
func newStations(p *place, count int, c *calls) (_ *stations, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &stations{
		caller: station{ns: p.caller, addr: p.callerAddr, direct: p.callerDirect, voice: speech.Caller(), pacer: bench.NewPacer()},
		callee: station{ns: p.callee, addr: p.calleeAddr, direct: p.calleeDirect, voice: speech.Callee(), pacer: bench.NewPacer()},
		freeze: new(bench.Freeze),
		epoch:  time.Now(),
		end:    cancel,
	}
	c.stations = s
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	for n := range count {
		call, err := s.newPair(s.caller.addr, s.callee.addr, uint64(n*frameSpread))
		if err != nil {
			return nil, err
		}
		s.calls = append(s.calls, call)
	}
	for n := range min(count, maxReferences) {
		reference, err := s.newPair(s.caller.direct, s.callee.direct, uint64(n*frameSpread))
		if err != nil {
			return nil, err
		}
		s.references = append(s.references, reference)
	}
	for _, side := range []struct {
		*station
		user    string
		invited func(*agent.Invitation)
	}{{&s.callee, "callee", c.invited}, {&s.caller, "caller", nil}} {
		s.running.Go(func() error { return side.pacer.Run(ctx) })
		if side.sip, err = p.listenSIP(side.ns, side.addr); err != nil {
			return nil, err
		}
		s.conns = append(s.conns, side.sip)
		side.agent = agent.New(agent.Config{Conn: side.sip, User: side.user, Invited: side.invited})
		s.running.Go(side.agent.Run)
	}
	return s, nil
}

// newPair opens the sockets of two legs at these addresses and starts their sinks.
func (s *stations) newPair(caller, callee netip.Addr, offset uint64) (*pair, error) {
	p := &pair{
		caller: leg{source: bench.NewSource(s.caller.voice, offset, s.freeze)},
		callee: leg{callee: true, source: bench.NewSource(s.callee.voice, offset, s.freeze)},
	}
	var err error
	if p.caller.conn, err = s.listen(s.caller.ns, caller); err != nil {
		return nil, err
	}
	if p.callee.conn, err = s.listen(s.callee.ns, callee); err != nil {
		return nil, err
	}
	if p.caller.sink, err = bench.NewSink(p.callee.source, p.caller.conn); err != nil {
		return nil, err
	}
	if p.callee.sink, err = bench.NewSink(p.caller.source, p.callee.conn); err != nil {
		return nil, err
	}
	s.running.Go(p.caller.sink.Run)
	s.running.Go(p.callee.sink.Run)
	return p, nil
}

func (s *stations) listen(ns *lab.Namespace, addr netip.Addr) (*net.UDPConn, error) {
	conn, err := listenMedia(ns, addr)
	if err == nil {
		s.conns = append(s.conns, conn)
	}
	return conn, err
}

// start is the next time at which a stream may begin. Each stream, by its number, has a phase of its own within the frame,
// and all of them are spread evenly however many there are, as those of real phones. So a packet of a reference stream meets
// the same machine as one of a call: neither comes always in the wake of others, with its way through the kernel still warm.
func (s *stations) start(stream int) time.Time {
	_, share := math.Modf(float64(stream) * math.Phi)
	phase := time.Duration(share * float64(bench.FrameInterval))
	frames := (time.Since(s.epoch)-phase)/bench.FrameInterval + 1
	return s.epoch.Add(phase + max(0, frames)*bench.FrameInterval)
}

// talk lets a leg of a pair send to an address from now on. Pairs are numbered from 0.
func (s *stations) talk(leg *leg, to netip.AddrPort, number int) {
	side, stream := &s.caller, 2*number
	if leg.callee {
		side, stream = &s.callee, 2*number+1
	}
	side.pacer.Play(leg.source, leg.conn, to, s.start(stream))
}

// refer starts the reference streams.
func (s *stations) refer() {
	for n, p := range s.references {
		s.talk(&p.caller, local(p.callee.conn), len(s.calls)+n)
		s.talk(&p.callee, local(p.caller.conn), len(s.calls)+n)
	}
}

// hush ends all streams: when it returns, nobody sends any more.
func (s *stations) hush() {
	s.caller.pacer.Stop()
	s.callee.pacer.Stop()
}

// lateness tells by how much packets left after their time.
func (s *stations) lateness() bench.Histogram {
	all, other := s.caller.pacer.Lateness(), s.callee.pacer.Lateness()
	all.Merge(&other)
	return all
}

// close closes all sockets and waits for everything that used them.
func (s *stations) close() error {
	s.end()
	var errs []error
	for _, conn := range s.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(append(errs, s.running.Wait())...)
}
