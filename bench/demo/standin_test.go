package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/tandem-relay/tandem/bench/agent"
	"github.com/tandem-relay/tandem/signalling/rest"
)

// The test binary is also a stand-in for tandemd: a user agent towards each side and a relay of sockets between, with the faults
// that the environment variable names. So the demo can be seen to fail.
const standInVariable = "DEMO_TEST_STANDIN"

func TestMain(m *testing.M) {
	if faults, ok := os.LookupEnv(standInVariable); ok {
		if err := standIn(os.Args[len(os.Args)-1], faults); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// stand is the stand-in's state.
type stand struct {
	faults          string
	outside, inside *agent.Agent
	callee          netip.AddrPort
	media           [2]netip.Addr // outside, inside
	path            string

	mu       sync.Mutex
	sessions map[string]*bridge
	packets  atomic.Uint64 // relayed so far, of all calls
}

// bridge is one call: two sockets, and what came in on them.
type bridge struct {
	conns   [2]*net.UDPConn
	remotes [2]netip.AddrPort
	counts  [2]atomic.Uint64
}

func standIn(file, faults string) error {
	if faults == "exit" {
		return fmt.Errorf("the stand-in was told to exit")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var config struct {
		Instance, Dataplane string
		API                 struct{ Socket string }
		Network             []struct {
			SIP   []string
			Media []struct{ Address netip.Addr }
		}
		Trunk []struct{ Name, Peer string }
	}
	if err := toml.Unmarshal(text, &config); err != nil {
		return err
	}
	s := &stand{faults: faults, sessions: map[string]*bridge{}, path: config.Dataplane, callee: netip.MustParseAddrPort(config.Trunk[1].Peer)}
	var conns [2]*net.UDPConn
	for i, network := range config.Network {
		addr := netip.MustParseAddrPort(strings.TrimPrefix(network.SIP[0], "udp:"))
		if conns[i], err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr)); err != nil {
			return err
		}
		s.media[i] = network.Media[0].Address
	}
	s.inside = agent.New(agent.Config{Conn: conns[1], User: "tandem"})
	s.outside = agent.New(agent.Config{Conn: conns[0], User: "tandem", Invited: s.invited})
	go s.inside.Run()
	go s.outside.Run()
	status := rest.Status{Instance: config.Instance, PID: os.Getpid(), Dataplane: rest.Dataplane{Name: config.Dataplane}}
	if strings.Contains(faults, "plane") {
		status.Dataplane.Name = "other"
	}
	return s.serve(config.API.Socket, status)
}

func (s *stand) serve(socket string, status rest.Status) error {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	stopped := make(chan struct{})
	reply := func(w http.ResponseWriter, v any) {
		if err := json.NewEncoder(w).Encode(v); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	http.HandleFunc("GET "+rest.PathStatus, func(w http.ResponseWriter, _ *http.Request) {
		now := status
		s.mu.Lock()
		now.Sessions = len(s.sessions)
		s.mu.Unlock()
		reply(w, now)
	})
	http.HandleFunc("GET "+rest.PathSessions, func(w http.ResponseWriter, _ *http.Request) { reply(w, s.view()) })
	http.HandleFunc("POST "+rest.PathStop, func(w http.ResponseWriter, _ *http.Request) {
		reply(w, rest.Stopping{})
		close(stopped)
	})
	server := &http.Server{}
	go server.Serve(listener)
	<-stopped
	return server.Shutdown(context.Background())
}

// view shows the bridges as sessions.
func (s *stand) view() rest.Sessions {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all rest.Sessions
	for id, b := range s.sessions {
		session := rest.Session{ID: id}
		for i := range b.remotes {
			flow := rest.Flow{Component: "rtp", Packets: map[string]uint64{s.path: b.counts[i].Load()}}
			if count, ok := strings.CutPrefix(s.faults, "slow="); ok {
				n, _ := strconv.ParseUint(count, 10, 8)
				flow.Packets = map[string]uint64{s.path: max(n, b.counts[i].Load()) - n, "slow": n}
				flow.Punted = map[string]uint64{"fragment": n}
			}
			session.Parties = append(session.Parties, rest.Party{Streams: []rest.Stream{{Signalled: b.remotes[i].String(), Flows: []rest.Flow{flow}}}})
		}
		all.Sessions = append(all.Sessions, session)
	}
	return all
}

// invited connects a caller.
func (s *stand) invited(i *agent.Invitation) {
	if err := s.connect(i); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func (s *stand) connect(i *agent.Invitation) error {
	ctx := context.Background()
	if strings.Contains(s.faults, "busy") {
		return i.Reject(486, "Busy Here")
	}
	b := &bridge{}
	var err error
	for side := range b.conns {
		if b.conns[side], err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.media[side], 0))); err != nil {
			return err
		}
	}
	if b.remotes[0], err = agent.Media(i.Description()); err != nil {
		return err
	}
	far, err := s.inside.Invite(ctx, s.callee, i.User(), agent.Describe(local(b.conns[1])), nil)
	if err != nil {
		return err
	}
	if b.remotes[1], err = agent.Media(far.Description); err != nil {
		return err
	}
	for side := range b.conns {
		go s.relay(b, side)
	}
	s.mu.Lock()
	s.sessions[i.User()] = b
	s.mu.Unlock()
	near, err := i.Answer(ctx, agent.Describe(local(b.conns[0])))
	if err != nil {
		return err
	}
	<-near.Ended()
	if !strings.Contains(s.faults, "deaf") {
		if err := far.Hangup(ctx); err != nil {
			return err
		}
	}
	if !strings.Contains(s.faults, "leak") {
		s.mu.Lock()
		delete(s.sessions, i.User())
		s.mu.Unlock()
	}
	return nil
}

// relay carries what arrives on one side to the other, as well as the faults let it.
func (s *stand) relay(b *bridge, side int) {
	buf := make([]byte, 2048)
	var late []byte
	for {
		n, err := b.conns[side].Read(buf)
		if err != nil {
			return
		}
		b.counts[side].Add(1)
		packet, copies := buf[:n], 1
		if s.packets.Add(1) == 20 {
			switch {
			case strings.Contains(s.faults, "corrupt"):
				packet[n/2] ^= 0x10
			case strings.Contains(s.faults, "lose"):
				copies = 0
			case strings.Contains(s.faults, "duplicate"):
				copies = 2
			case strings.Contains(s.faults, "reorder"):
				late = slices.Clone(packet)
				continue
			case strings.Contains(s.faults, "die"):
				os.Exit(3)
			}
		}
		for range copies {
			if _, err := b.conns[1-side].WriteToUDPAddrPort(packet, b.remotes[1-side]); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
		if late != nil {
			if _, err := b.conns[1-side].WriteToUDPAddrPort(late, b.remotes[1-side]); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			late = nil
		}
	}
}

// standInProgram writes a script that runs the test binary as the stand-in, and returns its path.
func standInProgram(t *testing.T, faults string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tandemd")
	script := fmt.Sprintf("#!/bin/sh\n%s='%s' exec '%s' \"$@\"\n", standInVariable, faults, self)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}
