package sip

// cancel handles a CANCEL (RFC 3261 section 9.2).
func (sh *shard) cancel(m *message) {
	stx := sh.servers[serverKey(m, methodINVITE)]
	if stx == nil || !stx.invite {
		sh.srv.answer(m, 481, "", "")
		return
	}
	tag := stx.tag()
	if tag == "" {
		tag = sh.srv.seed.tag(m)
	}
	m.ln.send(m.response(nil, m.responseVia(), 200, "", tag, ""), m.replyTo())
	x := stx.ex
	if x == nil || !stx.open() || x.closed || x.call.dead {
		return // too late: the final response is on its way
	}
	sh.current.call, sh.current.stx = x.call, stx
	switch {
	case x.initial && !x.given:
		sh.srv.counts.add(cCallsCancelled)
		x.call.abandon(487, "", m)
	case x.cancel == nil:
		// In a running call both ends must come to the same result, so the far side decides.
		x.prepareCancel("", m)
	}
}

// abandon gives up a call in set-up: the caller gets the status, leg B a CANCEL, and the ports go back. The call stays until
// leg B has come to an end, because its 2xx may cross the CANCEL. m is the caller's CANCEL, if there is one.
func (c *call) abandon(status int, reason string, m *message) {
	x := c.initial
	x.stx.reply(status, "", reason)
	if x.ctx == nil { // it never left
		c.destroy()
		return
	}
	x.giveUp(reason, m)
	c.State = StateCancelled
	c.release()
}

// giveUp cancels an INVITE that was answered here in the place of the other side.
func (x *exchange) giveUp(reason string, m *message) {
	x.given = true
	if x.cancel == nil && x.ctx != nil {
		x.prepareCancel(reason, m)
	}
}

// prepareCancel sends a CANCEL, or holds it back until a provisional response came (RFC 3261 section 9.1).
func (x *exchange) prepareCancel(reason string, m *message) {
	x.cancel = x.ctx.follow(methodCANCEL, x.ctx.head.to, reason, m)
	x.call.sh.stop(&x.guard)
	if x.ctx.state == txProceeding {
		x.sendCancel()
	}
}

// sendCancel sends the CANCEL that waits.
func (x *exchange) sendCancel() {
	if x.cancelSent {
		return
	}
	x.cancelSent = true
	sh := x.call.sh
	sh.newClientTx(x.ctx.branch, methodCANCEL, &x.call.legs[x.to()], x.ctx.to, x.cancel, nil)
	sh.start(&x.guard, x, sh.srv.cfg.Timers.timeout())
}

// bye handles a BYE in one of the call's dialogs.
func (c *call) bye(l *leg, f *Fork, m *message, key string) {
	sh := c.sh
	stx := sh.newServerTx(m, key)
	if stx == nil {
		return
	}
	f.Received[l.side] = m.cseq
	switch {
	case c.State == StateCancelled, c.byes > 0:
		stx.reply(200, "", "")
	case c.initial != nil && !c.initial.won:
		stx.reply(200, "", "")
		f.Gone = true
		if l.side == caller {
			sh.srv.counts.add(cCallsCancelled)
			c.abandon(487, "", nil)
		} else if !c.anyFork() {
			sh.srv.counts.add(cCallsFailed)
			c.abandon(480, "", nil)
		}
	case c.State == StateEnding && c.byeOf(l.side) == nil && c.byeOf(l.side.other()) != nil:
		stx.reply(200, "", "") // they crossed
	default:
		c.passBye(l, f, m, stx)
	}
}

// anyFork reports whether somebody still may answer.
func (c *call) anyFork() bool {
	for i := range c.Forks {
		if !c.Forks[i].Gone {
			return true
		}
	}
	return false
}

// byeOf returns the BYE under way that a side sent.
func (c *call) byeOf(s side) *exchange {
	for _, x := range c.exchanges {
		if x.method == methodBYE && x.from == s {
			return x
		}
	}
	return nil
}

// passBye passes a BYE on, and frees the ports. A 2xx that still waits for the ACK of the party that hangs up is
// acknowledged for it, because the other side must not get a BYE before.
func (c *call) passBye(l *leg, f *Fork, m *message, stx *serverTx) {
	for _, x := range append([]*exchange(nil), c.exchanges...) {
		if x.won && x.from == l.side {
			x.ackUnasked()
		}
	}
	first := c.State != StateEnding
	c.State = StateEnding
	c.sh.stop(&c.deadline)
	x := &exchange{call: c, from: l.side, method: methodBYE, tag: f.Tag, in: m.cseq}
	x.open(stx)
	x.send(m, f, describedBody{})
	if first {
		c.release()
	}
}

// byeAnswered ends the call after its BYE, unless it was challenged and comes again.
func (c *call) byeAnswered(status int) {
	if c.dead {
		return
	}
	if status == 401 || status == 407 {
		c.sh.start(&c.deadline, c, c.sh.srv.cfg.Timers.Challenge)
		return
	}
	c.destroy()
}

// byeBoth hangs up on both legs.
func (c *call) byeBoth(reason string) {
	f := &c.Forks[0]
	for _, x := range append([]*exchange(nil), c.exchanges...) {
		if x.won {
			x.ackUnasked()
		}
	}
	c.State = StateEnding
	for i := range c.legs {
		branch := newBranch(c.home)
		raw, to := c.legs[i].ownRequest(f, methodBYE, branch, reason)
		c.byes++
		c.sh.newClientTx(branch, methodBYE, &c.legs[i], to, raw, (*ownBye)(c))
	}
	c.jump = 0
	c.release()
}

// ownBye is a call that waits for the answers to its own BYEs.
type ownBye call

func (b *ownBye) response(_ *clientTx, m *message) {
	if m.status >= 200 {
		b.done()
	}
}

func (b *ownBye) timeout(*clientTx) { b.done() }

func (b *ownBye) done() {
	c := (*call)(b)
	c.sh.current.call = c
	if c.byes--; c.byes == 0 && !c.dead {
		c.destroy()
	}
}
