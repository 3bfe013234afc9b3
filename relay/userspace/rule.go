package userspace

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/tandem-relay/tandem/relay"
)

// rule is a record as the endpoints execute it. It is never modified, only replaced.
type rule struct {
	session relay.SessionID
	record  relay.Record
	outputs []output
}

// output is a destination of a rule.
type output struct {
	from *endpoint
	to   netip.AddrPort
}

// latch is an endpoint that was learnt. It counts in the window of its number only, and as long as its address is
// accepted.
type latch struct {
	window uint16
	remote netip.AddrPort
}

func (l *latch) counts(r *rule) bool {
	return l != nil && r != nil && l.window == r.record.Window && r.record.Accept.Contains(l.remote.Addr())
}

// content is what a payload is by its first octets (RFC 7983, RFC 5761 section 4).
type content uint8

const (
	contentOther content = iota
	contentSTUN
	contentRTP // or RTCP
)

const (
	rtpHeader  = 12
	rtcpHeader = 8
	stunHeader = 20
	stunCookie = 0x2112a442
)

// classify tells RTP and RTCP, and STUN with its magic cookie (RFC 8489 section 5), from anything else. At an RTCP
// endpoint every packet of version 2 is RTCP; elsewhere its packet type tells.
func classify(component relay.Component, payload []byte) content {
	if len(payload) < rtcpHeader {
		return contentOther
	}
	switch {
	case payload[0]>>6 == 2:
		isRTCP := component == relay.RTCP || payload[1] >= 192 && payload[1] <= 223
		if isRTCP || len(payload) >= rtpHeader {
			return contentRTP
		}
	case payload[0] <= 3 && len(payload) >= stunHeader && binary.BigEndian.Uint32(payload[4:]) == stunCookie:
		return contentSTUN
	}
	return contentOther
}

// accept decides whether a packet is the party's media, and learns from it. It returns forwarded for one that may go
// on; what is held is accepted too.
func (e *endpoint) accept(r *rule, remote netip.AddrPort, payload []byte, now time.Time) reason {
	if r == nil {
		return noSession
	}
	rec := &r.record
	if rec.Action == relay.Block {
		return blocked
	}
	if l := e.latch.Load(); l.counts(r) {
		if l.remote.Addr() != remote.Addr() {
			return sourceMismatch
		}
	} else if !rec.Accept.Contains(remote.Addr()) {
		return sourceMismatch
	}
	content := classify(rec.Component, payload)
	if rec.CheckRTP && content == contentOther {
		return malformedRTP
	}
	if !e.learn(r, remote, content, now) {
		return sourceMismatch
	}
	e.saw(now)
	if rec.Action == relay.Hold {
		return held
	}
	return forwarded
}

// learn reports whether the packet comes from the endpoint that was learnt in this window, which the first valid packet
// decides. STUN never decides: a connectivity check is not media, and may come from where no media will.
func (e *endpoint) learn(r *rule, remote netip.AddrPort, content content, now time.Time) bool {
	for {
		l := e.latch.Load()
		if l.counts(r) {
			return l.remote == remote
		}
		if content == contentSTUN {
			return true
		}
		if e.latch.CompareAndSwap(l, &latch{window: r.record.Window, remote: remote}) {
			e.plane.emit(relay.Event{
				Kind: relay.EventLearnt, Session: r.session, Local: e.local, Remote: remote, Time: now,
			})
			return true
		}
	}
}

// learnt returns the remote endpoint that was learnt in the present window; zero if none was.
func (e *endpoint) learnt() netip.AddrPort {
	if l := e.latch.Load(); l.counts(e.rule.Load()) {
		return l.remote
	}
	return netip.AddrPort{}
}

// destination is where the output's packets go now; zero if nothing is known.
func (o *output) destination() netip.AddrPort {
	if learnt := o.from.learnt(); learnt.IsValid() {
		return learnt
	}
	return o.to
}
