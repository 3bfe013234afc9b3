package sip

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
)

// sequenceJump is added to our CSeq numbers by the first request of our own after a restart: not every request that went by is
// in the journal, and gaps are legal (RFC 3261 section 12.2.1.1).
const sequenceJump = 1000

// Restore takes over the calls of an earlier process from the latest changes of the journal; those of other kinds are
// left out. The relay has its sessions already. Established calls go on; calls in set-up go on as far as the journal knows
// them, else they end, with their ports. A record that makes no sense is reported and deleted, with the sessions that then
// belong to no call; the parties are not told, because nothing says who they are. It is called once, before Run, which also
// sends what a restored call has to send.
func (s *Server) Restore(changes []feed.Change) error {
	var damaged []feed.Change
	for _, change := range changes {
		if change.Kind != KindCall || change.Value == nil {
			continue
		}
		r, home, err := decodeRecord(change)
		if err != nil {
			s.counts.add(cCallsLost)
			s.log.Error("call cannot go on, its record makes no sense", "call", change.Key, "err", err)
			damaged = append(damaged, feed.Change{Kind: KindCall, Key: change.Key, Version: change.Version + 1})
			continue
		}
		sh := s.shardOf(home)
		sh.do(func() { sh.restore(&call{Record: r, sh: sh, home: home, version: change.Version, jump: sequenceJump}) })
	}
	if len(damaged) > 0 {
		s.discard(damaged)
	}
	return nil
}

// decodeRecord reads the record of a call, and where the call lives.
func decodeRecord(change feed.Change) (r Record, home uint8, err error) {
	if err := json.Unmarshal(change.Value, &r); err != nil {
		return r, 0, fmt.Errorf("decode record: %w", err)
	}
	home, ok := tokenHome(r.ID)
	if !ok || r.ID != change.Key {
		return r, 0, fmt.Errorf("record is of call %q", r.ID)
	}
	return r, home, nil
}

// discard deletes records that make no sense, and ends the sessions that were theirs: those with the parties of a call that no
// call refers to. If that fails, the next start finds them again.
func (s *Server) discard(damaged []feed.Change) {
	known := make(map[relay.SessionID]bool)
	for _, c := range s.Calls() {
		known[c.Session] = true
	}
	tx := s.relay.Begin()
	defer tx.Rollback()
	for _, c := range damaged {
		tx.Put(c)
	}
	for _, session := range s.relay.Sessions() {
		ours := !slices.ContainsFunc(session.Parties, func(p relay.Party) bool { return !slices.Contains(parties[:], p.ID) })
		if ours && len(session.Parties) > 0 && !known[session.ID] {
			s.log.Warn("session belongs to no call", "session", string(session.ID))
			tx.End(session.ID)
		}
	}
	if err := s.commit(tx); err != nil {
		s.log.Error("records that make no sense not deleted", "records", len(damaged), "err", err)
	}
}

// restore brings one call back.
func (sh *shard) restore(c *call) {
	s := sh.srv
	sh.current.call = c
	var trunks [2]*trunk
	var listeners [2]*listener
	for i := range c.Legs {
		if trunks[i] = s.trunks[c.Legs[i].Trunk]; trunks[i] == nil {
			s.counts.add(cCallsLost)
			s.log.Warn("call cannot go on, its trunk is gone", "call", c.ID, "trunk", c.Legs[i].Trunk)
			s.calls.Add(1) // forget takes it off again
			sh.calls[c.ID] = c
			c.destroy()
			return
		}
		listeners[i] = s.listenerAt(c.Legs[i].Listener, trunks[i])
	}
	c.bind(trunks, listeners)
	if err := c.resume(); err != nil {
		s.counts.add(cCallsLost)
		s.log.Warn("call cannot go on", "call", c.ID, "call_id", c.Legs[caller].CallID, "state", string(c.State), "err", err)
		c.endSoon(reasonHeader(500, "Restart"))
		return
	}
	s.counts.add(cCallsRestored)
}

// endSoon ends the call with the first turn of its shard, when the sockets are open.
func (c *call) endSoon(reason string) {
	c.ending = reason
	c.sh.start(&c.deadline, c, 0)
}

// resume sets timers and transactions as the state asks.
func (c *call) resume() error {
	sh, timers := c.sh, &c.sh.srv.cfg.Timers
	if c.Session != "" {
		if _, ok := sh.srv.relay.Session(c.Session); !ok {
			c.Session = ""
			if c.Setup != nil {
				// Both parties still want an answer.
				if err := c.resumeSetup(); err != nil {
					return err
				}
			}
			return fmt.Errorf("its media session is gone")
		}
	}
	switch c.State {
	case StateTalking:
		if len(c.Forks) != 1 {
			return fmt.Errorf("it has %d dialogs", len(c.Forks))
		}
		return nil
	case StateEnding:
		// Whether the BYE got through is not known, so both sides get one.
		if len(c.Forks) == 0 {
			return fmt.Errorf("it has no dialog")
		}
		c.endSoon(reasonHeader(500, "Restart"))
		return nil
	case StateChallenged:
		c.lastSeq = 0
		sh.challenged[c.challengeKey()] = c
		sh.start(&c.deadline, c, timers.Challenge)
		return nil
	case StateCalling, StateRinging, StateAnswered, StateCancelled:
		return c.resumeSetup()
	}
	return fmt.Errorf("state %q is not known", c.State)
}

// resumeSetup rebuilds the transactions of the first INVITE.
func (c *call) resumeSetup() error {
	sh, set, timers := c.sh, c.Setup, &c.sh.srv.cfg.Timers
	if set == nil {
		return fmt.Errorf("its set-up is not recorded")
	}
	a, b := &c.legs[caller], &c.legs[callee]
	m := &message{raw: string(set.Invite), from: set.From, ln: a.ln, trunk: a.trunk, at: sh.now}
	if err := m.index(); err != nil {
		return err
	}
	var f *fault
	if sh.scratch, f = m.check(sh.parser, sh.scratch); f != nil {
		return fmt.Errorf("recorded INVITE: %s", f.reason)
	}
	stx := sh.newServerTx(m, serverKey(m, methodINVITE))
	if stx == nil {
		return fmt.Errorf("too many transactions")
	}
	x := &exchange{
		call: c, from: caller, method: methodINVITE, in: set.In, out: set.Out, initial: true,
		offered: set.Offered, answered: set.Offered && c.State != StateCalling,
	}
	x.open(stx)
	c.initial = x
	stx.state, stx.last = txProceeding, m.response(nil, stx.via, 100, "", "", "")
	x.ctx = &clientTx{sh: sh, branch: strings.Clone(set.Branch), method: methodINVITE, state: txProceeding, ln: b.ln, trunk: b.trunk, to: set.To, user: x}
	sh.clients[clientKey(set.Branch, methodINVITE)] = x.ctx
	x.setHead(set.URI, nil)
	switch c.State {
	case StateAnswered:
		if len(c.Forks) != 1 || len(set.Answer) == 0 {
			return fmt.Errorf("its answer is not recorded")
		}
		x.won, x.tag, x.answer = true, c.Forks[0].Tag, set.Answer
		stx.state, stx.req, stx.last = txAccepted, nil, nil
		sh.start(&stx.end, stx, timers.timeout())
		x.ctx.state = txAccepted
		sh.start(&x.ctx.end, x.ctx, timers.timeout())
		x.armAck(sh)
	case StateCancelled:
		stx.terminate()
		x.given = true
		x.cancel = x.ctx.follow(methodCANCEL, x.ctx.head.to, "", nil)
		sh.start(&x.guard, x, timers.timeout())
	default:
		left := c.Started.Add(timers.Setup).Sub(sh.now)
		sh.start(&x.guard, x, max(left, time.Second))
	}
	return nil
}
