package sip

import (
	"slices"
	"strings"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/signalling/media"
)

// exchange is one request on its way through a call: the server transaction on the leg that it came from, and the client
// transaction on the other.
type exchange struct {
	call    *call
	from    side
	method  string
	tag     string // of the fork; of the first INVITE: of the one that won
	in, out uint32 // CSeq numbers on the two legs
	initial bool   // the INVITE that made the call
	stx     *serverTx
	ctx     *clientTx

	// Offer and answer (RFC 3264). before is the session to go back to when the offer is refused.
	offered, lateOffer, answered bool
	before                       *relay.Session
	last                         describedBody

	// Of an INVITE. won: a 2xx went back. given: we answered in the place of the other side.
	won, given bool
	answer     []byte // the 2xx, until its ACK
	ack        []byte // the ACK, for every repetition of the 2xx
	cancel     []byte // CANCEL that waits for a provisional response, or was sent
	cancelSent bool
	losers     map[string][]byte // ACKs by To tag
	closed     bool

	repeat, guard timer
	interval      time.Duration
}

// describedBody is the last body that went through the media engine, and what became of it.
type describedBody struct {
	tag, in string
	out     media.Body
}

func (x *exchange) invite() bool { return x.method == methodINVITE }

// to is the side that the request goes to.
func (x *exchange) to() side { return x.from.other() }

// open adds the exchange to its call.
func (x *exchange) open(stx *serverTx) {
	x.stx, stx.ex = stx, x
	x.call.exchanges = append(x.call.exchanges, x)
}

// close takes the exchange out of its call. The client transaction stays, so that a 2xx that is repeated gets its ACK again.
func (x *exchange) close() {
	if x.closed {
		return
	}
	x.closed = true
	c := x.call
	c.sh.stop(&x.repeat)
	c.sh.stop(&x.guard)
	c.exchanges = slices.DeleteFunc(c.exchanges, func(e *exchange) bool { return e == x })
	if c.initial == x {
		c.initial = nil
	}
	if x.ctx != nil && x.ctx.state < txAccepted && x.invite() {
		// Nobody waits for it any more; a 2xx that still comes is dismissed.
		x.giveUp("", nil)
		c.sh.stop(&x.guard)
		c.sh.start(&x.ctx.end, x.ctx, c.sh.srv.cfg.Timers.timeout())
	}
	if x.stx.open() && x.stx.state != txTerminated {
		if x.invite() {
			x.stx.reply(487, "", "")
		} else {
			// Too late for an answer (RFC 4320 section 4.2).
			x.stx.terminate()
		}
	}
	x.answer, x.before, x.last = nil, nil, describedBody{}
}

// request renders the request for the other leg.
func (x *exchange) request(m *message, start string, routes []string, branch string, body describedBody) []byte {
	c := x.call
	to := &c.legs[x.to()]
	w := rewrite{
		start: start, via: to.ln.viaLine(branch), routes: routes,
		contact: to.contact(), needContact: m.method == methodINVITE, maxForwards: m.nextForwards(),
	}
	if m.cseq != x.out {
		w.cseq = x.out
	}
	if x.method == methodPRACK {
		if f := c.fork(x.tag); f != nil {
			w.rackOffset = f.Offset[x.to()]
		}
	}
	c.identify(&w, x.to(), x.from)
	w.describe(m, body)
	return m.render(make([]byte, 0, len(m.raw)+256), &w)
}

// identify replaces the identifiers of the dialog where those of the two legs differ. asker is the side whose request
// this is, or is answered.
func (c *call) identify(w *rewrite, to, asker side) {
	a, b := &c.Legs[to], &c.Legs[to.other()]
	if a.CallID != b.CallID {
		w.callID = a.CallID
	}
	if a.Tag == b.Tag {
		return
	}
	if asker == caller {
		w.fromTag = a.Tag
	} else {
		w.toTag = a.Tag
	}
}

// describe puts in the body that the media engine made, if it is another one.
func (w *rewrite) describe(m *message, body describedBody) {
	if body.in == "" || string(body.out.Data) == m.body {
		return
	}
	w.newBody, w.body = true, body.out.Data
	if body.out.ContentType != m.text(fieldContentType) {
		w.contentType = body.out.ContentType
	}
}

// relayed renders a response of the other leg for the one that the request came from.
func (x *exchange) relayed(m *message, body describedBody) []byte {
	c := x.call
	w := rewrite{via: x.stx.via, maxForwards: -1}
	if m.status < 300 {
		w.contact = c.legs[x.from].contact()
		w.needContact = x.invite() && m.status >= 200
		w.recordRoute = x.stx.req.lines(fieldRecordRoute)
	}
	if x.in != x.out {
		w.cseq = x.in
	}
	c.identify(&w, x.from, x.from)
	w.describe(m, body)
	return m.render(make([]byte, 0, len(m.raw)+256), &w)
}

// response takes a response of the other leg.
func (x *exchange) response(_ *clientTx, m *message) {
	c := x.call
	c.sh.current.call, c.sh.current.stx = c, x.stx
	if !c.dead && c.legs[x.to()].trunk.admits(m) {
		c.Legs[x.to()].Source = m.from
	}
	switch {
	case x.invite():
		x.inviteResponse(m)
	case m.status < 200:
		if m.status > 100 && x.stx.open() {
			x.stx.respond(m.status, x.relayed(m, describedBody{}))
		}
	default:
		x.final(m)
	}
}

// final takes the final response to a request other than INVITE.
func (x *exchange) final(m *message) {
	c := x.call
	if !x.stx.open() {
		x.close()
		return
	}
	var body describedBody
	if m.status < 300 {
		var err error
		if body, err = x.describeResponse(m, nil); err != nil {
			status, extra := mediaStatus(err)
			c.report("answer cannot be used", m, status, err)
			x.stx.reply(status, "", extra)
			x.revert()
			x.close()
			return
		}
		if x.method == methodUPDATE {
			x.refreshTargets(x.stx.req, m)
		}
	}
	x.stx.respond(m.status, x.relayed(m, body))
	if m.status >= 300 {
		x.revert()
	}
	x.close()
	if x.method == methodBYE {
		c.byeAnswered(m.status)
	}
}

// refreshTargets takes the Contacts of a target refresh request and of its 2xx (RFC 3261 section 12.2).
func (x *exchange) refreshTargets(req, res *message) {
	c := x.call
	f := c.fork(x.tag)
	if f == nil {
		return
	}
	changed := false
	for _, one := range [...]struct {
		m *message
		s side
	}{{req, x.from}, {res, x.to()}} {
		target := &c.Legs[caller].Target
		if one.s == callee {
			target = &f.Target
		}
		if one.m != nil && one.m.contact != "" && one.m.contact != *target {
			*target, changed = strings.Clone(one.m.contact), true
		}
	}
	if changed {
		c.note()
	}
}

// timeout says that the other leg gave no final response.
func (x *exchange) timeout(*clientTx) {
	c := x.call
	if x.closed {
		return
	}
	c.sh.current.call, c.sh.current.stx = c, x.stx
	x.revert()
	switch {
	case x.initial:
		if !x.given {
			x.stx.reply(408, "", "")
			c.sh.srv.counts.add(cCallsFailed)
		}
		c.destroy()
	case x.method == methodBYE:
		c.destroy()
	default:
		if x.invite() {
			x.stx.reply(408, "", "")
		}
		x.close()
	}
}

// report logs why a call could not go on as the parties asked, with the status of the answer that this led to.
func (c *call) report(what string, m *message, status int, err error) {
	c.sh.srv.log.Info(what, "call", c.ID, "call_id", c.Legs[caller].CallID, "trunk", m.trunk.Name, "peer", m.from,
		"method", m.method, "status", status, "err", err)
}
