package sip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"
)

// listener is a socket with what it shows of itself.
type listener struct {
	srv     *Server
	network string
	addr    netip.AddrPort
	shown   string // host:port of Via and Contact
	sources sources
	conn    PacketConn
}

// send sends one datagram. A failure is counted: retransmission is what UDP has for it.
func (ln *listener) send(b []byte, to netip.AddrPort) {
	if ln.conn == nil || !to.IsValid() {
		ln.srv.counts.add(cSendErrors)
		return
	}
	if _, err := ln.conn.WriteToUDPAddrPort(b, to); err != nil {
		ln.srv.counts.add(cSendErrors)
		ln.srv.complain("send", "network", ln.network, "peer", to, "err", err)
		return
	}
	ln.srv.counts.add(cSent)
}

// read hands every datagram to its shard, in the order of arrival, until the socket is closed.
func (ln *listener) read(ctx context.Context) {
	b := make([]byte, maxDatagram+1)
	for {
		n, from, err := ln.conn.ReadFromUDPAddrPort(b)
		switch {
		case errors.Is(err, net.ErrClosed), ctx.Err() != nil:
			return
		case err != nil:
			// A datagram that could not be read, an ICMP error of another peer: the next one may be fine.
			ln.srv.counts.add(cReadErrors)
			ln.srv.complain("read", "network", ln.network, "err", err)
			if !pause(ctx, time.Millisecond) {
				return
			}
			continue
		}
		ln.guarded(b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
	}
}

// guarded receives a datagram; a panic costs that one only.
func (ln *listener) guarded(b []byte, from netip.AddrPort) {
	defer func() {
		if p := recover(); p != nil {
			ln.srv.counts.add(cPanics)
			ln.srv.log.Error("reception of a message ended by a panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()), "peer", from)
		}
	}()
	ln.receive(b, from)
}

// pause keeps a socket that fails at once from taking the whole processor.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// receive judges a datagram as far as it can be done without state, and dispatches it.
func (ln *listener) receive(b []byte, from netip.AddrPort) {
	s := ln.srv
	s.counts.add(cReceived)
	t := ln.sources.find(from.Addr())
	if t == nil {
		s.counts.add(cStrangers)
		return
	}
	for len(b) > 0 && (b[0] == '\r' || b[0] == '\n') {
		b = b[1:] // RFC 3261 section 7.5, and keep-alives
	}
	switch {
	case len(b) == 0 || len(b) <= 4 && strings.Trim(string(b), "\r\n\x00 ") == "":
		s.counts.add(cKeepalives)
		return
	case len(b) > s.cfg.Limits.MessageSize:
		s.counts.add(cOversize)
		s.complain("oversize message", "trunk", t.Name, "peer", from, "bytes", len(b))
		return
	}
	m := &message{raw: string(b), from: from, ln: ln, trunk: t}
	if err := m.index(); err != nil {
		s.counts.add(cMalformed)
		s.complain("malformed message", "trunk", t.Name, "peer", from, "err", err)
		if m.request && m.method != methodACK {
			s.refuse(m, malformed("Malformed Message"))
		}
		return
	}
	home, ok := m.home()
	if !ok {
		s.counts.add(cStrayResponses)
		return
	}
	s.shardOf(home).enqueue(m)
}

// home says which shard a message belongs to: by the token in its Request-URI, for a response by our branch, else by
// Call-ID. A response whose branch is not ours has none.
func (m *message) home() (uint8, bool) {
	if !m.request {
		v, ok := m.parseTopVia()
		if !ok {
			return 0, false
		}
		return branchHome(v.branch)
	}
	if home, ok := tokenHome(uriUser(m.uri)); ok {
		return home, true
	}
	if f := m.first(fieldCallID); f != nil {
		return callHome(m.value(f)), true
	}
	return 0, true
}

// fresh reports whether the message asks for something new, which may be refused under load.
func (m *message) fresh() bool {
	if !m.request || m.method == methodACK || m.method == methodCANCEL || m.method == methodBYE {
		return false
	}
	_, known := tokenHome(uriUser(m.uri))
	return !known
}

// refuse answers a request without state, if it can be answered at all. Each source has a budget of such answers.
func (s *Server) refuse(m *message, f *fault) {
	if f.status == 0 || m.method == methodACK {
		return
	}
	if m.topVia.text == "" {
		var ok bool
		if m.topVia, ok = m.parseTopVia(); !ok {
			return
		}
	}
	if !s.patience.spend(m.from.Addr(), time.Now()) {
		s.counts.add(cComplaints)
		return
	}
	s.counts.add(cRejected)
	m.ln.send(m.response(nil, m.responseVia(), f.status, f.reason, s.seed.tag(m), ""), m.replyTo())
}
