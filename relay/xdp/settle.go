package xdp

import (
	"net/netip"
	"time"
)

// How long a stream must pause until it is handed over to the program: less than any usual packet interval, more than a
// packet needs through the slow path. Two looks must find the same.
const (
	settlePause = 4 * time.Millisecond
	settleLimit = 500 * time.Millisecond
)

// lull finds the moment at which no packet of a stream is on its way through the slow path.
type lull struct {
	limit    time.Time
	looked   bool
	punted   uint32
	accepted uint64
}

// over is told how many packets the program punted and the slow path accepted so far, and reports whether neither has
// changed since it was told last, or the limit has passed.
func (s *lull) over(now time.Time, punted uint32, accepted uint64) bool {
	quiet := s.looked && s.punted == punted && s.accepted == accepted
	s.looked, s.punted, s.accepted = true, punted, accepted
	return quiet || !now.Before(s.limit)
}

// settle gives a stream whose source the slow path learnt to the program, once no packet of it is on its way through the
// slow path: those that come later would overtake it. A stream without any pause is handed over at the limit.
func (p *Plane) settle(local netip.AddrPort) {
	wait := lull{limit: time.Now().Add(settleLimit)}
	var timer *time.Timer
	timer = time.AfterFunc(settlePause, func() {
		defer p.panics.Catch(p.logger, "hand-over of a stream")
		p.mu.Lock()
		defer p.mu.Unlock()
		e := p.endpoints[local]
		if p.closed || e == nil || !e.settling {
			return
		}
		if !wait.over(time.Now(), p.maps.Flow(e.flow).Punted, e.counts().total()) {
			timer.Reset(settlePause)
			return
		}
		e.settling = false
		e.claim.Store(nil)
		if err := p.install(&session{id: e.session.id, generation: e.session.generation}, e.session.records()); err != nil {
			e.settling = true
			p.logger.Error("hand stream over to the program", "session", e.session.id, "local", local, "err", err)
			timer.Reset(time.Second)
		}
	})
}
