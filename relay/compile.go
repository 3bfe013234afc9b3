package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Compile derives the records of a session: for each stream with a local pair one record for RTP and one for RTCP, in
// the order of parties and streams. It is pure, so that two boxes with equal sessions have equal records. It returns
// ErrInvalid with the place when the session does not hold together.
func Compile(s *Session) ([]Record, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("session %s: %w: %w", s.ID, ErrInvalid, err)
	}
	var records []Record
	for i := range s.Parties {
		party := &s.Parties[i]
		for j := range party.Streams {
			for _, component := range []Component{RTP, RTCP} {
				if local := party.Streams[j].Local.endpoint(component); local.IsValid() {
					records = append(records, s.record(party, j, component, local))
				}
			}
		}
	}
	return records, nil
}

// record derives one record.
func (s *Session) record(party *Party, stream int, component Component, local netip.AddrPort) Record {
	from := &party.Streams[stream]
	record := Record{
		Local:     local,
		Network:   party.Network,
		Component: component,
		Action:    from.Mode,
		CheckRTP:  strings.HasPrefix(strings.ToUpper(from.Proto), "RTP/"),
		Accept:    from.Accept,
		Window:    from.Window,
	}
	if record.Action == 0 {
		record.Action = Forward
	}
	for _, sub := range s.Subscriptions {
		if sub.Source != (StreamRef{Party: party.ID, Stream: stream}) {
			continue
		}
		sink := s.Party(sub.Sink.Party)
		to := &sink.Streams[sub.Sink.Stream]
		// A sink without ports of its own has nowhere to send from.
		if leaves := to.Local.endpoint(component); leaves.IsValid() {
			record.Outputs = append(record.Outputs, Output{
				From: leaves, To: to.Remote.endpoint(component), Network: sink.Network,
			})
		}
	}
	return record
}

// endpoint is the pair's local endpoint of a component; zero if it has none.
func (p Pair) endpoint(component Component) netip.AddrPort {
	port := p.RTP
	if component == RTCP {
		port = p.RTCP
	}
	if !p.IsValid() || port == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.Addr, port)
}

// endpoint is the remote endpoint of a component; zero if it must not be sent to.
func (r Remote) endpoint(component Component) netip.AddrPort {
	remote := r.RTP
	if component == RTCP {
		remote = r.RTCP
	}
	if !remote.IsValid() || remote.Port() == 0 || remote.Addr().IsUnspecified() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
}

// check looks at what can be told from the session alone.
func (s *Session) check() error {
	if s.damage != nil {
		return s.damage
	}
	if s.ID == "" {
		return errors.New("no id")
	}
	parties := make(map[PartyID]bool, len(s.Parties))
	locals := make(map[netip.AddrPort]StreamRef)
	for i := range s.Parties {
		party := &s.Parties[i]
		if party.ID == "" {
			return fmt.Errorf("party %d: no id", i)
		}
		if parties[party.ID] {
			return fmt.Errorf("party %q: id stands twice", party.ID)
		}
		parties[party.ID] = true
		for j := range party.Streams {
			here := StreamRef{Party: party.ID, Stream: j}
			if err := party.Streams[j].check(); err != nil {
				return fmt.Errorf("%v: %w", here, err)
			}
			for _, component := range []Component{RTP, RTCP} {
				local := party.Streams[j].Local.endpoint(component)
				if !local.IsValid() {
					continue
				}
				if other, ok := locals[local]; ok {
					return fmt.Errorf("%v: local %v is that of %v already", here, local, other)
				}
				locals[local] = here
			}
		}
	}
	return s.checkSubscriptions()
}

func (s *Stream) check() error {
	if s.Mode > Punt {
		return fmt.Errorf("mode %d is unknown", s.Mode)
	}
	for _, prefix := range s.Accept.Nets {
		if !prefix.IsValid() {
			return fmt.Errorf("accept set holds the invalid prefix %v", prefix)
		}
	}
	if !s.Local.IsValid() {
		return nil
	}
	for _, component := range []Component{RTP, RTCP} {
		remote := s.Remote.endpoint(component)
		if remote.IsValid() && remote.Addr().Is4() != s.Local.Addr.Is4() {
			return fmt.Errorf("remote %v cannot be reached from local %v", remote, s.Local.Addr)
		}
	}
	return nil
}

func (s *Session) checkSubscriptions() error {
	type edge struct{ source, sink StreamRef }
	edges := make(map[edge]bool, len(s.Subscriptions))
	for i, sub := range s.Subscriptions {
		for _, end := range []struct {
			name string
			ref  StreamRef
		}{{"source", sub.Source}, {"sink", sub.Sink}} {
			party := s.Party(end.ref.Party)
			if party == nil || end.ref.Stream < 0 || end.ref.Stream >= len(party.Streams) {
				return fmt.Errorf("subscription %d: %s %v does not exist", i, end.name, end.ref)
			}
		}
		if len(sub.Transforms) > 0 {
			return fmt.Errorf("subscription %d: transform %q is unknown", i, sub.Transforms[0])
		}
		e := edge{sub.Source, sub.Sink}
		if edges[e] {
			return fmt.Errorf("subscription %d: %v to %v stands twice", i, sub.Source, sub.Sink)
		}
		edges[e] = true
	}
	return nil
}

// String names the stream in messages.
func (r StreamRef) String() string { return fmt.Sprintf("party %q stream %d", r.Party, r.Stream) }
