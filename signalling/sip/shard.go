package sip

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// shard owns the transactions, dialogs and timers of some of the calls. Its state is touched with mu held only; its
// goroutine holds it for one event at a time, so in practice nobody waits.
type shard struct {
	srv   *Server
	index int
	queue chan *message
	wake  chan struct{}

	mu    sync.Mutex
	epoch time.Time
	now   time.Time     // of the event being handled
	tick  time.Duration // now, since epoch

	timers     timerHeap
	servers    map[string]*serverTx
	clients    map[string]*clientTx
	merges     map[string]*serverTx // INVITEs in progress, for RFC 3261 section 8.2.2.2
	legs       map[string]*leg      // by token
	sameID     map[string]*call     // by Call-ID, the first of a chain
	calls      map[string]*call     // by id
	challenged map[string]*call     // by challengeKey
	releases   releases

	parser  *sipgo.Parser
	scratch []byte

	// What is being handled, for the case that it panics.
	current struct {
		message *message
		stx     *serverTx
		call    *call
	}
}

func newShard(s *Server, index int) *shard {
	sh := &shard{
		srv: s, index: index, epoch: time.Now(),
		queue:      make(chan *message, s.cfg.Limits.Queue),
		wake:       make(chan struct{}, 1),
		servers:    make(map[string]*serverTx),
		clients:    make(map[string]*clientTx),
		merges:     make(map[string]*serverTx),
		legs:       make(map[string]*leg),
		sameID:     make(map[string]*call),
		calls:      make(map[string]*call),
		challenged: make(map[string]*call),
		parser:     newParser(),
	}
	sh.now, sh.releases.sh = sh.epoch, sh
	return sh
}

// enqueue gives the shard a message. When the queue is half full, what begins something new is dropped, so that calls
// in progress go on; when it is full, everything is.
func (sh *shard) enqueue(m *message) {
	if len(sh.queue) > cap(sh.queue)/2 && m.fresh() {
		sh.srv.counts.add(cShed)
		return
	}
	select {
	case sh.queue <- m:
	default:
		sh.srv.counts.add(cQueueFull)
	}
}

// run handles messages and timers until the context ends.
func (sh *shard) run(ctx context.Context) {
	const idle = time.Duration(math.MaxInt64)
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	armed := idle
	for {
		due := sh.fire()
		if due < armed {
			alarm.Reset(max(0, due-time.Since(sh.epoch)))
			armed = due
		}
		select {
		case <-ctx.Done():
			return
		case <-alarm.C:
			armed = idle
		case <-sh.wake:
		case m := <-sh.queue:
			sh.handle(m)
		}
	}
}

// fire wakes what is due, and returns when the next timer is.
func (sh *shard) fire() time.Duration {
	for {
		sh.mu.Lock()
		due, ok := sh.timers.next()
		sh.mu.Unlock()
		if !ok {
			return math.MaxInt64
		}
		if due > time.Since(sh.epoch) {
			return due
		}
		sh.event(nil, func() {
			if due, ok := sh.timers.next(); ok && due <= sh.tick {
				t := sh.timers.all[0]
				sh.timers.stop(t)
				t.who.expire(t)
			}
		})
	}
}

// handle handles one message.
func (sh *shard) handle(m *message) {
	sh.event(m, func() { sh.message(m) })
}

// do runs f as an event of the shard, from any goroutine.
func (sh *shard) do(f func()) {
	sh.event(nil, f)
	select {
	case sh.wake <- struct{}{}:
	default:
	}
}

// event runs f with the shard locked. A panic ends the transaction and call that it concerns, and nothing else.
func (sh *shard) event(m *message, f func()) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.now = time.Now()
	sh.tick = sh.now.Sub(sh.epoch)
	sh.current.message, sh.current.stx, sh.current.call = m, nil, nil
	if sh.attempt(f) {
		return
	}
	stx, c := sh.current.stx, sh.current.call
	if stx == nil && m != nil && m.request {
		sh.attempt(func() { sh.srv.refuse(m, &fault{500, ""}) })
	}
	if stx != nil {
		sh.attempt(func() { stx.reply(500, "", "") })
	}
	if c != nil && !sh.attempt(c.fail) && !sh.attempt(c.destroy) {
		sh.attempt(func() { c.dead = true; sh.releases.add(c) })
	}
}

// attempt runs f and reports whether it came to its end.
func (sh *shard) attempt(f func()) (done bool) {
	defer func() {
		if p := recover(); p != nil {
			sh.srv.counts.add(cPanics)
			args := []any{"panic", fmt.Sprint(p), "stack", string(debug.Stack())}
			if m := sh.current.message; m != nil {
				args = append(args, "method", m.method, "call_id", m.callID, "peer", m.from)
			}
			sh.srv.log.Error("handling of a message ended by a panic", args...)
		}
	}()
	f()
	return true
}

// start starts a timer or moves it.
func (sh *shard) start(t *timer, who expirer, d time.Duration) {
	t.who = who
	sh.timers.set(t, sh.tick+d)
}

func (sh *shard) stop(t *timer) { sh.timers.stop(t) }

// message judges a message and gives it to its transaction.
func (sh *shard) message(m *message) {
	m.at = sh.now
	var f *fault
	sh.scratch, f = m.check(sh.parser, sh.scratch)
	if f != nil {
		sh.srv.counts.add(cMalformed)
		sh.srv.complain("malformed message", "trunk", m.trunk.Name, "peer", m.from, "err", f.reason)
		if m.request {
			sh.srv.refuse(m, f)
		}
		return
	}
	if m.request {
		sh.request(m)
		return
	}
	if tx := sh.clients[clientKey(m.topVia.branch, m.method)]; tx != nil {
		if tx.trunk.admits(m) || m.ln.network == tx.ln.network && m.from.Addr() == tx.to.Addr() {
			tx.response(m)
			return
		}
		sh.srv.counts.add(cForeign)
	}
	if !sh.lateAnswer(m) {
		sh.srv.counts.add(cStrayResponses)
	}
}

// request gives a request to the transaction it belongs to, or to the part that begins one.
func (sh *shard) request(m *message) {
	key := serverKey(m, m.method)
	if m.method == methodACK {
		key = serverKey(m, methodINVITE)
	}
	if tx := sh.servers[key]; tx != nil {
		sh.current.stx = tx
		if tx.again(m) {
			return
		}
		sh.current.stx = nil
	}
	switch {
	case m.method == methodACK:
		sh.dialogACK(m)
	case m.method == methodCANCEL:
		sh.cancel(m)
	case m.toTag != "":
		sh.dialogRequest(m, key)
	case m.method == methodINVITE:
		sh.invite(m, key)
	default:
		sh.outside(m, key)
	}
}

// allowed is the Allow header of our own responses.
const allowed = "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, INFO, MESSAGE, REFER, NOTIFY, SUBSCRIBE\r\n"

// outside answers requests other than INVITE that belong to no dialog.
func (sh *shard) outside(m *message, key string) {
	switch m.method {
	case methodOPTIONS:
		sh.srv.answer(m, 200, "", allowed+"Accept: application/sdp\r\n")
	case methodBYE, methodPRACK, methodUPDATE, "INFO", "NOTIFY":
		sh.reject(m, key, 481, "", "")
	case "REGISTER", "SUBSCRIBE", "PUBLISH", "MESSAGE", "REFER":
		sh.reject(m, key, 405, "", allowed)
	default:
		sh.reject(m, key, 501, "", allowed)
	}
}

// reject answers a request with a final failure. An INVITE gets a transaction, because of its ACK; other requests get
// the same answer again when they are repeated.
func (sh *shard) reject(m *message, key string, status int, reason, extra string) {
	sh.srv.counts.add(cRejected)
	if m.method != methodINVITE {
		sh.srv.answer(m, status, reason, extra)
		return
	}
	if tx := sh.newServerTx(m, key); tx != nil {
		tx.reply(status, reason, extra)
	}
}

// answer sends a response without state.
func (s *Server) answer(m *message, status int, reason, extra string) {
	m.ln.send(m.response(nil, m.responseVia(), status, reason, s.seed.tag(m), extra), m.replyTo())
}

// serverKey is what retransmissions of a request have in common (RFC 3261 section 17.2.3). A branch that is not unique by itself is
// helped by what RFC 2543 compared. The trunk is part of it: nobody acts in the transactions of another one.
func serverKey(m *message, method string) string {
	v := &m.topVia
	if strings.HasPrefix(v.branch, magicCookie) && len(v.branch) > len(magicCookie) {
		return v.branch + "|" + v.sentBy + "|" + method + "|" + m.trunk.Name
	}
	return strings.Join([]string{"2543", m.trunk.Name, v.text, m.uri, m.callID, m.fromTag, fmt.Sprint(m.cseq), method}, "|")
}
