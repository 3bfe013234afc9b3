package media

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/signalling/sdp"
)

// Limits of what is anchored. Beyond them a description is ErrUnacceptable.
const (
	// MaxLines is how many m= lines of one session can have ports: one INVITE must not empty the pool. Lines that were
	// rejected or removed count as long as their ports are kept, which is until the session ends.
	MaxLines = 8
	// MinPort is the lowest port to which media is sent. The system ports below (RFC 6335 section 6) are those of
	// services that answer to anybody, DNS for one.
	MinPort = 1024
)

// Offer takes an offer that from made and returns the one that goes to to (RFC 3264), with the addresses and ports at which
// to's media arrives. The session s is one of tx, open for editing; it is changed only if there is no error.
// Parties, streams and subscriptions are made as needed, and the ports of both sides are taken at once, so that
// a full pool shows before anything rings. Either party may offer, first or later; in a late offer that is the callee.
//
// What every description obeys, offer or answer:
//   - Local ports never change within a leg. A line with port 0 keeps those it had. Lines that are missing at the end,
//     which RFC 3264 section 8 forbids, are taken as removed.
//   - Stream.Window rises when the line's address, port or accept set changed, and only then.
//   - The accept set follows Side.Source. Remote.RTP and Remote.RTCP are set only if packets may be sent there before
//     anything was learnt: the address can be routed, or is the accepted one from which the message came.
//     Remote.Signalled is set always. Ports below MinPort are ErrUnacceptable.
//   - An unspecified address (0.0.0.0, hold by RFC 2543) keeps remote, accept set and window; the other side's stream
//     goes to relay.Hold, as it does for port 0. Direction attributes stop nothing.
//   - Transports other than UDP, TCP/MSRP for one, pass untouched; their stream has no local ports.
//   - ICE and BUNDLE are removed. A port count above 1 is reduced to 1.
//   - A session anchors at most MaxLines lines; one more is ErrUnacceptable.
//
// A body without a session description comes back unchanged. Errors are sdp.ErrSyntax, ErrUnacceptable,
// ports.ErrExhausted, or a fault of the caller, such as an unknown network.
func (e *Engine) Offer(tx Ports, s *relay.Session, from, to Side, b Body) (Body, error) {
	return e.exchange(tx, s, from, to, b, true)
}

// Answer takes the answer of from to an offer of to, which went through Offer, and returns the one that goes to to.
// It may be called again with the same or another answer (183, then 200). An answer with more m= lines than were
// offered is ErrUnacceptable, missing ones count as rejected, and a line that was not offered stays rejected.
// For everything else see Offer.
func (e *Engine) Answer(tx Ports, s *relay.Session, from, to Side, b Body) (Body, error) {
	return e.exchange(tx, s, from, to, b, false)
}

// exchange is one description on its way.
type exchange struct {
	engine           *Engine
	tx               Ports
	offer            bool
	from             Side
	fromNet, toNet   *Network
	sender, receiver *relay.Party
	session          *relay.Session
	d                *sdp.Description
	// lines says for each m= line what becomes of it.
	lines []lineKind
}

type lineKind uint8

const (
	lineRejected lineKind = iota // port 0
	lineForeign                  // not over UDP: passes untouched
	lineAnchored
	lineUnoffered // an answer to what was not offered: is given port 0
)

func (e *Engine) exchange(tx Ports, s *relay.Session, from, to Side, b Body, offer bool) (Body, error) {
	at, err := locate(b)
	if at == nil || err != nil {
		return b, err
	}
	x := exchange{engine: e, tx: tx, offer: offer, from: from, session: s.Clone()}
	if x.d, err = sdp.Parse(b.Data[at.from:at.to]); err != nil {
		return b, err
	}
	if err := x.parties(to); err != nil {
		return b, err
	}
	for i := range x.d.Media() {
		if err := x.line(i); err != nil {
			return b, err
		}
	}
	for i := len(x.d.Media()); i < len(x.sender.Streams); i++ {
		x.reject(i)
	}
	x.rewrite()
	*s = *x.session
	return at.replace(b, x.d.Bytes()), nil
}

// parties finds the two parties and their networks, or makes them, with a stream for every m= line.
func (x *exchange) parties(to Side) (err error) {
	if x.fromNet, err = x.engine.network(x.from.Network); err != nil {
		return err
	}
	if x.toNet, err = x.engine.network(to.Network); err != nil {
		return err
	}
	if x.from.Party == to.Party {
		return fmt.Errorf("party %q on both sides", to.Party)
	}
	for _, side := range [...]Side{x.from, to} {
		p := x.session.Party(side.Party)
		switch {
		case p == nil && !x.offer:
			return fmt.Errorf("%w: answer without an offer", ErrUnacceptable)
		case p == nil:
			x.session.Parties = append(x.session.Parties, relay.Party{ID: side.Party, Network: side.Network, Label: side.Label})
		case p.Network != side.Network:
			return fmt.Errorf("party %q is in network %q, not %q", p.ID, p.Network, side.Network)
		default:
			p.Label = cmp.Or(side.Label, p.Label)
		}
	}
	x.sender, x.receiver = x.session.Party(x.from.Party), x.session.Party(to.Party)
	n := len(x.d.Media())
	if !x.offer && n > len(x.receiver.Streams) {
		return fmt.Errorf("%w: answer has %d m= lines, offer had %d", ErrUnacceptable, n, len(x.receiver.Streams))
	}
	n = max(n, len(x.sender.Streams), len(x.receiver.Streams))
	for _, p := range [...]*relay.Party{x.sender, x.receiver} {
		p.Streams = append(p.Streams, make([]relay.Stream, n-len(p.Streams))...)
	}
	return nil
}

// line takes m= line i into the session.
func (x *exchange) line(i int) error {
	m := &x.d.Media()[i]
	mine, theirs := &x.sender.Streams[i], &x.receiver.Streams[i]
	kind := lineAnchored
	switch {
	case m.Port == 0:
		kind = lineRejected
	case !overUDP(m.Proto):
		kind = lineForeign
	case !x.offer && !theirs.Remote.Signalled.IsValid():
		kind = lineUnoffered
	}
	x.lines = append(x.lines, kind)
	x.setProto(m, mine, theirs)
	switch kind {
	case lineRejected, lineUnoffered:
		x.reject(i)
		return nil
	case lineForeign:
		// Noted as offered; there is no address at which anything could arrive here.
		setRemote(mine, relay.Remote{}, relay.AcceptSet{})
		return nil
	}
	if err := checkAddress(m); err != nil {
		return err
	}
	if err := x.checkPorts(m); err != nil {
		return err
	}
	if !mine.Local.IsValid() && x.anchored() >= MaxLines {
		return unacceptable(m, "a session has at most %d lines with media ports", MaxLines)
	}
	if err := x.allocate(i); err != nil {
		return err
	}
	if a := m.Connection.Addr; !a.IsUnspecified() && a.Is4() != mine.Local.Addr.Is4() {
		return unacceptable(m, "address %s is of another family than the media address %s of network %q", a, mine.Local.Addr, x.fromNet.Name)
	}
	x.setRemote(m, mine, theirs)
	return nil
}

// setProto notes what a line is. A change between RTP and anything else counts at once where it means less checking,
// and with the answer where it means more: packets of the old kind come until then.
func (x *exchange) setProto(m *sdp.Media, mine, theirs *relay.Stream) {
	set := func(s *relay.Stream) { s.Media, s.Proto = m.Type, m.Proto }
	opaque := m.Port != 0 && !overRTP(m.Proto)
	for _, s := range [...]*relay.Stream{mine, theirs} {
		switch {
		case s.Media == "":
			set(s)
		case m.Port == 0:
		case x.offer && (opaque || s == mine && overRTP(s.Proto)):
			set(s)
		case !x.offer && (s == mine || overRTP(s.Proto) != overRTP(m.Proto)):
			set(s)
		}
	}
}

// anchored counts the session's lines that have local ports. Those that were rejected later keep theirs.
func (x *exchange) anchored() int {
	n := 0
	for i := range x.sender.Streams {
		if x.sender.Streams[i].Local.IsValid() || x.receiver.Streams[i].Local.IsValid() {
			n++
		}
	}
	return n
}

// checkPorts refuses to send media where services of other kinds listen.
func (x *exchange) checkPorts(m *sdp.Media) error {
	addr := x.engine.real(m.Connection.Addr)
	if addr.IsUnspecified() {
		return nil // nothing is sent there
	}
	if m.Port < MinPort {
		return unacceptable(m, "its port %d is below %d", m.Port, MinPort)
	}
	if rtcp := x.rtcp(m, addr); rtcp.IsValid() && rtcp.Port() < MinPort {
		return unacceptable(m, "its RTCP port %d is below %d", rtcp.Port(), MinPort)
	}
	return nil
}

// reject takes stream i as one for which its party has no endpoint.
func (x *exchange) reject(i int) {
	setRemote(&x.sender.Streams[i], relay.Remote{}, relay.AcceptSet{})
	x.receiver.Streams[i].Mode = relay.Hold
}

// allocate gives stream i its local ports on both sides, and connects them.
func (x *exchange) allocate(i int) error {
	for _, p := range [...]*relay.Party{x.sender, x.receiver} {
		s := &p.Streams[i]
		if s.Local.IsValid() {
			continue
		}
		pair, err := x.tx.Allocate(p.Network)
		if err != nil {
			return fmt.Errorf("allocate ports in network %s: %w", p.Network, err)
		}
		s.Local = pair
	}
	x.connect(relay.StreamRef{Party: x.sender.ID, Stream: i}, relay.StreamRef{Party: x.receiver.ID, Stream: i})
	x.connect(relay.StreamRef{Party: x.receiver.ID, Stream: i}, relay.StreamRef{Party: x.sender.ID, Stream: i})
	return nil
}

func (x *exchange) connect(source, sink relay.StreamRef) {
	subs := &x.session.Subscriptions
	if !slices.ContainsFunc(*subs, func(s relay.Subscription) bool { return s.Source == source && s.Sink == sink }) {
		*subs = append(*subs, relay.Subscription{Source: source, Sink: sink})
	}
}

// setRemote takes the addresses of an m= line.
func (x *exchange) setRemote(m *sdp.Media, mine, theirs *relay.Stream) {
	e, addr := x.engine, m.Connection.Addr
	signalled := netip.AddrPortFrom(addr, m.Port)
	if addr.IsUnspecified() {
		theirs.Mode = relay.Hold
		if former := mine.Remote.Signalled; former.IsValid() && !former.Addr().IsUnspecified() {
			return
		}
		setRemote(mine, relay.Remote{Signalled: signalled}, e.accept(x.fromNet, x.from, addr))
		return
	}
	if theirs.Mode == relay.Hold {
		theirs.Mode = 0
	}
	addr = e.real(addr)
	rtcp := x.rtcp(m, addr)
	accept := e.accept(x.fromNet, x.from, addr, rtcp.Addr())
	remote := relay.Remote{Signalled: signalled}
	if rtp := netip.AddrPortFrom(addr, m.Port); e.sendable(x.fromNet, x.from, accept, rtp) {
		remote.RTP = rtp
	}
	if rtcp.IsValid() && e.sendable(x.fromNet, x.from, accept, rtcp) {
		remote.RTCP = rtcp
	}
	if setRemote(mine, remote, accept) {
		e.log.Debug("media endpoint", "session", string(x.session.ID), "party", string(x.sender.ID), "line", m.Line,
			"signalled", signalled, "remote", remote.RTP, "any", accept.Any, "accept", accept.Nets, "window", mine.Window)
	}
}

// rtcp returns the RTCP endpoint of an m= line whose address is addr, zero if it has none (RFC 3605, RFC 8866 section 5.14).
func (x *exchange) rtcp(m *sdp.Media, addr netip.Addr) netip.AddrPort {
	port, at := uint16(0), addr
	switch {
	case m.RTCP.Present:
		port = m.RTCP.Port
		if m.RTCP.Connection.Present {
			at = x.engine.real(m.RTCP.Connection.Addr)
		}
	case overRTP(m.Proto) && m.Port < 65535:
		port = m.Port + 1
	}
	if port == 0 || !unicast(at) || at.Is4() != addr.Is4() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(at, port)
}

// real returns the media address of ours that is advertised as addr, else addr.
func (e *Engine) real(addr netip.Addr) netip.Addr {
	if a, ok := e.own[addr]; ok {
		return a
	}
	return addr
}

// setRemote sets a stream's endpoint and accept set, opens a new window if they differ, and reports that.
func setRemote(s *relay.Stream, r relay.Remote, a relay.AcceptSet) bool {
	if s.Remote == r && s.Accept.Any == a.Any && slices.Equal(s.Accept.Nets, a.Nets) {
		return false
	}
	s.Remote, s.Accept = r, a
	s.Window++
	return true
}

// rewrite makes the description the receiver's: our addresses and ports.
func (x *exchange) rewrite() {
	x.d.RemoveICE()
	x.d.RemoveBundle()
	lines := x.d.Media()
	session := x.sessionAddress()
	if session.IsValid() {
		for i, kind := range x.lines {
			if kind == lineForeign {
				x.d.KeepAddress(i)
			}
		}
		x.d.SetSessionAddress(session)
	}
	for i, kind := range x.lines {
		switch kind {
		case lineUnoffered:
			x.d.SetPort(i, 0)
			fallthrough
		case lineRejected:
			if session.IsValid() && lines[i].OwnConnection {
				x.d.SetAddress(i, session)
			}
		case lineAnchored:
			x.rewriteLine(i, &lines[i])
		}
	}
}

func (x *exchange) rewriteLine(i int, m *sdp.Media) {
	local := x.receiver.Streams[i].Local
	addr := x.toNet.shown(local.Addr)
	x.d.SetAddress(i, addr)
	x.d.SetPort(i, local.RTP)
	if !m.RTCP.Present && (!overRTP(m.Proto) || local.RTCP == local.RTP+1) {
		return
	}
	port := local.RTCP
	if m.RTCP.Port == m.Port { // one port for both (RFC 5761)
		port = local.RTP
	}
	x.d.SetRTCP(i, port, addr)
}

// sessionAddress returns the address for the session level: that of the first anchored line which has no c= line of
// its own, else of any stream. It is zero if there is none, with nothing anchored.
func (x *exchange) sessionAddress() netip.Addr {
	var first netip.Addr
	for i, s := range x.receiver.Streams {
		if !s.Local.IsValid() {
			continue
		}
		addr := x.toNet.shown(s.Local.Addr)
		if i < len(x.lines) && x.lines[i] == lineAnchored && !x.d.Media()[i].OwnConnection {
			return addr
		}
		if !first.IsValid() {
			first = addr
		}
	}
	return first
}

// checkAddress says why media cannot be anchored at a line's address.
func checkAddress(m *sdp.Media) error {
	c := m.Connection
	switch {
	case !c.Present:
		return fmt.Errorf("%w: line %d: no c= line for it", sdp.ErrSyntax, m.Line)
	case c.Foreign:
		return unacceptable(m, "its c= line is not of the internet")
	case !c.Addr.IsValid():
		return unacceptable(m, "its address %q is a host name, an IP address is needed", c.Host)
	case !c.Addr.IsUnspecified() && !unicast(c.Addr):
		return unacceptable(m, "its address %s is a group, not one party", c.Addr)
	}
	return nil
}

func unacceptable(m *sdp.Media, format string, args ...any) error {
	return fmt.Errorf("%w: m= line %d of type %q: %s", ErrUnacceptable, m.Line, m.Type, fmt.Sprintf(format, args...))
}

// overUDP reports whether a transport (third field of an m= line) runs directly over UDP.
func overUDP(proto string) bool {
	parts := strings.Split(strings.ToUpper(proto), "/")
	if slices.Contains(parts, "TCP") {
		return false
	}
	switch parts[0] {
	case "RTP", "UDP", "UDPTL", "DTLS", "SRTP":
		return true
	}
	return false
}

// overRTP reports whether a transport carries RTP.
func overRTP(proto string) bool { return strings.Contains(strings.ToUpper(proto), "RTP/") }
