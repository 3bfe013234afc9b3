package sip

import (
	"net/netip"
	"strings"
	"time"
)

// txState is the state of a transaction (RFC 3261 section 17, RFC 6026).
type txState uint8

const (
	txTrying     txState = iota // client INVITE: calling
	txProceeding                // a provisional response went by
	txAccepted                  // INVITE with 2xx
	txCompleted                 // another final response
	txConfirmed                 // INVITE server: ACK received
	txTerminated
)

// serverTx is a server transaction over UDP.
type serverTx struct {
	sh     *shard
	key    string
	merge  string
	invite bool
	state  txState
	ln     *listener
	to     netip.AddrPort
	req    *message // until the final response
	via    string   // of responses, until the final response
	last   []byte   // the last response, for retransmission
	ex     *exchange

	repeat, end timer
	interval    time.Duration
}

// newServerTx begins a transaction; nil if the table is full, and then the request is dropped. A quarter of the table is left to
// requests within dialogs, so that a flood of new ones does not keep calls from ending.
func (sh *shard) newServerTx(m *message, key string) *serverTx {
	s := sh.srv
	limit := int64(s.cfg.Limits.Transactions)
	if m.toTag == "" {
		limit -= limit / 4
	}
	if s.transact.Load() >= limit {
		s.counts.add(cTableFull)
		return nil
	}
	s.transact.Add(1)
	tx := &serverTx{sh: sh, key: strings.Clone(key), invite: m.method == methodINVITE, ln: m.ln, to: m.replyTo(), req: m, via: m.responseVia()}
	sh.servers[tx.key] = tx
	sh.current.stx = tx
	return tx
}

// again handles a request that matches the transaction, other than the first. It reports false for an ACK that the dialog
// must see (RFC 6026 section 7.1).
func (tx *serverTx) again(m *message) bool {
	if m.method == methodACK {
		switch tx.state {
		case txAccepted:
			return false
		case txCompleted:
			tx.state, tx.last = txConfirmed, nil
			tx.sh.stop(&tx.repeat)
			tx.sh.start(&tx.end, tx, tx.sh.srv.cfg.Timers.T4)
		}
		return true
	}
	tx.sh.srv.counts.add(cRetransmitsIn)
	if tx.last != nil && (tx.state == txProceeding || tx.state == txCompleted) {
		tx.to = m.replyTo()
		tx.send()
	}
	return true
}

func (tx *serverTx) send() { tx.ln.send(tx.last, tx.to) }

// open reports whether the transaction still waits for a final response.
func (tx *serverTx) open() bool { return tx.state <= txProceeding }

// respond sends a response. After a final one, further ones are ignored.
func (tx *serverTx) respond(status int, raw []byte) {
	if !tx.open() {
		return
	}
	sh, timers := tx.sh, &tx.sh.srv.cfg.Timers
	tx.last = raw
	tx.send()
	if status < 200 {
		tx.state = txProceeding
		return
	}
	tx.req, tx.via, tx.ex = nil, "", nil
	if tx.merge != "" && status >= 300 {
		// After a failure the caller may try once more; a copy of what was answered is still one (RFC 3261 section 8.2.2.2).
		delete(sh.merges, tx.merge)
		tx.merge = ""
	}
	switch {
	case tx.invite && status < 300:
		// The 2xx belongs to the core, which repeats it until the ACK (RFC 6026 section 7.1).
		tx.state, tx.last = txAccepted, nil
	case tx.invite:
		tx.state, tx.interval = txCompleted, timers.T1
		sh.start(&tx.repeat, tx, tx.interval)
	default:
		tx.state = txCompleted
	}
	sh.start(&tx.end, tx, timers.timeout())
}

// reply sends a response of our own.
func (tx *serverTx) reply(status int, reason, extra string) {
	if !tx.open() {
		return
	}
	tag := ""
	if status > 100 {
		if tag = tx.tag(); tag == "" {
			tag = tx.sh.srv.seed.tag(tx.req)
		}
	}
	if status > 100 && tx.invite && tx.req.toTag == "" {
		extra = tx.req.lines(fieldRecordRoute) + extra
	}
	tx.respond(status, tx.req.response(nil, tx.via, status, reason, tag, extra))
}

// tag is the To tag of a dialog that the caller knows already.
func (tx *serverTx) tag() string {
	if tx.ex == nil || tx.ex.call == nil || len(tx.ex.call.Forks) == 0 {
		return ""
	}
	return tx.ex.call.Forks[0].Tag
}

func (tx *serverTx) expire(t *timer) {
	if t == &tx.end {
		tx.terminate()
		return
	}
	tx.sh.srv.counts.add(cRetransmitsOut)
	tx.send()
	tx.interval = min(2*tx.interval, tx.sh.srv.cfg.Timers.T2)
	tx.sh.start(&tx.repeat, tx, tx.interval)
}

// terminate forgets the transaction.
func (tx *serverTx) terminate() {
	if tx.state == txTerminated {
		return
	}
	tx.state = txTerminated
	tx.sh.stop(&tx.repeat)
	tx.sh.stop(&tx.end)
	tx.req, tx.last, tx.ex = nil, nil, nil
	delete(tx.sh.servers, tx.key)
	if tx.merge != "" {
		delete(tx.sh.merges, tx.merge)
	}
	tx.sh.srv.transact.Add(-1)
}
