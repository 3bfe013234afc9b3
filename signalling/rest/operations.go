package rest

import (
	"context"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tandem-relay/tandem/relay"
)

// maxPage is the largest page of sessions; it stands in the tag of page.Limit too.
const maxPage = 5000

// body is an answer with a JSON body.
type body[T any] struct{ Body T }

func (s *Server) register(api huma.API) {
	get := func(id, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary}
	}
	post := func(id, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: http.MethodPost, Path: path, Summary: summary, MaxBodyBytes: 64 << 10}
	}
	huma.Register(api, get("get-status", PathStatus, "The daemon at a glance"), s.status)
	huma.Register(api, get("list-sessions", PathSessions, "Media sessions with their flows"), s.sessions)
	huma.Register(api, get("list-drops", PathDrops, "Why packets were dropped or took the slow path"), s.drops)
	huma.Register(api, post("drain", PathDrain, "Refuse new calls, or take them again"), s.drain)
	huma.Register(api, post("stop", PathStop, "End the process"), s.stop)
}

func (s *Server) status(context.Context, *struct{}) (*body[Status], error) {
	totals, err := s.cfg.Media.Totals()
	if err != nil {
		s.logger.Error("read counters", "err", err)
		return nil, huma.Error500InternalServerError("the counters of the data plane cannot be read", err)
	}
	st := Status{
		Instance:      s.cfg.Instance,
		Version:       s.cfg.Version,
		PID:           os.Getpid(),
		StartedAt:     s.cfg.Started,
		UptimeSeconds: time.Since(s.cfg.Started).Seconds(),
		Dataplane:     Dataplane{Name: s.cfg.Media.PlaneName(), Warnings: []string{}},
		Draining:      s.cfg.Signalling.Draining(),
		Calls:         s.cfg.Signalling.CallCount(),
		Sessions:      s.cfg.Media.Len(),
		Ports:         []Ports{},
		Forwarded:     paths(totals.Forwarded),
		Punted:        map[string]uint64{},
		Dropped:       map[string]uint64{},
		SIP:           s.cfg.Signalling.Counters(),
		Panics:        map[string]uint64{"sip": s.cfg.Signalling.Panics(), "rest": s.panics.Load()},
	}
	if s.cfg.PlanePanics != nil {
		st.Panics["dataplane"] = s.cfg.PlanePanics()
	}
	if s.cfg.Warnings != nil {
		st.Dataplane.Warnings = append(st.Dataplane.Warnings, s.cfg.Warnings()...)
	}
	for _, p := range s.cfg.Media.Ports() {
		st.Ports = append(st.Ports, Ports{Network: p.Network, Address: p.Addr, Total: p.Total, Used: p.Used, Quarantined: p.Quarantined})
	}
	for _, r := range totals.Reasons {
		switch r.Verdict {
		case "punt":
			st.Punted[r.Name] = r.Packets
		case "drop":
			st.Dropped[r.Name] = r.Packets
		}
	}
	if st.SIP == nil {
		st.SIP = map[string]uint64{}
	}
	return &body[Status]{st}, nil
}

// page asks for a part of a list.
type page struct {
	Cursor string `query:"cursor" maxLength:"128" doc:"next_cursor of the page before"`
	Limit  int    `query:"limit" minimum:"1" maximum:"5000" default:"500" doc:"Sessions in one page"`
}

func (s *Server) sessions(_ context.Context, in *page) (*body[Sessions], error) {
	all := s.cfg.Media.Sessions()
	start, found := slices.BinarySearchFunc(all, relay.SessionID(in.Cursor), func(a *relay.Session, id relay.SessionID) int {
		switch {
		case a.ID < id:
			return -1
		case a.ID > id:
			return 1
		}
		return 0
	})
	if found {
		start++ // the cursor is the last session of the page before
	}
	rest := all[start:]
	out := Sessions{Sessions: []Session{}}
	if len(rest) > in.Limit {
		rest = rest[:in.Limit]
		out.NextCursor = string(rest[in.Limit-1].ID)
	}
	calls := s.cfg.Signalling.Calls()
	for _, session := range rest {
		out.Sessions = append(out.Sessions, viewSession(session, s.cfg.Media.Flows(session.ID), calls))
	}
	return &body[Sessions]{out}, nil
}

func (s *Server) drops(context.Context, *struct{}) (*body[Drops], error) {
	totals, err := s.cfg.Media.Totals()
	if err != nil {
		s.logger.Error("read counters", "err", err)
		return nil, huma.Error500InternalServerError("the counters of the data plane cannot be read", err)
	}
	out := Drops{Reasons: []Reason{}}
	for _, r := range totals.Reasons {
		if r.Verdict == "drop" || r.Verdict == "punt" {
			out.Reasons = append(out.Reasons, Reason{Name: r.Name, Verdict: r.Verdict, Help: r.Help, Packets: r.Packets, Bytes: r.Bytes})
		}
	}
	return &body[Drops]{out}, nil
}

func (s *Server) drain(_ context.Context, in *body[Drain]) (*body[DrainState], error) {
	s.cfg.Signalling.Drain(in.Body.On)
	s.logger.Info("drain", "on", in.Body.On)
	return &body[DrainState]{DrainState{Draining: s.cfg.Signalling.Draining(), Calls: s.cfg.Signalling.CallCount()}}, nil
}

func (s *Server) stop(_ context.Context, in *body[Stop]) (*body[Stopping], error) {
	out := Stopping{PID: os.Getpid(), Release: in.Body.Release, Calls: s.cfg.Signalling.CallCount()}
	s.logger.Info("stop was asked for", "release", in.Body.Release)
	// The server's end waits for this answer.
	s.cfg.Stop(in.Body.Release)
	return &body[Stopping]{out}, nil
}
