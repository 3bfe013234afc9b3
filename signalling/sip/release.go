package sip

import (
	"errors"
	"slices"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
)

// release ends the media session, in one group with the record.
func (c *call) release() {
	id := c.Session
	if id == "" {
		c.note()
		return
	}
	c.Session = ""
	ended := false
	defer func() {
		if !ended { // also if that panics
			c.Session = id // destroy tries again
		}
	}()
	err := c.commit(func(tx *relay.Tx) error { c.sh.srv.endSession(tx, id); return nil })
	if errors.Is(err, relay.ErrFull) {
		// A full journal takes no record any more, but still an end. A restart then finds the session gone, and ends the call.
		tx := c.sh.srv.relay.Begin()
		defer tx.Rollback()
		c.sh.srv.endSession(tx, id)
		err = c.sh.srv.commit(tx)
	}
	if ended = err == nil; !ended {
		c.sh.srv.complain("media session not released", "call", c.ID, "session", string(id), "err", err)
	}
}

// endSession ends a session that may be gone already.
func (s *Server) endSession(tx *relay.Tx, id relay.SessionID) {
	if _, ok := s.relay.Session(id); ok {
		tx.End(id)
	}
}

// destroy removes the call, its session and its record, now or as soon as relay and journal let it. Transactions run out by
// themselves.
func (c *call) destroy() {
	if c.gone {
		return
	}
	if !c.dead {
		c.dead = true
		for _, x := range slices.Clone(c.exchanges) {
			x.close()
		}
		c.sh.stop(&c.deadline)
		c.unlink()
		c.ending, c.Forks, c.Setup = "", nil, nil
	}
	if err := c.erase(); err != nil {
		c.sh.srv.complain("call not released, trying again", "call", c.ID, "session", string(c.Session), "err", err)
		c.sh.releases.add(c)
		return
	}
	c.forget()
}

// erase commits the end of the session and of the record: deletions only, which a full journal takes too.
func (c *call) erase() error {
	tx := c.sh.srv.relay.Begin()
	defer tx.Rollback()
	if c.Session != "" {
		c.sh.srv.endSession(tx, c.Session)
	}
	c.version++
	tx.Put(feed.Change{Kind: KindCall, Key: c.ID, Version: c.version})
	return c.sh.srv.commit(tx)
}

// unlink makes the call unknown to messages.
func (c *call) unlink() {
	for i := range c.legs {
		if token := c.Legs[i].Token; c.sh.legs[token] == &c.legs[i] {
			delete(c.sh.legs, token)
		}
	}
	c.unchain()
	if key := c.challengeKey(); c.sh.challenged[key] == c {
		delete(c.sh.challenged, key)
	}
}

// forget takes a call that is released off the books.
func (c *call) forget() {
	c.gone = true
	if _, known := c.sh.calls[c.ID]; known {
		delete(c.sh.calls, c.ID)
		c.sh.srv.calls.Add(-1)
		c.sh.srv.counts.add(cCallsEnded)
	}
}

// A release that failed is tried again after releaseSoon, then at intervals that double up to releaseLate. After a success
// the next ones follow at once, releaseBatch of them in one turn of the shard.
const (
	releaseSoon  = time.Second
	releaseLate  = time.Minute
	releaseBatch = 32
)

// releases are the dead calls of a shard that could not be released: their session and ports live on, so they are tried until it
// works. They count as calls, so Limits.Calls bounds them too. One failure postpones all, because what refuses one mostly
// refuses all, and each attempt may hold the shard up for Timers.Commit; it goes to the end of the queue.
type releases struct {
	sh      *shard
	waiting []*call
	retry   timer
	wait    time.Duration
}

// add puts a dead call in the queue.
func (r *releases) add(c *call) {
	if c.gone || c.waits {
		return
	}
	c.waits = true
	r.waiting = append(r.waiting, c)
	if r.retry.place == 0 {
		r.later()
	}
}

// later postpones the next attempt, each time for longer.
func (r *releases) later() {
	r.wait = min(max(2*r.wait, releaseSoon), releaseLate)
	r.sh.start(&r.retry, r, r.wait)
}

// expire tries the calls that have waited longest, until one fails.
func (r *releases) expire(*timer) {
	defer func() { // also if a call panics
		switch {
		case len(r.waiting) == 0:
			r.waiting, r.wait = nil, 0
		case r.retry.place == 0:
			r.sh.start(&r.retry, r, r.wait)
		}
	}()
	for range min(releaseBatch, len(r.waiting)) {
		c := r.waiting[0]
		r.waiting[0] = nil
		r.waiting = r.waiting[1:]
		c.waits = false
		r.sh.current.call = c
		r.sh.srv.counts.add(cReleaseRetries)
		c.destroy()
		if !c.gone {
			return // add has started the timer
		}
		r.wait = 0
	}
}
