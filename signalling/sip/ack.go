package sip

import (
	"net/netip"
	"strings"
)

// maxLosers bounds the 2xx of further forks that are remembered.
const maxLosers = 16

// awaitAck sends the 2xx back and repeats it until its ACK comes (RFC 3261 section 13.3.1.4).
func (x *exchange) awaitAck(raw []byte) {
	sh := x.call.sh
	x.answer = raw
	x.stx.respond(200, raw)
	x.armAck(sh)
}

func (x *exchange) armAck(sh *shard) {
	x.interval = sh.srv.cfg.Timers.T1
	sh.start(&x.repeat, x, x.interval)
	sh.start(&x.guard, x, sh.srv.cfg.Timers.timeout())
}

// expire wakes the exchange: the 2xx is repeated, or patience is at its end.
func (x *exchange) expire(t *timer) {
	c := x.call
	sh := c.sh
	sh.current.call, sh.current.stx = c, x.stx
	if t == &x.repeat {
		sh.srv.counts.add(cRetransmitsOut)
		x.stx.ln.send(x.answer, x.stx.to)
		x.interval = min(2*x.interval, sh.srv.cfg.Timers.T2)
		sh.start(&x.repeat, x, x.interval)
		return
	}
	sh.srv.counts.add(cTimeouts)
	switch {
	case x.won && c.State == StateEnding:
		x.close()
	case x.won: // no ACK (RFC 3261 section 13.3.1.4)
		x.ackUnasked()
		c.byeBoth(reasonHeader(408, "No ACK"))
	case x.given: // no answer to our CANCEL (section 9.1)
		x.ctx.terminate()
		x.close()
		if x.initial {
			c.destroy()
		}
	case x.cancelSent: // the caller's CANCEL of a re-INVITE
		x.stx.reply(487, "", "")
		x.revert()
		x.ctx.terminate()
		x.close()
	case x.initial:
		sh.srv.counts.add(cCallsFailed)
		c.abandon(408, reasonHeader(408, "Setup Timeout"), nil)
	default:
		x.stx.reply(408, "", "")
		x.giveUp(reasonHeader(408, "Setup Timeout"), nil)
		x.revert()
	}
}

// dialogACK handles an ACK outside a server transaction: that of a 2xx. An ACK that nobody waits for is dropped.
func (sh *shard) dialogACK(m *message) {
	if l, f := sh.find(m); f != nil {
		sh.current.call = l.call
		for _, x := range l.call.exchanges {
			if x.won && x.from == l.side && x.in == m.cseq && x.ack == nil && x.tag == f.Tag {
				l.Source = m.from
				x.acked(m)
				return
			}
		}
	}
	sh.srv.counts.add(cStrayACKs)
}

// acked passes the ACK of a 2xx on, with the answer to a late offer in it.
func (x *exchange) acked(m *message) {
	c := x.call
	body, err := x.described(m, x.from, false, func(describedBody) { x.established() })
	if err != nil {
		c.report("description in ACK cannot be used", m, 488, err)
		x.ackUnasked()
		if x.offered || x.answered {
			// Nobody waits for it: offer and answer went by before, and the call stands without it.
			x.established()
			c.note()
			return
		}
		c.byeBoth(reasonHeader(488, "Answer Not Acceptable"))
		return
	}
	x.established()
	f := c.fork(x.tag)
	uri, routes, to := c.legs[x.to()].way(f)
	x.ctx.to = to
	x.ack = x.request(m, methodACK+" "+uri+" SIP/2.0", routes, newBranch(c.home), body)
	x.sendAck()
	if x.initial && body.in == "" {
		c.note()
	}
	x.close()
}

// established notes that the call's first INVITE is done.
func (x *exchange) established() {
	if c := x.call; x.initial && c.State == StateAnswered {
		c.State, c.Setup = StateTalking, nil
	}
}

// sendAck sends the ACK of the 2xx, once more for every repetition of it (RFC 3261 section 13.2.2.4).
func (x *exchange) sendAck() { x.ctx.ln.send(x.ack, x.ctx.to) }

// ackUnasked acknowledges the 2xx in the place of the party that did not, and ends the wait for it.
func (x *exchange) ackUnasked() {
	c := x.call
	f := c.fork(x.tag)
	if x.ack == nil && f != nil {
		uri, routes, to := c.legs[x.to()].way(f)
		x.ctx.to = to
		x.ack = x.ctx.ownAck(uri, routes, f.Tag, x.from)
		x.sendAck()
	}
	x.close()
}

// ownAck builds the ACK of a 2xx without a body.
func (tx *clientTx) ownAck(uri string, routes []string, tag string, from side) []byte {
	b := append(append(append([]byte("ACK "), uri...), " SIP/2.0\r\n"...), tx.ln.viaLine(newBranch(0))...)
	b = appendRoutes(b, routes)
	to := tx.head.to
	if from == caller {
		to = withTag(to, tag)
	}
	return appendCore(b, tx.head.from, to, tx.head.callID, tx.head.cseq, methodACK, "")
}

// dismiss acknowledges a 2xx that nobody wants any more, and hangs up if it made a dialog (RFC 3261 section 13.2.2.4).
func (x *exchange) dismiss(m *message) {
	c := x.call
	sh := c.sh
	ack := x.losers[m.toTag]
	l := &c.legs[x.to()]
	if ack != nil {
		sh.srv.counts.add(cRetransmitsIn)
	} else {
		if len(x.losers) >= maxLosers {
			return
		}
		f := Fork{Tag: strings.Clone(m.toTag), Target: strings.Clone(m.contact)}
		f.Routes = reversed(m.routeSet(maxRoutes))
		f.Sent[l.side] = x.out
		uri, routes, to := x.wayTo(l, &f)
		ack = x.ctx.ownAck(uri, routes, f.Tag, x.from)
		if x.losers == nil {
			x.losers = make(map[string][]byte)
		}
		x.losers[f.Tag] = ack
		x.ctx.to = to
		if x.initial {
			defer func() {
				branch := newBranch(c.home)
				raw, to := l.ownRequest(&f, methodBYE, branch, "")
				sh.newClientTx(branch, methodBYE, l, to, raw, nil)
			}()
		}
	}
	x.ctx.ln.send(ack, x.ctx.to)
	if x.given && x.initial && !c.dead {
		c.destroy()
	}
}

// wayTo is the way of the dialog that a 2xx would have made; in a running call that of the call.
func (x *exchange) wayTo(l *leg, f *Fork) (uri string, routes []string, to netip.AddrPort) {
	if running := x.call.fork(f.Tag); running != nil && !x.initial {
		return l.way(running)
	}
	return l.way(f)
}

// lateAnswer acknowledges a 2xx whose INVITE nobody here remembers, because an earlier process sent it, if it belongs to the
// dialog of an established call: a party that hears no ACK hangs up (RFC 3261 section 13.3.1.4). It reports whether it did.
func (sh *shard) lateAnswer(m *message) bool {
	if m.method != methodINVITE || m.status < 200 || m.status > 299 {
		return false
	}
	var found *leg
	for c := sh.sameID[m.callID]; c != nil; c = c.sibling {
		if c.jump == 0 || c.State != StateTalking || len(c.Forks) != 1 {
			continue // not restored, or not to be kept alive
		}
		for i := range c.legs {
			l, mine, theirs := &c.legs[i], c.Legs[i].Tag, c.Forks[0].Tag
			if l.side == caller {
				mine, theirs = theirs, mine
			}
			if m.fromTag != mine || m.toTag != theirs || !l.trunk.admits(m) {
				continue
			}
			if found != nil {
				return false // a spiral: whose it is, nothing says
			}
			found = l
		}
	}
	if found == nil {
		return false
	}
	c := found.call
	sh.current.call = c
	sh.srv.counts.add(cRetransmitsIn)
	uri, routes, to := found.way(&c.Forks[0])
	b := append([]byte(methodACK+" "+uri+" SIP/2.0\r\n"), found.ln.viaLine(newBranch(c.home))...)
	b = appendRoutes(b, routes)
	found.ln.send(appendCore(b, m.text(fieldFrom), m.text(fieldTo), m.callID, m.cseq, methodACK, ""), to)
	return true
}
