package rest

import (
	"net/netip"
	"time"

	"github.com/tandem-relay/tandem/relay"
)

// viewSession shows a session with the state of its flows.
func viewSession(s *relay.Session, flows []relay.Flow, calls map[relay.SessionID]Call) Session {
	out := Session{ID: string(s.ID), Generation: s.Generation, Parties: []Party{}}
	if call, ok := calls[s.ID]; ok {
		out.Call = &call
	}
	byLocal := make(map[netip.AddrPort]relay.Flow, len(flows))
	for _, f := range flows {
		byLocal[f.Local] = f
	}
	for _, p := range s.Parties {
		party := Party{ID: string(p.ID), Network: p.Network, Label: p.Label, Tags: append([]string{}, p.Tags...), Streams: []Stream{}}
		for _, stream := range p.Streams {
			party.Streams = append(party.Streams, viewStream(stream, byLocal))
		}
		out.Parties = append(out.Parties, party)
	}
	return out
}

func viewStream(s relay.Stream, flows map[netip.AddrPort]relay.Flow) Stream {
	mode := s.Mode
	if mode == 0 {
		mode = relay.Forward
	}
	out := Stream{
		Media: s.Media, Proto: s.Proto, Mode: actionName(mode), Signalled: endpoint(s.Remote.Signalled),
		Accept: accepted(s.Accept), Window: s.Window, Flows: []Flow{},
	}
	if !s.Local.IsValid() {
		return out
	}
	out.Flows = append(out.Flows,
		viewFlow("rtp", netip.AddrPortFrom(s.Local.Addr, s.Local.RTP), s.Remote.RTP, mode, flows),
		viewFlow("rtcp", netip.AddrPortFrom(s.Local.Addr, s.Local.RTCP), s.Remote.RTCP, mode, flows))
	return out
}

// viewFlow shows one local endpoint. The plane may not know it, for a moment or because a stream sends nowhere yet.
func viewFlow(component string, local, remote netip.AddrPort, mode relay.Action, flows map[netip.AddrPort]relay.Flow) Flow {
	f := flows[local]
	action := mode
	if f.Action != 0 {
		action = f.Action
	}
	return Flow{
		Component: component, Local: endpoint(local), Remote: endpoint(remote), Learnt: endpoint(f.Learnt), Action: actionName(action),
		Packets: paths(f.Packets), Bytes: paths(f.Bytes), Punted: named(f.Punted),
		FirstSeen: seen(f.FirstSeen), LastSeen: seen(f.LastSeen),
	}
}

func endpoint(ap netip.AddrPort) string {
	if !ap.IsValid() {
		return ""
	}
	return ap.String()
}

func accepted(a relay.AcceptSet) []string {
	if a.Any {
		return []string{"any"}
	}
	list := []string{}
	for _, p := range a.Nets {
		if p.IsSingleIP() {
			list = append(list, p.Addr().String())
		} else {
			list = append(list, p.String())
		}
	}
	return list
}

func actionName(a relay.Action) string {
	switch a {
	case relay.Forward:
		return "forward"
	case relay.Hold:
		return "hold"
	case relay.Block:
		return "block"
	case relay.Punt:
		return "punt"
	}
	return "unknown"
}

func paths(counts map[relay.Path]uint64) map[string]uint64 {
	out := make(map[string]uint64, len(counts))
	for path, n := range counts {
		out[string(path)] = n
	}
	return out
}

func named(counts map[string]uint64) map[string]uint64 {
	if counts == nil {
		return map[string]uint64{}
	}
	return counts
}

func seen(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
