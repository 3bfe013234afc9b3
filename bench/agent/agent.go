// Package agent is a small SIP user agent over UDP that places and takes calls. It shares nothing with Tandem's own SIP, so that
// an error there does not find its like here.
package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Config says what an agent is.
type Config struct {
	Conn *net.UDPConn // bound to the agent's address; closing it ends the agent
	User string       // user part of its own URI
	// Invited is called for every incoming call, each on a goroutine of its own. Nil: calls are rejected with 480.
	Invited func(*Invitation)
	// T1 is the estimate of a round trip that retransmissions start from (RFC 3261 section 17.1.1.1). 0: 500 ms.
	T1     time.Duration
	Logger *slog.Logger // nil: nothing is logged
}

// Agent is one user agent. Its methods may be called concurrently.
type Agent struct {
	config Config
	addr   netip.AddrPort

	mu           sync.Mutex
	transactions map[string]chan *message // client transactions by branch
	calls        map[string]*Call         // by local tag
	invitations  map[string]*Invitation   // by the branch of the INVITE

	retransmissions atomic.Uint64
}

// New returns an agent, which works while Run does.
func New(config Config) *Agent {
	if config.T1 == 0 {
		config.T1 = 500 * time.Millisecond
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Agent{
		config:       config,
		addr:         config.Conn.LocalAddr().(*net.UDPAddr).AddrPort(),
		transactions: map[string]chan *message{},
		calls:        map[string]*Call{},
		invitations:  map[string]*Invitation{},
	}
}

// Retransmissions is the number of messages sent more than once so far.
func (a *Agent) Retransmissions() uint64 { return a.retransmissions.Load() }

// Run receives messages until the connection is closed, which is its good end, or fails.
func (a *Agent) Run() error {
	buf := make([]byte, 65536)
	for {
		n, from, err := a.config.Conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			var gone *net.OpError
			if errors.As(err, &gone) && gone.Timeout() {
				return nil
			}
			continue // an ICMP error for something sent earlier; the retransmission finds out
		}
		m, err := parse(append([]byte(nil), buf[:n]...))
		if err != nil {
			a.config.Logger.Warn("message not understood", "peer", from, "error", err)
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if m.method != "" {
			a.request(m, from)
		} else {
			a.responseTo(m)
		}
	}
}

func (a *Agent) send(m *message, to netip.AddrPort) error {
	if _, err := a.config.Conn.WriteToUDPAddrPort(m.bytes(), to); err != nil {
		return fmt.Errorf("send to %s: %w", to, err)
	}
	return nil
}

// resend sends what was sent before.
func (a *Agent) resend(m *message, to netip.AddrPort) {
	a.retransmissions.Add(1)
	if err := a.send(m, to); err != nil {
		a.config.Logger.Warn("retransmission", "error", err)
	}
}

// forget runs f under the lock when 64 times T1 have passed.
func (a *Agent) forget(f func()) {
	time.AfterFunc(64*a.config.T1, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		f()
	})
}

// contact is the agent's own URI.
func (a *Agent) contact() string { return fmt.Sprintf("<sip:%s@%s>", a.config.User, a.addr) }

// via returns a Via value with a new branch.
func (a *Agent) via() string {
	return fmt.Sprintf("SIP/2.0/UDP %s;rport;branch=z9hG4bK%s", a.addr, rand.Text())
}

// responseTo hands a response to its transaction, or a repeated 2xx to its call.
func (a *Agent) responseTo(m *message) {
	a.mu.Lock()
	waiting := a.transactions[m.branch()]
	call := a.calls[param(m.get("From"), "tag")]
	a.mu.Unlock()
	switch _, method := m.cseq(); {
	case waiting != nil:
		select {
		case waiting <- m:
		default: // its retransmission will be read
		}
	case call != nil && method == "INVITE" && m.status/100 == 2:
		call.acknowledgeAgain()
	}
}

// request handles an incoming request.
func (a *Agent) request(m *message, from netip.AddrPort) {
	a.mu.Lock()
	call := a.calls[param(m.get("To"), "tag")]
	invitation := a.invitations[m.branch()]
	a.mu.Unlock()
	var err error
	switch {
	case m.method == "ACK":
		if call != nil {
			call.confirm()
		}
	case m.method == "INVITE" && invitation != nil:
		invitation.repeat()
	case m.method == "INVITE" && call == nil && a.config.Invited != nil:
		a.invited(m, from)
	case m.method == "INVITE" && call == nil:
		err = a.send(m.response(480, "Temporarily Unavailable", rand.Text(), from), from)
	case m.method == "BYE" && call != nil:
		err = a.send(m.response(200, "OK", "", from), from)
		call.end()
	case m.method == "BYE":
		err = a.send(m.response(481, "Call/Transaction Does Not Exist", rand.Text(), from), from)
	case m.method == "OPTIONS":
		err = a.send(m.response(200, "OK", rand.Text(), from), from)
	default:
		err = a.send(m.response(501, "Not Implemented", rand.Text(), from), from)
	}
	if err != nil {
		a.config.Logger.Warn("respond", "method", m.method, "error", err)
	}
}

// ErrTimeout says that nobody answered within 64 times T1 (timers B and F of RFC 3261).
var ErrTimeout = errors.New("no response")

// transact sends a request and retransmits it (RFC 3261 section 17.1) until the final response, which it returns. An INVITE
// is not retransmitted once a provisional response came, and then waits until the context ends.
func (a *Agent) transact(ctx context.Context, m *message, to netip.AddrPort, provisional func(status int)) (*message, error) {
	responses := make(chan *message, 16)
	branch := m.branch()
	a.mu.Lock()
	a.transactions[branch] = responses
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.transactions, branch)
		a.mu.Unlock()
	}()
	if err := a.send(m, to); err != nil {
		return nil, err
	}
	interval := a.config.T1
	again := time.NewTimer(interval)
	defer again.Stop()
	expired := time.NewTimer(64 * a.config.T1)
	defer expired.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-expired.C:
			return nil, fmt.Errorf("%s to %s: %w", m.method, to, ErrTimeout)
		case <-again.C:
			a.resend(m, to)
			if interval *= 2; m.method != "INVITE" {
				interval = min(interval, 8*a.config.T1) // T2
			}
			again.Reset(interval)
		case response := <-responses:
			if response.status >= 200 {
				return response, nil
			}
			if m.method == "INVITE" {
				again.Stop()
				expired.Stop()
			}
			if provisional != nil {
				provisional(response.status)
			}
		}
	}
}
