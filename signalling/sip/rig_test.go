package sip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/feed"
	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/tandem-relay/tandem/relay/relaytest"
	"github.com/tandem-relay/tandem/signalling/media"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var (
	outsideAddr = ap("198.51.100.1:5060")
	insideAddr  = ap("10.9.0.1:5060")
	phoneAddr   = ap("198.51.100.20:5060")
	phone2Addr  = ap("198.51.100.30:5060")
	pbxAddr     = ap("10.9.0.2:5060")
)

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// rig is a server between two networks, with peers that a test scripts.
type rig struct {
	t     *testing.T
	wire  *wire
	srv   *Server
	relay *relay.Relay
	plane *relaytest.Plane
	store *relaytest.Store
	log   *syncBuffer
	stop  func()
	cfg   func(*Config)
	pairs int
	peers []*peer

	fullJournal atomic.Bool
}

// rigged runs a scripted test in a bubble of its own time, and checks at the end that nothing is left.
func rigged(t *testing.T, cfg func(*Config), test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, wire: newWire(), cfg: cfg, pairs: 200, log: &syncBuffer{}}
		r.plane, r.store = relaytest.New(), new(relaytest.Store)
		r.boot(nil, 0)
		defer func() {
			r.stop()
			if t.Failed() {
				t.Log(r.log)
			}
		}()
		test(r)
		r.empty()
	})
}

// boot starts a server, with what an earlier one left in the journal.
func (r *rig) boot(changes []feed.Change, position uint64) {
	r.t.Helper()
	ranges := []ports.Range{{First: 20000, Last: uint16(20000 + 2*r.pairs - 1)}}
	logger := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	networks := []relay.Network{
		{Name: "outside", Media: []relay.MediaAddress{{Addr: outsideAddr.Addr(), Ranges: ranges}}},
		{Name: "inside", Media: []relay.MediaAddress{{Addr: insideAddr.Addr(), Ranges: ranges}}},
	}
	var err error
	r.relay, err = relay.New(relay.Config{Networks: networks, Log: feed.New(1, position, fullSink{r.store, r}), Plane: r.plane, Logger: logger})
	if err != nil {
		r.t.Fatal(err)
	}
	sessions, err := relay.DecodeSessions(changes)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.relay.Restore(r.t.Context(), sessions); err != nil {
		r.t.Fatal(err)
	}
	engine := media.New(media.Config{Logger: logger, Networks: []media.Network{
		{Name: "outside", Media: []netip.Addr{outsideAddr.Addr()}},
		{Name: "inside", Trust: true, Media: []netip.Addr{insideAddr.Addr()}, Routable: func(netip.Addr) bool { return true }},
	}})
	cfg := Config{
		Listeners: []Listener{{Network: "outside", Addr: outsideAddr}, {Network: "inside", Addr: insideAddr}},
		Trunks: []Trunk{
			{Name: "phones", Network: "outside", Peer: phoneAddr, Sources: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, Route: "pbx"},
			{Name: "pbx", Network: "inside", Peer: pbxAddr, Route: "phones"},
		},
		Relay: r.relay, Media: engine, Logger: logger, Shards: 4,
		Listen: func(_ context.Context, addr netip.AddrPort) (PacketConn, error) { return r.wire.open(addr), nil },
	}
	if r.cfg != nil {
		r.cfg(&cfg)
	}
	if r.srv, err = New(cfg); err != nil {
		r.t.Fatal(err)
	}
	if err := r.srv.Restore(changes); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.srv.Run(ctx) }()
	<-r.srv.Ready()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	}
}

// restart ends the process, as kill -9 would, and starts another with the journal of the first.
func (r *rig) restart() {
	r.t.Helper()
	synctest.Wait()
	r.stop()
	changes := r.store.Changes()
	position := uint64(0)
	for _, g := range r.store.Groups() {
		position = g.Position
	}
	r.store = r.store.Clone()
	r.boot(changes, position)
}

// empty waits until all transactions have run out, and then looks for anything that is left.
func (r *rig) empty() {
	r.t.Helper()
	r.drain()
	time.Sleep(10 * time.Minute) // of the bubble's own time: every timer of RFC 3261 runs out
	synctest.Wait()
	r.drain()
	if n := r.srv.Len(); n != 0 {
		r.t.Errorf("%d calls are left: %+v", n, r.srv.Calls())
	}
	if n := r.relay.Len(); n != 0 {
		r.t.Errorf("%d sessions are left", n)
	}
	for _, p := range r.relay.Ports() {
		if p.Used != 0 {
			r.t.Errorf("%d port pairs of %s are in use", p.Used, p.Network)
		}
	}
	if n := len(r.plane.Held()); n != 0 {
		r.t.Errorf("the plane holds %d sessions", n)
	}
	for _, p := range r.plane.Problems() {
		r.t.Error(p)
	}
	for _, c := range r.store.Changes() {
		r.t.Errorf("the journal still knows %s %s: %s", c.Kind, c.Key, c.Value)
	}
	if n := r.srv.transact.Load(); n != 0 {
		r.t.Errorf("%d server transactions are counted", n)
	}
	for _, sh := range r.srv.shards {
		sh.mu.Lock()
		for what, n := range map[string]int{
			"server transactions": len(sh.servers), "client transactions": len(sh.clients), "merges": len(sh.merges),
			"legs": len(sh.legs), "Call-IDs": len(sh.sameID), "calls": len(sh.calls), "challenged calls": len(sh.challenged), "timers": len(sh.timers.all),
		} {
			if n != 0 {
				r.t.Errorf("shard %d: %d %s are left", sh.index, n, what)
			}
		}
		sh.mu.Unlock()
	}
	if n := r.srv.Counters()["panics"]; n != 0 {
		r.t.Errorf("%d panics", n)
	}
}

// drain empties the peers' queues, so that nobody blocks.
func (r *rig) drain() {
	for _, p := range r.peers {
		for len(p.conn.in) > 0 {
			<-p.conn.in
		}
	}
}

func (r *rig) counter(name string) uint64 {
	r.t.Helper()
	synctest.Wait()
	n, ok := r.srv.Counters()[name]
	if !ok {
		r.t.Fatalf("no counter %q", name)
	}
	return n
}

// wantCounter fails if a counter differs.
func (r *rig) wantCounter(name string, want uint64) {
	r.t.Helper()
	if n := r.counter(name); n != want {
		r.t.Errorf("%s is %d, want %d", name, n, want)
	}
}

// peer is a SIP element that does what the test says.
type peer struct {
	r    *rig
	conn *memConn
	to   netip.AddrPort // Tandem's listener on its side
	n    int
}

func (r *rig) peer(addr, tandem netip.AddrPort) *peer {
	p := &peer{r: r, conn: r.wire.open(addr), to: tandem}
	r.peers = append(r.peers, p)
	return p
}

func (r *rig) phone() *peer { return r.peer(phoneAddr, outsideAddr) }
func (r *rig) pbx() *peer   { return r.peer(pbxAddr, insideAddr) }

func (p *peer) send(text string) {
	p.r.wire.carry(p.conn.addr, p.to, crlf(text))
}

// crlf lets tests write messages with plain line ends.
func crlf(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n")
}

// text is a received message, read by rules of its own.
type text string

func (m text) line() string { return strings.SplitN(string(m), "\r\n", 2)[0] }

func (m text) body() string {
	_, body, _ := strings.Cut(string(m), "\r\n\r\n")
	return body
}

func (m text) headers() []string {
	head, _, _ := strings.Cut(string(m), "\r\n\r\n")
	return strings.Split(head, "\r\n")[1:]
}

// all returns the values of every header of a name, compact form given too.
func (m text) all(name string) []string {
	var values []string
	for _, h := range m.headers() {
		if k, v, ok := strings.Cut(h, ":"); ok && strings.EqualFold(strings.TrimSpace(k), name) {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

func (m text) get(name string) string {
	if all := m.all(name); len(all) > 0 {
		return all[0]
	}
	return ""
}

func (m text) status() int {
	n, _ := strconv.Atoi(strings.SplitN(m.line()+"  ", " ", 3)[1])
	return n
}

func (m text) method() string { return strings.SplitN(m.line(), " ", 2)[0] }
func (m text) uri() string    { return strings.SplitN(m.line()+"  ", " ", 3)[1] }

func (m text) tag(name string) string {
	_, tag, _ := strings.Cut(m.get(name), ";tag=")
	tag, _, _ = strings.Cut(tag, ";")
	return tag
}

func (m text) cseq() int {
	n, _ := strconv.Atoi(strings.Fields(m.get("CSeq"))[0])
	return n
}

func (m text) contact() string {
	c := m.get("Contact")
	return c[strings.IndexByte(c, '<')+1 : strings.IndexByte(c, '>')]
}

func (m text) branch() string {
	_, b, _ := strings.Cut(m.get("Via"), "branch=")
	b, _, _ = strings.Cut(b, ";")
	return b
}

// is reports whether a message is what a test waits for: "180", "INVITE", or "200 BYE" for a response to BYE.
func (m text) is(what string) bool {
	if !strings.HasPrefix(m.line(), "SIP/2.0 ") {
		return m.method() == what
	}
	status, method, _ := strings.Cut(what, " ")
	return strconv.Itoa(m.status()) == status && (method == "" || strings.HasSuffix(m.get("CSeq"), " "+method))
}

// expect takes the next message, which must be what is wanted.
func (p *peer) expect(what string) text {
	p.r.t.Helper()
	select {
	case d := <-p.conn.in:
		if m := text(d.b); m.is(what) {
			return m
		}
		p.r.t.Fatalf("%v: want %s, got:\n%s", p.conn.addr, what, d.b)
	case <-time.After(2 * time.Minute):
		p.r.t.Fatalf("%v: want %s, got nothing\n%s", p.conn.addr, what, p.r.log)
	}
	return ""
}

// until takes messages until one is what is wanted.
func (p *peer) until(what string) text {
	p.r.t.Helper()
	deadline := time.After(5 * time.Minute)
	for {
		select {
		case d := <-p.conn.in:
			if m := text(d.b); m.is(what) {
				return m
			}
		case <-deadline:
			p.r.t.Fatalf("%v: waited for %s in vain\n%s", p.conn.addr, what, p.r.log)
			return ""
		}
	}
}

// untilFinal takes messages until a final response.
func (p *peer) untilFinal() text {
	p.r.t.Helper()
	for {
		select {
		case d := <-p.conn.in:
			if m := text(d.b); m.status() >= 200 {
				return m
			}
		case <-time.After(2 * time.Minute):
			p.r.t.Fatalf("%v: no final response", p.conn.addr)
		}
	}
}

func yield() { runtime.Gosched() }

// silent fails if anything arrives within the time.
func (p *peer) silent(d time.Duration) {
	p.r.t.Helper()
	select {
	case got := <-p.conn.in:
		p.r.t.Fatalf("%v: want silence, got:\n%s", p.conn.addr, got.b)
	case <-time.After(d):
	}
	synctest.Wait()
	if len(p.conn.in) > 0 {
		p.r.t.Fatalf("%v: want silence, got:\n%s", p.conn.addr, (<-p.conn.in).b)
	}
}

// description is a session description of one audio line.
func description(addr string, port int, more ...string) string {
	return crlf(fmt.Sprintf("v=0\no=- 1 1 IN IP4 %s\ns=-\nc=IN IP4 %s\nt=0 0\nm=audio %d RTP/AVP 8 101\na=rtpmap:8 PCMA/8000\n%s",
		addr, addr, port, strings.Join(append(more, ""), "\n")))
}

// port returns the port of the first m= line.
func (m text) port() int {
	_, rest, _ := strings.Cut(m.body(), "m=audio ")
	n, _ := strconv.Atoi(strings.Fields(rest + " 0")[0])
	return n
}

// answer builds a response to a request, as any element would: Via, From, To, Call-ID and CSeq are repeated.
func answer(req text, status int, tag string, extra string, body string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "SIP/2.0 %d Reason %d\n", status, status)
	for _, name := range []string{"Via", "Record-Route"} {
		for _, v := range req.all(name) {
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	to := req.get("To")
	if !strings.Contains(to, ";tag=") && tag != "" {
		to += ";tag=" + tag
	}
	fmt.Fprintf(&b, "From: %s\nTo: %s\nCall-ID: %s\nCSeq: %s\n%s", req.get("From"), to, req.get("Call-ID"), req.get("CSeq"), extra)
	if body != "" {
		fmt.Fprintf(&b, "Content-Type: application/sdp\n")
	}
	fmt.Fprintf(&b, "Content-Length: %d\n\n", len(crlf(body)))
	return crlf(b.String()) + crlf(body)
}

func (p *peer) answer(req text, status int, tag string, extra string, body string) {
	p.r.wire.carry(p.conn.addr, p.to, answer(req, status, tag, extra, body))
}

// contactLine is the peer's own Contact header.
func (p *peer) contactLine() string { return "Contact: <sip:me@" + p.conn.addr.String() + ">\n" }

func (p *peer) branch() string {
	p.n++
	return fmt.Sprintf("z9hG4bK-%s-%d-%d", p.conn.addr.Addr(), p.conn.addr.Port(), p.n)
}

// request builds a request.
func (p *peer) request(method, uri, from, to, callID string, cseq int, extra, body string) string {
	return p.requestVia(p.branch(), method, uri, from, to, callID, cseq, extra, body)
}

func (p *peer) requestVia(branch, method, uri, from, to, callID string, cseq int, extra, body string) string {
	if body != "" {
		extra += "Content-Type: application/sdp\n"
	}
	return crlf(fmt.Sprintf("%s %s SIP/2.0\nVia: SIP/2.0/UDP %s;branch=%s;rport\nMax-Forwards: 70\nFrom: %s\nTo: %s\nCall-ID: %s\nCSeq: %d %s\n%sContent-Length: %d\n\n",
		method, uri, p.conn.addr, branch, from, to, callID, cseq, method, extra, len(crlf(body)))) + crlf(body)
}

// dialog is a peer's view of a dialog.
type dialog struct {
	p            *peer
	callID       string
	local, to    string // From and To values of requests of this side
	target       string
	routes       []string
	cseq, invite int
}

const callID = "c1@phone"

// inviteText is the INVITE of the usual call, from the phone to the PBX.
func (p *peer) inviteText(branch string, cseq int, extra, body string) string {
	return p.requestVia(branch, "INVITE", "sip:1000@"+p.to.String(), "<sip:alice@example.com>;tag=a1", "<sip:1000@example.com>", callID, cseq, p.contactLine()+extra, body)
}

// uac makes the caller's dialog out of the 2xx.
func (p *peer) uac(res text) *dialog {
	d := &dialog{p: p, callID: res.get("Call-ID"), local: res.get("From"), to: res.get("To"), target: res.contact(), cseq: res.cseq(), invite: res.cseq()}
	for i := len(res.all("Record-Route")) - 1; i >= 0; i-- {
		d.routes = append(d.routes, res.all("Record-Route")[i])
	}
	return d
}

// uas makes the callee's dialog out of the INVITE that it answered with the tag.
func (p *peer) uas(req text, tag string) *dialog {
	return &dialog{p: p, callID: req.get("Call-ID"), local: req.get("To") + ";tag=" + tag, to: req.get("From"), target: req.contact(), cseq: 100, routes: req.all("Record-Route")}
}

func (d *dialog) text(method string, cseq int, extra, body string) string {
	for _, r := range d.routes {
		extra = "Route: " + r + "\n" + extra
	}
	return d.p.request(method, d.target, d.local, d.to, d.callID, cseq, extra, body)
}

// send sends a request with the next number; ACK goes with that of the INVITE.
func (d *dialog) send(method, extra, body string) {
	cseq := d.invite
	if method != "ACK" {
		d.cseq++
		cseq = d.cseq
		if method == "INVITE" {
			d.invite = cseq
		}
	}
	d.p.r.wire.carry(d.p.conn.addr, d.p.to, d.text(method, cseq, extra, body))
}

// callSetUp is an established call.
type callSetUp struct {
	a, b    *dialog
	inviteB text // as the PBX got it
	answerA text // 200 as the phone got it
	phone   *peer
	pbx     *peer
}

// establish makes the usual call.
func (r *rig) establish() *callSetUp { r.t.Helper(); return r.establishOn(r.phone(), r.pbx()) }

func (r *rig) establishOn(phone, pbx *peer) *callSetUp {
	r.t.Helper()
	s := &callSetUp{phone: phone, pbx: pbx}
	s.phone.send(s.phone.inviteText(s.phone.branch(), 1, "", description("198.51.100.20", 4000)))
	s.phone.expect("100")
	s.inviteB = s.pbx.expect("INVITE")
	s.pbx.answer(s.inviteB, 180, "b1", s.pbx.contactLine(), "")
	s.phone.expect("180")
	s.pbx.answer(s.inviteB, 200, "b1", s.pbx.contactLine(), description("10.9.0.2", 6000))
	s.answerA = s.phone.expect("200")
	s.a, s.b = s.phone.uac(s.answerA), s.pbx.uas(s.inviteB, "b1")
	s.a.send("ACK", "", "")
	s.pbx.expect("ACK")
	return s
}

// hangUp ends the call from the phone.
func (s *callSetUp) hangUp() {
	s.phone.r.t.Helper()
	s.a.send("BYE", "", "")
	s.pbx.answer(s.pbx.expect("BYE"), 200, "", "", "")
	s.phone.expect("200 BYE")
}
