package sip

import (
	"slices"
	"strconv"
	"strings"

	"github.com/tandem-relay/tandem/relay"
)

// maxHead bounds the header section of an INVITE that begins a call, start line included, in bytes: parts of it are kept for
// the length of the call, in memory and in the journal.
const maxHead = 8 << 10

// invite handles an INVITE outside a dialog: a new call, or a challenged one that comes with credentials.
func (sh *shard) invite(m *message, key string) {
	s := sh.srv
	if len(m.raw)-len(m.body) > maxHead {
		s.refuse(m, &fault{513, ""}) // without a transaction, which would keep much of it
		return
	}
	again := challengeKey(m.trunk.Name, m.callID, m.fromTag, m.uri)
	merge := again + "\n" + strconv.FormatUint(uint64(m.cseq), 10)
	c := sh.challenged[again]
	if c != nil && m.cseq <= c.lastSeq {
		c = nil
	}
	scheme := strings.ToLower(m.uri[:strings.IndexByte(m.uri, ':')])
	switch {
	case m.maxForwards == 0:
		sh.reject(m, key, 483, "", "")
	case m.first(fieldProxyRequire) != nil:
		sh.reject(m, key, 420, "", "Unsupported: "+m.text(fieldProxyRequire)+"\r\n")
	case scheme != "sip" && scheme != "tel":
		sh.reject(m, key, 416, "", "")
	case sh.merges[merge] != nil:
		// RFC 3261 section 8.2.2.2. The same call on another trunk or with another Request-URI is another call: a spiral.
		s.counts.add(cMerged)
		sh.reject(m, key, 482, "", "")
	case c != nil:
		if stx := sh.begin(m, key, merge); stx != nil {
			delete(sh.challenged, again)
			sh.stop(&c.deadline)
			c.Legs[callee].Source = c.legs[callee].trunk.Peer
			c.setUp(stx, m)
		}
	case s.draining.Load():
		sh.reject(m, key, 503, "", retryAfter+warning("no new calls, going down for maintenance"))
	case s.calls.Load() >= int64(s.cfg.Limits.Calls):
		// Without a transaction (RFC 3261 section 8.2.7): there may be many of them.
		s.counts.add(cRejected)
		s.answer(m, 503, "", retryAfter+warning("too many calls"))
	case m.trunk.route == nil:
		sh.reject(m, key, 404, "", warning("no route for calls from here"))
	default:
		if stx := sh.begin(m, key, merge); stx != nil {
			s.counts.add(cCallsStarted)
			home, _ := m.home()
			sh.newCall(m, home).setUp(stx, m)
		}
	}
}

func warning(text string) string { return "Warning: 399 tandem \"" + text + "\"\r\n" }

// begin makes the server transaction of an INVITE that is served, and says so at once.
func (sh *shard) begin(m *message, key, merge string) *serverTx {
	stx := sh.newServerTx(m, key)
	if stx == nil {
		return nil
	}
	if merge != "" {
		stx.merge = strings.Clone(merge)
		sh.merges[stx.merge] = stx
	}
	stx.reply(100, "", "")
	return stx
}

// setUp sends the INVITE to leg B.
func (c *call) setUp(stx *serverTx, m *message) {
	sh := c.sh
	sh.current.call = c
	c.learn(m)
	c.State, c.Forks = StateCalling, nil
	x := &exchange{call: c, from: caller, method: methodINVITE, in: m.cseq, out: m.cseq, initial: true}
	x.open(stx)
	c.initial = x
	b := &c.legs[callee]
	branch := newBranch(c.home)
	uri := retarget(m.uri, b.trunk.peer)
	c.Setup = &Setup{
		Invite: []byte(m.head()), From: m.from, Branch: branch, URI: uri, To: b.trunk.Peer, In: x.in, Out: x.out,
	}
	body, err := x.described(m, caller, true, func(describedBody) { c.Setup.Offered = true })
	if err == nil && body.in == "" {
		err = c.commit(nil)
	}
	if err != nil {
		status, extra := mediaStatus(err)
		c.report("call refused", m, status, err)
		sh.srv.counts.add(cCallsFailed)
		stx.reply(status, "", extra)
		c.destroy()
		return
	}
	x.offered = body.in != ""
	raw := x.request(m, methodINVITE+" "+uri+" SIP/2.0", nil, branch, body)
	x.ctx = sh.newClientTx(branch, methodINVITE, b, b.trunk.Peer, raw, x)
	x.setHead(uri, nil)
	sh.start(&x.guard, x, sh.srv.cfg.Timers.Setup)
}

// setHead notes what ACK and CANCEL of the INVITE repeat.
func (x *exchange) setHead(uri string, routes []string) {
	l := &x.call.Legs[x.to()]
	from, to := l.From, l.To
	if !x.initial {
		if f := x.call.fork(x.tag); f != nil {
			to = withTag(to, f.Tag)
		}
		if x.from == callee {
			from, to = to, from
		}
	}
	x.ctx.head = requestHead{uri: uri, routes: routes, from: from, to: to, callID: l.CallID, cseq: x.out}
}

// inviteResponse takes a response to an INVITE.
func (x *exchange) inviteResponse(m *message) {
	switch {
	case m.status < 200:
		x.provisional(m)
	case m.status < 300:
		x.success(m)
	default:
		x.failure(m)
	}
}

// provisional passes a 1xx on, except 100, which says no more than ours did.
func (x *exchange) provisional(m *message) {
	c := x.call
	if x.cancel != nil {
		x.sendCancel()
	}
	if x.given || x.won || x.closed {
		return
	}
	if m.status == 100 {
		return
	}
	if !x.cancelSent {
		c.sh.start(&x.guard, x, c.sh.srv.cfg.Timers.Setup) // RFC 3261 section 16.7
	}
	fresh := false
	if x.initial && m.toTag != "" {
		known := len(c.Forks)
		if f := c.learnFork(m, x); f == nil || f.Gone {
			return
		}
		fresh = len(c.Forks) > known
		if c.State == StateCalling {
			c.State = StateRinging
		}
	}
	body, err := x.describeResponse(m, nil)
	if err != nil {
		c.report("early media description cannot be used", m, m.status, err)
		return
	}
	if fresh && body.in == "" {
		c.note()
	}
	x.stx.respond(m.status, x.relayed(m, body))
}

// learnFork finds or makes the fork of a response on leg B; nil if they are too many or too long.
func (c *call) learnFork(m *message, x *exchange) *Fork {
	f := c.fork(m.toTag)
	text := len(m.toTag) + len(m.contact) + len(m.lines(fieldRecordRoute))
	for i := range c.Forks {
		if one := &c.Forks[i]; one != f {
			text += one.text()
		}
	}
	if text > maxForkText {
		c.sh.srv.complain("too much in the answers to one call", "call", c.ID, "trunk", m.trunk.Name, "peer", m.from, "bytes", text)
		return nil
	}
	if f == nil {
		if len(c.Forks) >= maxForks {
			return nil
		}
		c.Forks = append(c.Forks, Fork{Tag: strings.Clone(m.toTag)})
		f = &c.Forks[len(c.Forks)-1]
		f.Received[caller], f.Sent[callee] = x.in, x.out
	}
	if m.contact != "" {
		f.Target = strings.Clone(m.contact)
	}
	if len(f.Routes) == 0 {
		f.Routes = reversed(m.routeSet(maxRoutes))
	}
	return f
}

// text is the length of what a fork keeps of its messages.
func (f *Fork) text() int {
	n := len(f.Tag) + len(f.Target)
	for _, r := range f.Routes {
		n += len(r)
	}
	return n
}

// reversed turns Record-Route into the route set of a UAC (RFC 3261 section 12.1.2).
func reversed(routes []string) []string {
	slices.Reverse(routes)
	return routes
}

// success takes a 2xx: the first one is the caller's, further ones of other forks are hung up.
func (x *exchange) success(m *message) {
	c := x.call
	switch {
	case x.won && (m.toTag == x.tag || !x.initial): // within a dialog there is only one who answers
		c.sh.srv.counts.add(cRetransmitsIn)
		if x.ack != nil {
			x.sendAck()
		}
		return
	case x.losers[m.toTag] != nil || x.won || x.given || !x.stx.open() || c.dead:
		x.dismiss(m)
		return
	}
	if x.initial {
		x.answered2xx(m)
		return
	}
	var raw []byte
	render := func(body describedBody) { raw = x.relayed(m, body) }
	body, err := x.describeResponse(m, render)
	if err != nil {
		x.unusable(m, err)
		return
	}
	if body.in == "" {
		render(body)
	}
	x.won = true
	x.refreshTargets(x.stx.req, m)
	x.awaitAck(raw)
}

// answered2xx takes the 2xx that makes the call. Record, session and the 2xx as it goes back change in one group.
func (x *exchange) answered2xx(m *message) {
	c := x.call
	f := c.learnFork(m, x)
	if f == nil || f.Gone {
		x.dismiss(m)
		x.stx.reply(480, "", "")
		c.destroy()
		return
	}
	forks := c.Forks
	var raw []byte
	render := func(body describedBody) {
		c.Forks = []Fork{*f}
		c.State, c.Answered = StateAnswered, c.sh.now.UTC()
		raw = x.relayed(m, body)
		c.Setup.Answer = recorded(raw)
	}
	body, err := x.describeResponse(m, render)
	if err == nil && body.in == "" {
		err = c.commit(func(*relay.Tx) error { render(body); return nil })
	}
	if err != nil {
		c.Forks = forks
		x.unusable(m, err)
		return
	}
	x.won, x.tag = true, c.Forks[0].Tag
	c.sh.srv.counts.add(cCallsAnswered)
	x.awaitAck(raw)
}

// maxAnswer bounds the 2xx that is recorded until its ACK, in bytes. A longer one is not: a restart within that moment ends
// the call.
const maxAnswer = 16 << 10

// recorded is a 2xx as the journal keeps it: without credentials, which have no business in it anyway.
func recorded(raw []byte) []byte {
	if len(raw) > maxAnswer {
		return nil
	}
	m := &message{raw: string(raw)}
	if m.index() != nil {
		return nil
	}
	b, from := make([]byte, 0, len(raw)), 0
	for i := range m.fields {
		f := &m.fields[i]
		if name := m.raw[f.start:f.name]; strings.EqualFold(name, "Authorization") || strings.EqualFold(name, "Proxy-Authorization") {
			b = append(b, m.raw[from:f.start]...)
			from = int(f.end)
		}
	}
	return append(b, m.raw[from:]...)
}

// unusable ends what a 2xx would have made, because its description cannot be used.
func (x *exchange) unusable(m *message, err error) {
	c := x.call
	status, extra := mediaStatus(err)
	if status == 400 || status == 488 {
		status = 502 // it is not the caller's fault
	}
	c.report("answer cannot be used", m, status, err)
	x.dismiss(m)
	x.stx.reply(status, "", extra)
	if x.initial {
		c.sh.srv.counts.add(cCallsFailed)
		c.destroy()
		return
	}
	x.revert()
	x.close()
}

// failure passes a final failure on.
func (x *exchange) failure(m *message) {
	c := x.call
	if x.closed || x.won {
		return
	}
	if x.given {
		x.close()
		if x.initial {
			c.destroy()
		}
		return
	}
	x.stx.respond(m.status, x.relayed(m, describedBody{}))
	if !x.initial {
		x.revert()
		x.close()
		return
	}
	if m.status == 401 || m.status == 407 {
		c.challenge(x)
		return
	}
	c.sh.srv.counts.add(cCallsFailed)
	c.destroy()
}

// challenge keeps the call, with its session and ports, for the INVITE with credentials.
func (c *call) challenge(x *exchange) {
	x.close()
	c.sh.srv.counts.add(cCallsChallenged)
	c.State, c.Forks, c.Setup, c.lastSeq = StateChallenged, nil, nil, x.in
	if former := c.sh.challenged[c.challengeKey()]; former != nil {
		former.destroy()
	}
	c.sh.challenged[c.challengeKey()] = c
	c.sh.start(&c.deadline, c, c.sh.srv.cfg.Timers.Challenge)
	c.note()
}
