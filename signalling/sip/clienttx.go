package sip

import (
	"net/netip"
	"time"
)

// clientUser is who sent a request.
type clientUser interface {
	// response takes a response: every provisional one, every 2xx to an INVITE, and one other final response.
	response(tx *clientTx, m *message)
	// timeout says that no final response came (RFC 3261 section 17.1).
	timeout(tx *clientTx)
}

// clientTx is a client transaction over UDP.
type clientTx struct {
	sh     *shard
	branch string
	method string
	state  txState
	ln     *listener
	trunk  *trunk // whose responses these may be
	to     netip.AddrPort
	raw    []byte // until the first response
	head   requestHead
	ack    []byte // ACK of a failure, for repetition
	user   clientUser

	repeat, end timer
	interval    time.Duration
}

// requestHead is what ACK and CANCEL repeat of an INVITE (RFC 3261 section 9.1, 17.1.1.3).
type requestHead struct {
	uri    string
	routes []string
	from   string // From value
	to     string // To value, without the tag of the response
	callID string
	cseq   uint32
}

func clientKey(branch, method string) string { return branch + " " + method }

// viaLine is our Via with the branch.
func (ln *listener) viaLine(branch string) string {
	return "Via: SIP/2.0/UDP " + ln.shown + ";branch=" + branch + ";rport\r\n"
}

// newClientTx begins a transaction and sends the request to the party of a leg.
func (sh *shard) newClientTx(branch, method string, l *leg, to netip.AddrPort, raw []byte, user clientUser) *clientTx {
	timers := &sh.srv.cfg.Timers
	tx := &clientTx{sh: sh, branch: branch, method: method, ln: l.ln, trunk: l.trunk, to: to, raw: raw, user: user, interval: timers.T1}
	sh.clients[clientKey(branch, method)] = tx
	tx.ln.send(raw, to)
	sh.start(&tx.repeat, tx, tx.interval)
	sh.start(&tx.end, tx, timers.timeout())
	return tx
}

// response handles a response that matches the transaction.
func (tx *clientTx) response(m *message) {
	if tx.method == methodINVITE {
		tx.inviteResponse(m)
		return
	}
	if tx.state >= txCompleted {
		tx.sh.srv.counts.add(cRetransmitsIn)
		return
	}
	tx.state = txProceeding
	if m.status >= 200 {
		tx.state, tx.raw = txCompleted, nil
		tx.sh.stop(&tx.repeat)
		tx.sh.start(&tx.end, tx, tx.sh.srv.cfg.Timers.T4)
	}
	if tx.user != nil {
		tx.user.response(tx, m)
	}
}

func (tx *clientTx) inviteResponse(m *message) {
	sh := tx.sh
	switch {
	case m.status < 200:
		if tx.state > txProceeding {
			return
		}
		if tx.state == txTrying {
			tx.state, tx.raw = txProceeding, nil
			sh.stop(&tx.repeat)
			sh.stop(&tx.end) // from here on the user watches
		}
	case m.status < 300:
		if tx.state == txCompleted {
			return
		}
		if tx.state != txAccepted {
			tx.state, tx.raw = txAccepted, nil
			sh.stop(&tx.repeat)
			sh.start(&tx.end, tx, sh.srv.cfg.Timers.timeout())
		}
	default:
		if tx.state == txAccepted {
			return
		}
		if tx.state == txCompleted {
			sh.srv.counts.add(cRetransmitsIn)
			tx.ln.send(tx.ack, tx.to)
			return
		}
		tx.state, tx.raw = txCompleted, nil
		tx.ack = tx.follow(methodACK, m.text(fieldTo), "", nil)
		tx.ln.send(tx.ack, tx.to)
		sh.stop(&tx.repeat)
		sh.start(&tx.end, tx, max(32*time.Second, sh.srv.cfg.Timers.timeout()))
	}
	if tx.user != nil {
		tx.user.response(tx, m)
	}
}

// follow builds ACK or CANCEL on the INVITE's own branch. If the caller's request is given, it passes through, with everything
// that is not the transaction's.
func (tx *clientTx) follow(method, to, extra string, m *message) []byte {
	via := tx.ln.viaLine(tx.branch)
	if m != nil {
		return m.render(nil, &rewrite{
			start: method + " " + tx.head.uri + " SIP/2.0", via: via, routes: tx.head.routes,
			cseq: tx.head.cseq, maxForwards: m.nextForwards(), callID: tx.head.callID,
		})
	}
	b := append(append(append([]byte(method+" "), tx.head.uri...), " SIP/2.0\r\n"...), via...)
	b = appendRoutes(b, tx.head.routes)
	return appendCore(b, tx.head.from, to, tx.head.callID, tx.head.cseq, method, extra)
}

func (tx *clientTx) expire(t *timer) {
	if t == &tx.end {
		if tx.state < txAccepted {
			tx.sh.srv.counts.add(cTimeouts)
			user := tx.user
			tx.terminate()
			if user != nil {
				user.timeout(tx)
			}
			return
		}
		tx.terminate()
		return
	}
	tx.sh.srv.counts.add(cRetransmitsOut)
	tx.ln.send(tx.raw, tx.to)
	timers := &tx.sh.srv.cfg.Timers
	switch {
	case tx.method == methodINVITE:
		tx.interval *= 2
	case tx.state == txProceeding:
		tx.interval = timers.T2
	default:
		tx.interval = min(2*tx.interval, timers.T2)
	}
	tx.sh.start(&tx.repeat, tx, tx.interval)
}

// terminate forgets the transaction.
func (tx *clientTx) terminate() {
	if tx.state == txTerminated {
		return
	}
	tx.state = txTerminated
	tx.sh.stop(&tx.repeat)
	tx.sh.stop(&tx.end)
	tx.raw, tx.ack, tx.user = nil, nil, nil
	delete(tx.sh.clients, clientKey(tx.branch, tx.method))
}
