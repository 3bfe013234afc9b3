package sip

// find finds the leg and the pair of dialogs that a request belongs to. The token finds the leg; Call-ID and tags only verify. A
// request whose Request-URI holds no token comes from a party that ignores our Contact: it is found by Call-ID and tags
// if they name one leg only.
func (sh *shard) find(m *message) (*leg, *Fork) {
	token := uriUser(m.uri)
	if _, ok := tokenHome(token); ok {
		if l := sh.legs[token]; l != nil {
			f, foreign := l.dialog(m)
			if foreign {
				sh.srv.counts.add(cForeign)
			}
			return l, f
		}
		return nil, nil
	}
	var found *leg
	var fork *Fork
	strange := false
	for c := sh.sameID[m.callID]; c != nil; c = c.sibling {
		for i := range c.legs {
			f, foreign := c.legs[i].dialog(m)
			strange = strange || foreign
			if f == nil {
				continue
			}
			if found != nil {
				return nil, nil
			}
			found, fork = &c.legs[i], f
		}
	}
	switch {
	case found != nil:
		sh.srv.counts.add(cTokenless)
	case strange:
		sh.srv.counts.add(cForeign)
	}
	return found, fork
}

// dialogRequest handles a request within a dialog, other than ACK and CANCEL.
func (sh *shard) dialogRequest(m *message, key string) {
	l, f := sh.find(m)
	if f == nil || l.call.dead {
		sh.reject(m, key, 481, "", "")
		return
	}
	c := l.call
	sh.current.call = c
	switch {
	case f.Received[l.side] != 0 && m.cseq <= f.Received[l.side]:
		sh.reject(m, key, 500, "CSeq Out Of Order", "") // RFC 3261 section 12.2.2
		return
	case m.maxForwards == 0:
		sh.reject(m, key, 483, "", "")
		return
	}
	l.Source = m.from
	if m.method == methodBYE {
		c.bye(l, f, m, key)
		return
	}
	if c.State == StateEnding || c.State == StateCancelled || f.Gone {
		sh.reject(m, key, 481, "", "")
		return
	}
	stx := sh.newServerTx(m, key)
	if stx == nil {
		return
	}
	f.Received[l.side] = m.cseq
	if status := c.glare(l, m); status != 0 {
		extra := ""
		if status == 500 {
			extra = "Retry-After: 2\r\n"
		}
		stx.reply(status, "", extra)
		return
	}
	c.pass(l, f, m, stx)
}

// dialog returns the fork that a request of the leg's party belongs to, or nil. foreign says that the request names a fork, but
// comes from an address that is not of the leg's trunk.
func (l *leg) dialog(m *message) (f *Fork, foreign bool) {
	for i := range l.call.Forks {
		if f := &l.call.Forks[i]; l.matches(m, f) {
			if !l.trunk.admits(m) {
				return nil, true
			}
			return f, false
		}
	}
	return nil, false
}

// glare returns the status of a request that meets an unfinished INVITE or offer (RFC 3261 section 14.2, RFC 3311 section 5.2):
// 491 if that came from the other side, 500 if from the same one, 0 if there is none.
func (c *call) glare(l *leg, m *message) int {
	offers := m.method == methodINVITE || m.method == methodUPDATE && m.body != ""
	if !offers {
		return 0
	}
	for _, e := range c.exchanges {
		if !e.invite() && !e.pending() || m.method == methodUPDATE && !e.pending() {
			continue
		}
		if e.from == l.side {
			return 500
		}
		return 491
	}
	return 0
}

// pass sends a request on to the other leg.
func (c *call) pass(l *leg, f *Fork, m *message, stx *serverTx) {
	x := &exchange{call: c, from: l.side, method: m.method, tag: f.Tag, in: m.cseq}
	x.open(stx)
	if x.invite() {
		stx.reply(100, "", "")
	}
	body, err := x.describeRequest(m)
	if err != nil {
		status, extra := mediaStatus(err)
		c.report("offer refused", m, status, err)
		stx.reply(status, "", extra)
		x.close()
		return
	}
	x.send(m, f, body)
}

// send begins the client transaction of a request within a dialog.
func (x *exchange) send(m *message, f *Fork, body describedBody) {
	c := x.call
	to := &c.legs[x.to()]
	x.out = m.cseq + f.Offset[to.side]
	f.Sent[to.side] = x.out
	uri, routes, addr := to.way(f)
	branch := newBranch(c.home)
	raw := x.request(m, m.method+" "+uri+" SIP/2.0", routes, branch, body)
	x.ctx = c.sh.newClientTx(branch, m.method, to, addr, raw, x)
	if x.invite() {
		x.setHead(uri, routes)
		c.sh.start(&x.guard, x, c.sh.srv.cfg.Timers.Setup)
	}
}
