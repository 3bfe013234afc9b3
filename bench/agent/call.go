package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Call is an established call.
type Call struct {
	agent *Agent
	// Description is the other side's session description.
	Description []byte

	tag           string // ours
	local, remote string // From and To values of our requests, with tags
	callID        string
	target        string   // the other side's Contact
	routes        []string // in the order in which they are sent

	mu        sync.Mutex
	cseq      uint32
	ack       *message
	ackTo     netip.AddrPort
	endOnce   sync.Once
	ended     chan struct{}
	ackOnce   sync.Once
	confirmed chan struct{}
}

// Rejected is the error of a call that got a final response other than 2xx.
type Rejected struct {
	Status int
	Reason string
}

// Error gives status and reason.
func (r *Rejected) Error() string { return fmt.Sprintf("rejected with %d %s", r.Status, r.Reason) }

// Invite places a call through the SIP server at to, offering the session description. It returns once the call is answered
// and the ACK is sent. Progress, which may be nil, is called with every provisional status. A refused call gives a *Rejected.
func (a *Agent) Invite(ctx context.Context, to netip.AddrPort, user string, description []byte, progress func(status int)) (*Call, error) {
	tag := rand.Text()
	call := &Call{
		agent:     a,
		tag:       tag,
		local:     fmt.Sprintf("<sip:%s@%s>;tag=%s", a.config.User, a.addr.Addr(), tag),
		remote:    fmt.Sprintf("<sip:%s@%s>", user, to),
		callID:    rand.Text(),
		target:    fmt.Sprintf("sip:%s@%s", user, to),
		cseq:      1,
		ended:     make(chan struct{}),
		confirmed: make(chan struct{}),
	}
	invite := call.request("INVITE")
	invite.set("Contact", a.contact())
	invite.set("Content-Type", "application/sdp")
	invite.body = description
	response, err := a.transact(ctx, invite, to, progress)
	if err != nil {
		return nil, err
	}
	if response.status >= 300 {
		return nil, call.refused(invite, response, to)
	}
	call.remote = response.get("To")
	call.target = uriOf(response.get("Contact"))
	for _, h := range response.headers {
		if strings.EqualFold(h.name, "Record-Route") { // reversed for the caller, RFC 3261 section 12.1.2
			for route := range strings.SplitSeq(h.value, ",") {
				call.routes = append([]string{strings.TrimSpace(route)}, call.routes...)
			}
		}
	}
	call.Description = response.body
	if call.ackTo, err = call.nextHop(); err != nil {
		return nil, err
	}
	call.ack = call.request("ACK")
	a.mu.Lock()
	a.calls[tag] = call
	a.mu.Unlock()
	if err := a.send(call.ack, call.ackTo); err != nil {
		return nil, err
	}
	return call, nil
}

// refused acknowledges a final response that is no 2xx, in the INVITE's own transaction (RFC 3261 section 17.1.1.3).
func (c *Call) refused(invite, response *message, to netip.AddrPort) error {
	ack := &message{method: "ACK", uri: invite.uri}
	for _, h := range invite.headers {
		switch h.name {
		case "Via", "From", "Call-ID", "Max-Forwards":
			ack.set(h.name, h.value)
		}
	}
	ack.set("To", response.get("To"))
	ack.set("CSeq", "1 ACK")
	if err := c.agent.send(ack, to); err != nil {
		return err
	}
	return &Rejected{Status: response.status, Reason: response.reason}
}

// request makes a request of this call. An ACK takes the number of the INVITE, everything else the next one.
func (c *Call) request(method string) *message {
	m := &message{method: method, uri: c.target}
	m.set("Via", c.agent.via())
	m.set("Max-Forwards", "70")
	for _, route := range c.routes {
		m.set("Route", route)
	}
	m.set("From", c.local)
	m.set("To", c.remote)
	m.set("Call-ID", c.callID)
	m.set("CSeq", fmt.Sprintf("%d %s", c.cseq, method))
	m.set("User-Agent", "tandem-bench")
	return m
}

// nextHop is where requests of this call are sent.
func (c *Call) nextHop() (netip.AddrPort, error) {
	if len(c.routes) > 0 {
		return destination(uriOf(c.routes[0]))
	}
	return destination(c.target)
}

// acknowledgeAgain answers a repeated 2xx.
func (c *Call) acknowledgeAgain() {
	if c.ack != nil {
		c.agent.resend(c.ack, c.ackTo)
	}
}

func (c *Call) confirm() { c.ackOnce.Do(func() { close(c.confirmed) }) }

// end marks the end. The call is forgotten once no repeated message can be on its way any more.
func (c *Call) end() {
	c.endOnce.Do(func() {
		close(c.ended)
		c.agent.forget(func() { delete(c.agent.calls, c.tag) })
	})
}

// Ended is closed when the call has ended, from either side.
func (c *Call) Ended() <-chan struct{} { return c.ended }

// Hangup ends the call by BYE and waits for the response. On a call that the other side ended it does nothing.
func (c *Call) Hangup(ctx context.Context) error {
	select {
	case <-c.ended:
		return nil
	default:
	}
	to, err := c.nextHop()
	if err != nil {
		return fmt.Errorf("hang up: %w", err)
	}
	c.mu.Lock()
	c.cseq++
	bye := c.request("BYE")
	c.mu.Unlock()
	response, err := c.agent.transact(ctx, bye, to, nil)
	if err != nil {
		return fmt.Errorf("hang up: %w", err)
	}
	c.end()
	if response.status >= 300 {
		return fmt.Errorf("hang up: %w", &Rejected{Status: response.status, Reason: response.reason})
	}
	return nil
}

// Invitation is an incoming call that is not answered yet. Its methods are for one goroutine.
type Invitation struct {
	agent  *Agent
	invite *message
	from   netip.AddrPort
	call   *Call
	tag    string

	mu   sync.Mutex
	last *message
}

// invited begins an incoming call.
func (a *Agent) invited(m *message, from netip.AddrPort) {
	inv := &Invitation{agent: a, invite: m, from: from, tag: rand.Text()}
	inv.call = &Call{
		agent:       a,
		tag:         inv.tag,
		Description: m.body,
		local:       m.get("To") + ";tag=" + inv.tag,
		remote:      m.get("From"),
		callID:      m.get("Call-ID"),
		target:      uriOf(m.get("Contact")),
		ended:       make(chan struct{}),
		confirmed:   make(chan struct{}),
	}
	for _, h := range m.headers {
		if strings.EqualFold(h.name, "Record-Route") {
			for route := range strings.SplitSeq(h.value, ",") {
				inv.call.routes = append(inv.call.routes, strings.TrimSpace(route))
			}
		}
	}
	a.mu.Lock()
	a.invitations[m.branch()] = inv
	a.calls[inv.tag] = inv.call
	a.mu.Unlock()
	a.forget(func() { delete(a.invitations, m.branch()) })
	go a.config.Invited(inv)
}

// Description is the caller's session description.
func (i *Invitation) Description() []byte { return i.invite.body }

// User is the user part of the Request-URI.
func (i *Invitation) User() string {
	user, _, ok := strings.Cut(strings.TrimPrefix(i.invite.uri, "sip:"), "@")
	if !ok {
		return ""
	}
	return user
}

// repeat answers a retransmitted INVITE.
func (i *Invitation) repeat() {
	i.mu.Lock()
	last := i.last
	i.mu.Unlock()
	if last != nil {
		i.agent.resend(last, i.from)
	}
}

func (i *Invitation) respond(status int, reason string, description []byte) error {
	r := i.invite.response(status, reason, i.tag, i.from)
	r.set("Contact", i.agent.contact())
	if description != nil {
		r.set("Content-Type", "application/sdp")
		r.body = description
	}
	i.mu.Lock()
	i.last = r
	i.mu.Unlock()
	return i.agent.send(r, i.from)
}

// Ring answers with 180.
func (i *Invitation) Ring() error { return i.respond(180, "Ringing", nil) }

// Reject ends the invitation with a final status of 300 to 699.
func (i *Invitation) Reject(status int, reason string) error {
	i.agent.mu.Lock()
	delete(i.agent.calls, i.tag)
	i.agent.mu.Unlock()
	return i.respond(status, reason, nil)
}

// Answer takes the call with 200 and repeats that until the ACK (RFC 3261 section 13.3.1.4), for which it waits.
func (i *Invitation) Answer(ctx context.Context, description []byte) (*Call, error) {
	if err := i.respond(200, "OK", description); err != nil {
		return nil, err
	}
	interval := i.agent.config.T1
	expired := time.NewTimer(64 * interval)
	defer expired.Stop()
	for {
		select {
		case <-i.call.confirmed:
			return i.call, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-expired.C:
			return nil, fmt.Errorf("200 to %s: ACK: %w", i.from, ErrTimeout)
		case <-time.After(interval):
			i.repeat()
			interval = min(2*interval, 8*i.agent.config.T1)
		}
	}
}
