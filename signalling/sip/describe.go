package sip

import (
	"context"
	"errors"
	"strings"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/tandem-relay/tandem/signalling/media"
	"github.com/tandem-relay/tandem/signalling/sdp"
)

// retryAfter asks a peer to try again in a few seconds.
const retryAfter = "Retry-After: 5\r\n"

// mediaStatus is the response to a description that the media engine or the relay refused.
func mediaStatus(err error) (status int, extra string) {
	switch {
	case errors.Is(err, ports.ErrExhausted):
		return 503, retryAfter + warning("no media ports left")
	case errors.Is(err, media.ErrUnacceptable):
		return 488, "Warning: 399 tandem \"" + quotable(err.Error()) + "\"\r\n"
	case errors.Is(err, sdp.ErrSyntax):
		return 400, "Warning: 399 tandem \"" + quotable(err.Error()) + "\"\r\n"
	}
	if errors.Is(err, relay.ErrFull) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errCommit) {
		return 503, retryAfter + warning("no room for more media at the moment")
	}
	return 500, ""
}

// side describes a leg to the media engine.
func (l *leg) sideOf(m *message) media.Side {
	s := media.Side{Party: parties[l.side], Network: l.trunk.Network, Source: l.trunk.MediaSource, Label: l.trunk.Name}
	if m != nil {
		s.From = m.from.Addr()
	}
	return s
}

// described runs a description that came from a side through the media engine. The session, the record and what then
// adds to it change in one group. A message without a description comes back as it is, and nothing is written.
func (x *exchange) described(m *message, from side, offer bool, then func(describedBody)) (describedBody, error) {
	c := x.call
	d := describedBody{tag: m.toTag, in: m.body}
	b := media.Body{ContentType: m.text(fieldContentType), Data: []byte(m.body)}
	if m.body == "" || !media.HasSDP(b) {
		return describedBody{}, nil
	}
	if x.last.in == d.in && x.last.tag == d.tag && x.from != from {
		if then == nil {
			return x.last, nil // the same once more
		}
		last := x.last
		return last, c.commit(func(*relay.Tx) error { then(last); return nil })
	}
	former, state := c.Session, c.Record
	edit := func(tx *relay.Tx) error {
		s, err := c.edit(tx)
		if err != nil {
			return err
		}
		engine := c.sh.srv.cfg.Media.Answer
		if offer {
			engine = c.sh.srv.cfg.Media.Offer
		}
		if d.out, err = engine(tx, s, c.legs[from].sideOf(m), c.legs[from.other()].sideOf(nil), b); err != nil {
			return err
		}
		c.Session = s.ID
		if then != nil {
			then(d)
		}
		return nil
	}
	err := c.commit(edit)
	if errors.Is(err, relay.ErrConflict) {
		c.Session = former
		err = c.commit(edit)
	}
	if err != nil {
		c.Record = state
		c.Session = former
		return d, err
	}
	if x.from != from {
		x.last = describedBody{tag: strings.Clone(d.tag), in: strings.Clone(d.in), out: d.out}
	}
	return d, nil
}

// edit opens the call's session, or makes one.
func (c *call) edit(tx *relay.Tx) (*relay.Session, error) {
	if c.Session == "" {
		return tx.Create(), nil
	}
	return tx.Edit(c.Session)
}

// describeRequest runs the description of a request through the engine: an offer, or in a PRACK the answer to an offer of
// the other side's provisional response (RFC 3262 section 5).
func (x *exchange) describeRequest(m *message) (describedBody, error) {
	switch x.method {
	case methodINVITE, methodUPDATE, methodPRACK:
	default:
		return describedBody{}, nil
	}
	if inv := x.call.inviteOf(x); x.method == methodPRACK && inv != nil && inv.lateOffer && !inv.answered {
		d, err := x.described(m, x.from, false, nil)
		inv.answered = err == nil && d.in != ""
		return d, err
	}
	before, _ := x.call.sh.srv.relay.Session(x.call.Session)
	d, err := x.described(m, x.from, true, nil)
	if err == nil && d.in != "" {
		x.offered, x.before = true, before
	}
	return d, err
}

// inviteOf returns the INVITE in progress of the same side.
func (c *call) inviteOf(x *exchange) *exchange {
	for _, e := range c.exchanges {
		if e.invite() && e.from == x.from && e != x {
			return e
		}
	}
	return nil
}

// describeResponse runs the description of a response through the engine: the answer, or to an INVITE without a description
// the offer.
func (x *exchange) describeResponse(m *message, then func(describedBody)) (describedBody, error) {
	switch x.method {
	case methodINVITE, methodUPDATE, methodPRACK:
	default:
		return describedBody{}, nil
	}
	late := x.invite() && !x.offered
	if late && x.before == nil && !x.initial {
		x.before, _ = x.call.sh.srv.relay.Session(x.call.Session)
	}
	d, err := x.described(m, x.to(), late, then)
	if err == nil && d.in != "" {
		if late {
			x.lateOffer = true
		} else {
			x.answered = true
		}
	}
	return d, err
}

// pending reports whether an offer of the exchange has no answer yet.
func (x *exchange) pending() bool { return (x.offered || x.lateOffer) && !x.answered }

// revert takes back what a refused offer changed in a running call (RFC 3261 section 14.1, RFC 3264 section 8).
func (x *exchange) revert() {
	before, c := x.before, x.call
	if before == nil || c.dead || c.Session != before.ID {
		return
	}
	x.before = nil
	err := c.commit(func(tx *relay.Tx) error {
		s, err := tx.Edit(c.Session)
		if err == nil {
			media.Revert(s, before)
		}
		return err
	})
	if err != nil {
		c.sh.srv.log.Error("refused offer not taken back", "call", c.ID, "session", string(c.Session), "err", err)
	}
}
