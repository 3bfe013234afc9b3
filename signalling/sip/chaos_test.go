package sip

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// robot is a peer that plays many calls at once, with retransmissions, over a network that loses, doubles and
// reorders. It is driven by its own goroutine and by timers, under one lock.
type robot struct {
	*peer
	rnd     *rand.Rand
	do      chan func()
	pending map[string]*resend
	calls   map[string]*robotCall
	caller  bool
	seen    map[string]string // last response by branch and method
}

type robotCall struct {
	id, branch      string
	from, to        string
	target          string
	routes          []string
	cseq, invite    int
	up, ending      bool
	gone            bool // this party says nothing any more
	plan            int
	tag             string
	authorized      bool
	reinvites, acks int
}

type resend struct {
	raw   string
	wait  time.Duration
	total time.Duration
}

func (r *rig) robot(addr, tandem netip.AddrPort, rnd *rand.Rand, isCaller bool) *robot {
	b := &robot{peer: r.peer(addr, tandem), rnd: rnd, do: make(chan func(), 4096), pending: make(map[string]*resend),
		calls: make(map[string]*robotCall), caller: isCaller, seen: make(map[string]string)}
	return b
}

func (b *robot) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case f := <-b.do:
			f()
		case d := <-b.conn.in:
			b.handle(text(d.b))
		}
	}
}

func (b *robot) after(d time.Duration, f func()) { time.AfterFunc(d, func() { b.do <- f }) }

func (b *robot) raw(s string) { b.r.wire.carry(b.conn.addr, b.to, s) }

// repeatedly sends until settle is called with the key, or for 32 s.
func (b *robot) repeatedly(key, raw string) {
	b.settle(key)
	s := &resend{raw: raw, wait: 500 * time.Millisecond}
	b.pending[key] = s
	b.raw(raw)
	var again func()
	again = func() {
		if b.pending[key] != s {
			return
		}
		s.total += s.wait
		s.wait = min(2*s.wait, 4*time.Second)
		if s.total > 32*time.Second {
			delete(b.pending, key)
			return
		}
		b.raw(s.raw)
		b.after(s.wait, again)
	}
	b.after(s.wait, again)
}

func (b *robot) settle(key string) { delete(b.pending, key) }

func (b *robot) upTo(d time.Duration) time.Duration {
	return time.Duration(b.rnd.Int64N(int64(d)))
}

func (c *robotCall) headers() string {
	s := ""
	for _, r := range c.routes {
		s += "Route: " + r + "\n"
	}
	return s
}

// call starts a call; plan says how it goes.
func (b *robot) call(n int) {
	c := &robotCall{id: fmt.Sprintf("call-%d", n), from: fmt.Sprintf("<sip:robot@x>;tag=t%d", n), to: fmt.Sprintf("<sip:%d@x>", n), plan: b.rnd.IntN(10)}
	b.calls[c.id] = c
	b.invite(c, n, "")
	switch c.plan {
	case 0, 1: // gives up
		b.after(b.upTo(3*time.Second), func() {
			if !c.up && !c.ending {
				b.repeatedly(c.id+" CANCEL", b.requestVia(c.branch, "CANCEL", c.target, c.from, c.to, c.id, c.invite, "", ""))
			}
		})
	case 2: // dies
		b.after(b.upTo(6*time.Second), func() { c.gone = true })
	}
}

func (b *robot) invite(c *robotCall, n int, extra string) {
	c.cseq++
	c.invite = c.cseq
	c.branch = b.branch()
	c.target = fmt.Sprintf("sip:%d@%s", n, b.to)
	body := description("198.51.100.20", 4000+2*(n%1000))
	if n%7 == 3 {
		body = ""
	}
	b.repeatedly(c.id+" INVITE", b.requestVia(c.branch, "INVITE", c.target, c.from, c.to, c.id, c.cseq, b.contactLine()+extra, body))
}

func (b *robot) handle(m text) {
	if m.status() >= 100 {
		b.response(m)
		return
	}
	b.request(m)
}

func (b *robot) response(m text) {
	c := b.calls[m.get("Call-ID")]
	if c == nil || c.gone {
		return
	}
	method := strings.Fields(m.get("CSeq"))[1]
	if method != "INVITE" {
		if m.status() >= 200 {
			b.settle(c.id + " " + method)
		}
		return
	}
	if m.cseq() != c.invite {
		return
	}
	switch {
	case m.status() < 200:
		b.settle(c.id + " INVITE")
		return
	case m.status() < 300:
		b.settle(c.id + " INVITE")
		c.acks++
		if c.plan == 3 {
			return // never acknowledges
		}
		if c.up && b.caller && m.tag("To") != c.tag {
			return
		}
		if b.caller {
			c.to = m.get("To")
		}
		if m.get("Contact") != "" {
			c.target = m.contact()
		}
		body := ""
		if !c.up && strings.Contains(m.body(), "m=audio") && strings.HasSuffix(c.id, "3") {
			body = description("198.51.100.20", 4000)
		}
		b.raw(b.inDialog(c, "ACK", c.invite, "", body))
		if !c.up {
			c.up, c.tag = true, m.tag("To")
			b.after(b.upTo(5*time.Second), func() { b.live(c) })
		}
	default:
		b.settle(c.id + " INVITE")
		b.raw(b.requestVia(m.branch(), "ACK", c.target, c.from, m.get("To"), c.id, c.invite, "", ""))
		if b.caller && m.status() == 401 && !c.authorized && c.plan != 4 {
			c.authorized = true
			n := 0
			fmt.Sscanf(c.id, "call-%d", &n)
			b.invite(c, n, "Authorization: Digest x\n")
			return
		}
		if !c.up {
			c.ending = true
		}
	}
}

// request0 builds a request within the dialog.
func (b *robot) inDialog(c *robotCall, method string, cseq int, extra, body string) string {
	return b.requestAs(method, c.target, c.from, c.to, c.id, cseq, c.headers()+extra, body)
}

func (b *robot) requestAs(method, uri, from, to, id string, cseq int, extra, body string) string {
	return b.requestVia(b.branch(), method, uri, from, to, id, cseq, extra, body)
}

// live does something in an established call, and at last hangs up.
func (b *robot) live(c *robotCall) {
	if c.ending || c.gone {
		return
	}
	if c.reinvites < 3 && b.rnd.IntN(2) == 0 {
		c.reinvites++
		c.cseq++
		if b.rnd.IntN(3) == 0 {
			b.repeatedly(c.id+" INFO", b.inDialog(c, "INFO", c.cseq, "", ""))
		} else {
			c.invite = c.cseq
			b.repeatedly(c.id+" INVITE", b.inDialog(c, "INVITE", c.cseq, b.contactLine(), description("198.51.100.20", 4000)))
		}
		b.after(b.upTo(4*time.Second), func() { b.live(c) })
		return
	}
	c.ending = true
	c.cseq++
	b.repeatedly(c.id+" BYE", b.inDialog(c, "BYE", c.cseq, "", ""))
}

// reply sends a response, and a final one to INVITE again until the ACK.
func (b *robot) reply(m text, status int, tag, extra, body string) {
	raw := answer(m, status, tag, extra, body)
	b.seen[m.branch()+m.method()] = raw
	if m.method() == "INVITE" && status >= 200 {
		b.repeatedly(m.get("Call-ID")+" final", raw)
		return
	}
	b.raw(raw)
}

func (b *robot) request(m text) {
	id := m.get("Call-ID")
	c := b.calls[id]
	if c != nil && c.gone {
		return
	}
	if m.method() == "ACK" {
		b.settle(id + " final")
		return
	}
	if last, ok := b.seen[m.branch()+m.method()]; ok {
		b.raw(last)
		return
	}
	switch {
	case m.method() == "BYE":
		b.reply(m, 200, "", "", "")
		if c != nil {
			c.ending = true
			b.settle(id + " final")
		}
	case m.method() == "CANCEL":
		b.reply(m, 200, "z", "", "")
		if c != nil && !c.up && c.branch == m.branch() {
			c.ending, c.up = true, true
			inv := text(strings.NewReplacer("CANCEL", "INVITE").Replace(string(m)))
			b.reply(inv, 487, c.tag, "", "")
		}
	case m.method() == "INVITE" && m.tag("To") == "":
		b.incoming(m)
	case m.method() == "INVITE":
		status := []int{200, 200, 200, 488, 491}[b.rnd.IntN(5)]
		b.after(b.upTo(time.Second), func() {
			if status == 200 {
				b.reply(m, 200, "", b.contactLine(), description(b.conn.addr.Addr().String(), 6000))
			} else {
				b.reply(m, status, "", "", "")
			}
		})
	default:
		b.reply(m, 200, "", "", "")
	}
}

// incoming decides how a new call is answered.
func (b *robot) incoming(m text) {
	id := m.get("Call-ID")
	c := &robotCall{id: id, branch: m.branch(), from: m.get("To"), to: m.get("From"), target: m.contact(), cseq: 100, plan: b.rnd.IntN(12), tag: "b-" + id}
	c.from += ";tag=" + c.tag
	b.calls[id] = c
	b.seen[m.branch()+"INVITE"] = ""
	say := func(d time.Duration, status int, tag, extra, body string) {
		b.after(d, func() {
			if b.calls[id] != c || c.gone || c.ending && status < 300 || c.up {
				return
			}
			if status >= 200 && tag == c.tag {
				c.up = true
			}
			b.reply(m, status, tag, extra, body)
		})
	}
	sdp := description(b.conn.addr.Addr().String(), 6000)
	if m.get("Authorization") == "" && b.rnd.IntN(4) == 0 {
		c.plan = 100
		say(b.upTo(time.Second), 401, c.tag, "", "")
		return
	}
	if b.rnd.IntN(3) > 0 {
		say(b.upTo(time.Second), 100, "", "", "")
	}
	if b.rnd.IntN(3) > 0 {
		say(b.upTo(time.Second), 180, c.tag, b.contactLine(), "")
	}
	end := time.Second + b.upTo(3*time.Second)
	switch c.plan {
	case 0:
		say(end, 486, c.tag, "", "")
	case 1: // dies, with or without having rung
		b.after(b.upTo(6*time.Second), func() { c.gone = !strings.HasSuffix(id, "5") })
		say(end, 200, c.tag, b.contactLine(), sdp)
	case 2: // two forks, two answers
		say(b.upTo(time.Second), 183, "other", b.contactLine(), sdp)
		say(end, 200, c.tag, b.contactLine(), sdp)
		b.after(end+b.upTo(time.Second), func() { b.raw(answer(m, 200, "other", b.contactLine(), sdp)) })
	case 3:
		say(end, 603, "else", "", "")
	case 4: // back to back
		say(end, 183, c.tag, b.contactLine(), sdp)
		say(end, 200, c.tag, b.contactLine(), sdp)
	default:
		say(b.upTo(time.Second), 183, c.tag, b.contactLine(), sdp)
		say(end, 200, c.tag, b.contactLine(), sdp)
	}
	if b.rnd.IntN(3) == 0 {
		b.after(end+b.upTo(6*time.Second), func() {
			if c.up {
				b.live(c)
			}
		})
	}
}

// TestChaos plays calls that end at every point, over a network that loses, doubles and reorders, with restarts of the
// process in between, and looks for anything that is left at the end.
func TestChaos(t *testing.T) {
	seeds := 12
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { chaos(t, uint64(seed), 80, seed%3 == 2) })
	}
}

func chaos(t *testing.T, seed uint64, calls int, restarts bool) {
	rigged(t, nil, func(r *rig) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		fates := rand.New(rand.NewPCG(seed, 2))
		loss := float64(seed%4) * 0.08
		r.wire.fate = func(_, _ netip.AddrPort, _ string) []time.Duration { // called under the wire's order of sending
			r.wire.mu.Lock()
			defer r.wire.mu.Unlock()
			if fates.Float64() < loss {
				return nil
			}
			delay := func() time.Duration { return time.Duration(1 + fates.Int64N(int64(40*time.Millisecond))) }
			if fates.Float64() < 0.02 {
				return []time.Duration{time.Duration(fates.Int64N(int64(2 * time.Second)))}
			}
			if fates.Float64() < loss {
				return []time.Duration{delay(), delay()}
			}
			return []time.Duration{delay()}
		}
		a := r.robot(phoneAddr, outsideAddr, rand.New(rand.NewPCG(seed, 3)), true)
		b := r.robot(pbxAddr, insideAddr, rand.New(rand.NewPCG(seed, 4)), false)
		stop := make(chan struct{})
		go a.run(stop)
		go b.run(stop)
		for n := range calls {
			a.after(time.Duration(rnd.Int64N(int64(20*time.Second))), func() { a.call(n) })
		}
		if restarts {
			for range 5 {
				time.Sleep(4 * time.Second)
				r.restart()
			}
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		for _, c := range r.srv.Calls() {
			// Both robots may have died in a call; only the operator, or silent media, ends it then.
			ca, cb := a.calls[c.CallIDs[0]], b.calls[c.CallIDs[0]]
			if !ca.gone && !cb.gone && !restarts {
				t.Errorf("call is left: %+v\ncaller %+v\ncallee %+v", c, ca, cb)
			}
			r.srv.Hangup(c.ID, "test")
		}
		time.Sleep(2 * time.Minute)
		if testing.Verbose() {
			t.Log(r.srv.Counters())
		}
		if r.srv.Counters()["calls_answered"] == 0 {
			t.Error("no call was answered: the robots are broken")
		}
		close(stop)
		synctest.Wait()
		r.wire.mu.Lock()
		r.wire.fate = func(netip.AddrPort, netip.AddrPort, string) []time.Duration { return nil }
		r.wire.mu.Unlock()
	})
}
