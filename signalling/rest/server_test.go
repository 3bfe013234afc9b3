package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/relay"
)

// fakeMedia is a media side with given sessions.
type fakeMedia struct {
	sessions []*relay.Session
	flows    map[relay.SessionID][]relay.Flow
	totals   relay.Totals
	err      error
	boom     bool
}

func (f *fakeMedia) Sessions() []*relay.Session            { return f.sessions }
func (f *fakeMedia) Len() int                              { return len(f.sessions) }
func (f *fakeMedia) Flows(id relay.SessionID) []relay.Flow { return f.flows[id] }
func (f *fakeMedia) Totals() (relay.Totals, error) {
	if f.boom {
		panic("no map")
	}
	return f.totals, f.err
}
func (f *fakeMedia) PlaneName() string { return "userspace" }
func (f *fakeMedia) Ports() []relay.PoolStatus {
	return []relay.PoolStatus{{Network: "outside", Addr: netip.MustParseAddr("203.0.113.10"), Total: 10, Used: 2, Quarantined: 1}}
}

// fakeSignalling is a SIP door with given calls.
type fakeSignalling struct {
	mu       sync.Mutex
	draining bool
	calls    map[relay.SessionID]Call
}

func (f *fakeSignalling) CallCount() int                  { return len(f.calls) }
func (f *fakeSignalling) Calls() map[relay.SessionID]Call { return f.calls }
func (f *fakeSignalling) Counters() map[string]uint64 {
	return map[string]uint64{"requests_received": 7}
}
func (f *fakeSignalling) Panics() uint64 { return 3 }
func (f *fakeSignalling) Drain(on bool)  { f.mu.Lock(); f.draining = on; f.mu.Unlock() }
func (f *fakeSignalling) Draining() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.draining }

var seenAt = time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)

// example is a call of two parties of which the first has been heard.
func example() (*fakeMedia, *fakeSignalling) {
	ap, prefix := netip.MustParseAddrPort, netip.MustParsePrefix
	local := netip.MustParseAddr("203.0.113.10")
	session := &relay.Session{
		ID: "s1", Generation: 4,
		Parties: []relay.Party{
			{ID: "a", Network: "outside", Label: "alice", Tags: []string{"t1"}, Streams: []relay.Stream{{
				Media: "audio", Proto: "RTP/AVP", Local: relay.Pair{Addr: local, RTP: 20000, RTCP: 20001}, Window: 2,
				Remote: relay.Remote{Signalled: ap("192.168.1.2:4000")},
				Accept: relay.AcceptSet{Nets: []netip.Prefix{prefix("198.51.100.9/32"), prefix("10.0.0.0/8")}},
			}}},
			{ID: "b", Network: "inside", Streams: []relay.Stream{
				{Media: "audio", Proto: "RTP/AVP", Local: relay.Pair{Addr: local, RTP: 20002, RTCP: 20003}, Mode: relay.Hold,
					Remote: relay.Remote{RTP: ap("10.0.0.2:5000"), RTCP: ap("10.0.0.2:5001"), Signalled: ap("10.0.0.2:5000")},
					Accept: relay.AcceptSet{Any: true}},
				{Media: "video", Proto: "RTP/AVP"},
			}},
		},
	}
	media := &fakeMedia{
		sessions: []*relay.Session{session},
		flows: map[relay.SessionID][]relay.Flow{"s1": {{
			Local: ap("203.0.113.10:20000"), Action: relay.Forward, Learnt: ap("198.51.100.9:31000"),
			Packets: map[relay.Path]uint64{relay.PathUserspace: 50}, Bytes: map[relay.Path]uint64{relay.PathUserspace: 8600},
			FirstSeen: seenAt, LastSeen: seenAt.Add(time.Second), Punted: map[string]uint64{"punt_stun": 1},
		}}},
		totals: relay.Totals{
			Forwarded: map[relay.Path]uint64{relay.PathXDP: 100, relay.PathSlow: 2},
			Reasons: []relay.Reason{
				{Name: "forwarded", Verdict: "forward", Packets: 100, Bytes: 20000},
				{Name: "no_session", Verdict: "drop", Help: "nobody has this port", Packets: 5, Bytes: 500},
				{Name: "punt_stun", Verdict: "punt", Help: "STUN", Packets: 2, Bytes: 200},
			},
		},
	}
	signalling := &fakeSignalling{calls: map[relay.SessionID]Call{"s1": {
		ID: "c1", State: "confirmed", CallIDs: []string{"abc@host"}, From: "sip:alice@a", To: "sip:bob@b",
		TrunkIn: "carrier", TrunkOut: "pbx", StartedAt: seenAt,
	}}}
	return media, signalling
}

// start serves on a unix socket and returns a client and the server.
func start(t *testing.T, cfg Config) (*Client, *Server) {
	t.Helper()
	cfg.Socket = filepath.Join(t.TempDir(), "api.sock")
	cfg.Instance, cfg.Version, cfg.Started = "edge", "v1", time.Now()
	s := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	client := NewClient(cfg.Socket)
	t.Cleanup(func() {
		client.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return client, s
}

func TestStatus(t *testing.T) {
	media, signalling := example()
	client, _ := start(t, Config{Media: media, Signalling: signalling, Warnings: func() []string { return []string{"slow"} },
		PlanePanics: func() uint64 { return 2 }})
	got, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Status{
		Instance: "edge", Version: "v1", PID: os.Getpid(), StartedAt: got.StartedAt, UptimeSeconds: got.UptimeSeconds,
		Dataplane: Dataplane{Name: "userspace", Warnings: []string{"slow"}}, Calls: 1, Sessions: 1,
		Ports:     []Ports{{Network: "outside", Address: netip.MustParseAddr("203.0.113.10"), Total: 10, Used: 2, Quarantined: 1}},
		Forwarded: map[string]uint64{"xdp": 100, "slow": 2},
		Punted:    map[string]uint64{"punt_stun": 2},
		Dropped:   map[string]uint64{"no_session": 5},
		SIP:       map[string]uint64{"requests_received": 7},
		Panics:    map[string]uint64{"sip": 3, "rest": 0, "dataplane": 2},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got.StartedAt.IsZero() || got.UptimeSeconds < 0 {
		t.Errorf("started %v, up %v", got.StartedAt, got.UptimeSeconds)
	}
}

func TestSessions(t *testing.T) {
	media, signalling := example()
	client, _ := start(t, Config{Media: media, Signalling: signalling})
	got, err := client.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, last := seenAt, seenAt.Add(time.Second)
	none := map[string]uint64{}
	silent := func(component, local, remote, action string) Flow {
		return Flow{Component: component, Local: local, Remote: remote, Action: action, Packets: none, Bytes: none, Punted: none}
	}
	call := signalling.calls["s1"]
	want := []Session{{
		ID: "s1", Generation: 4, Call: &call,
		Parties: []Party{
			{ID: "a", Network: "outside", Label: "alice", Tags: []string{"t1"}, Streams: []Stream{{
				Media: "audio", Proto: "RTP/AVP", Mode: "forward", Signalled: "192.168.1.2:4000", Accept: []string{"198.51.100.9", "10.0.0.0/8"}, Window: 2,
				Flows: []Flow{
					{Component: "rtp", Local: "203.0.113.10:20000", Learnt: "198.51.100.9:31000", Action: "forward",
						Packets: map[string]uint64{"userspace": 50}, Bytes: map[string]uint64{"userspace": 8600},
						Punted: map[string]uint64{"punt_stun": 1}, FirstSeen: &first, LastSeen: &last},
					silent("rtcp", "203.0.113.10:20001", "", "forward"),
				},
			}}},
			{ID: "b", Network: "inside", Tags: []string{}, Streams: []Stream{
				{Media: "audio", Proto: "RTP/AVP", Mode: "hold", Signalled: "10.0.0.2:5000", Accept: []string{"any"}, Flows: []Flow{
					silent("rtp", "203.0.113.10:20002", "10.0.0.2:5000", "hold"),
					silent("rtcp", "203.0.113.10:20003", "10.0.0.2:5001", "hold"),
				}},
				{Media: "video", Proto: "RTP/AVP", Mode: "forward", Accept: []string{}, Flows: []Flow{}},
			}},
		},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestSessionsPages(t *testing.T) {
	media := &fakeMedia{}
	for i := range 7 {
		media.sessions = append(media.sessions, &relay.Session{ID: relay.SessionID(fmt.Sprintf("s%d", i))})
	}
	client, _ := start(t, Config{Media: media, Signalling: &fakeSignalling{}})
	var got []string
	cursor := ""
	for {
		page, err := call[Sessions](t.Context(), client, http.MethodGet, PathSessions+"?limit=3&cursor="+cursor, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page.Sessions {
			got = append(got, s.ID)
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
		if cursor == "s2" {
			continue
		}
		// The session that the cursor names may end between two pages.
		media.sessions = slices.DeleteFunc(media.sessions, func(s *relay.Session) bool { return string(s.ID) == cursor })
	}
	if want := []string{"s0", "s1", "s2", "s3", "s4", "s5", "s6"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestDrops(t *testing.T) {
	media, signalling := example()
	client, _ := start(t, Config{Media: media, Signalling: signalling})
	got, err := client.Drops(t.Context())
	want := Drops{Reasons: []Reason{
		{Name: "no_session", Verdict: "drop", Help: "nobody has this port", Packets: 5, Bytes: 500},
		{Name: "punt_stun", Verdict: "punt", Help: "STUN", Packets: 2, Bytes: 200},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v %v", got, err)
	}
}

func TestDrainAndStop(t *testing.T) {
	media, signalling := example()
	stopped := make(chan bool, 1)
	client, _ := start(t, Config{Media: media, Signalling: signalling, Stop: func(release bool) { stopped <- release }})
	for _, on := range []bool{true, false} {
		got, err := client.Drain(t.Context(), on)
		if err != nil || got != (DrainState{Draining: on, Calls: 1}) || signalling.Draining() != on {
			t.Errorf("drain %v: %+v %v", on, got, err)
		}
	}
	for _, release := range []bool{false, true} {
		got, err := client.Stop(t.Context(), release)
		if err != nil || got != (Stopping{PID: os.Getpid(), Release: release, Calls: 1}) {
			t.Errorf("stop %v: %+v %v", release, got, err)
		}
		if <-stopped != release {
			t.Errorf("stop %v was asked for", !release)
		}
	}
}

// ask sends a raw request and returns status, content type and body.
func ask(t *testing.T, c *Client, method, path, contentType, body string) (int, string, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://tandem"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header.Get("Content-Type"), string(text)
}

func TestRefusals(t *testing.T) {
	media, signalling := example()
	stop := func(bool) { t.Error("a refused request stopped the daemon") }
	client, _ := start(t, Config{Media: media, Signalling: signalling, Stop: stop})
	cases := []struct {
		name, method, path, contentType, body string
		status                                int
		want                                  string // in the body
	}{
		{"an unknown path", "GET", "/v1/nothing", "", "", 404, "there is no /v1/nothing"},
		{"another method", "POST", PathStatus, "application/json", "{}", 405, "/v1/status needs GET"},
		{"a method that nothing takes", "DELETE", PathStop, "", "", 405, "/v1/stop needs POST"},
		{"no body", "POST", PathDrain, "application/json", "", 400, "request body is required"},
		{"a body that is no JSON", "POST", PathDrain, "application/json", "on", 400, "invalid character"},
		{"a missing field", "POST", PathStop, "application/json", "{}", 422, "required property release"},
		{"an unknown field", "POST", PathStop, "application/json", `{"release":true,"force":true}`, 422, "unexpected property"},
		{"a wrong type", "POST", PathDrain, "application/json", `{"on":"yes"}`, 422, "expected boolean"},
		{"a page that is too large", "GET", PathSessions + "?limit=5001", "", "", 422, "5000"},
		{"a page of nothing", "GET", PathSessions + "?limit=0", "", "", 422, ">= 1"},
		{"a body that is too large", "POST", PathDrain, "application/json", `{"on":true,"x":"` + strings.Repeat("x", 70<<10) + `"}`, 413, "too large"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			status, contentType, body := ask(t, client, c.method, c.path, c.contentType, c.body)
			if status != c.status || contentType != "application/problem+json" || !strings.Contains(body, c.want) {
				t.Errorf("got %d %s %s, want %d with %q", status, contentType, body, c.status, c.want)
			}
		})
	}
	if signalling.Draining() {
		t.Error("a refused request drained")
	}
}

func TestErrors(t *testing.T) {
	media, signalling := example()
	client, _ := start(t, Config{Media: media, Signalling: signalling})
	media.err = errors.New("map is gone")
	_, err := client.Status(t.Context())
	if err == nil || err.Error() != "daemon answers 500: the counters of the data plane cannot be read; map is gone" {
		t.Errorf("got %v", err)
	}
	media.err, media.boom = nil, true
	status, contentType, body := ask(t, client, "GET", PathStatus, "", "")
	if status != 500 || contentType != "application/problem+json" || !strings.Contains(body, "the daemon's log says why") || strings.Contains(body, "no map") {
		t.Errorf("a panic: %d %s %s", status, contentType, body)
	}
	media.boom = false
	got, err := client.Status(t.Context())
	if err != nil || got.Panics["rest"] != 1 {
		t.Errorf("after a panic: %+v %v", got.Panics, err)
	}
}

func TestOpenAPI(t *testing.T) {
	media, signalling := example()
	client, _ := start(t, Config{Media: media, Signalling: signalling})
	status, _, text := ask(t, client, "GET", "/openapi.json", "", "")
	var document struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
		Components struct {
			Schemas map[string]json.RawMessage `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal([]byte(text), &document); err != nil || status != 200 {
		t.Fatalf("%d %v", status, err)
	}
	if document.OpenAPI != "3.1.0" || len(document.Paths) != 5 {
		t.Errorf("got %+v", document)
	}
	for path, method := range map[string]string{PathStatus: "get", PathSessions: "get", PathDrops: "get", PathDrain: "post", PathStop: "post"} {
		if document.Paths[path][method].OperationID == "" {
			t.Errorf("no %s %s", method, path)
		}
	}
	for name, schema := range document.Components.Schemas {
		if name != "ErrorModel" && strings.Contains(string(schema), `"null"`) {
			t.Errorf("a list of %s may be null, which makes clients ugly: %s", name, schema)
		}
	}
	if status, _, _ := ask(t, client, "GET", "/docs", "", ""); status != 404 {
		t.Errorf("/docs answers %d, and would load from elsewhere", status)
	}
	if _, _, text := ask(t, client, "GET", PathStatus, "", ""); strings.Contains(text, "$schema") {
		t.Error("answers carry links to schemas")
	}
}

func TestSocket(t *testing.T) {
	media, signalling := example()
	cfg := Config{Media: media, Signalling: signalling}
	t.Run("is for its owner only", func(t *testing.T) {
		_, s := start(t, cfg)
		info, err := os.Stat(s.cfg.Socket)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v %v", info.Mode(), err)
		}
	})
	t.Run("replaces one that a killed process left behind", func(t *testing.T) {
		cfg := cfg
		cfg.Socket = filepath.Join(t.TempDir(), "api.sock")
		old, err := net.ListenUnix("unix", &net.UnixAddr{Name: cfg.Socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		old.SetUnlinkOnClose(false)
		old.Close()
		listener, err := listen(t.Context(), cfg.Socket)
		if err != nil {
			t.Fatal(err)
		}
		listener.Close()
	})
	t.Run("never takes one that is in use", func(t *testing.T) {
		_, first := start(t, cfg)
		second := cfg
		second.Socket = first.cfg.Socket
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := New(second).Run(ctx); err == nil || !strings.Contains(err.Error(), "in use by another process") {
			t.Errorf("got %v", err)
		}
		client := NewClient(first.cfg.Socket)
		defer client.Close()
		if _, err := client.Status(t.Context()); err != nil {
			t.Errorf("the first one: %v", err)
		}
	})
	t.Run("never takes one whose queue is full", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "api.sock")
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
			t.Fatal(err)
		}
		waiting, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer waiting.Close()
		if l, err := listen(t.Context(), path); err == nil {
			l.Close()
			t.Error("it was taken")
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	})
	t.Run("ends with its own file only", func(t *testing.T) {
		for _, foreign := range []bool{false, true} {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cfg := cfg
			cfg.Socket = filepath.Join(t.TempDir(), "api.sock")
			s, ended := New(cfg), make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			<-s.Ready()
			if foreign {
				// The new file first: it must not get the inode of the old one.
				other, err := net.ListenUnix("unix", &net.UnixAddr{Name: cfg.Socket + ".new", Net: "unix"})
				if err != nil {
					t.Fatal(err)
				}
				other.SetUnlinkOnClose(false)
				defer other.Close()
				if err := os.Rename(cfg.Socket+".new", cfg.Socket); err != nil {
					t.Fatal(err)
				}
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(cfg.Socket); (err == nil) != foreign {
				t.Errorf("of another process %v: %v", foreign, err)
			}
		}
	})
	t.Run("never replaces a file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "api.sock")
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := cfg
		cfg.Socket = path
		err := New(cfg).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("got %v", err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
			t.Errorf("the file: %q %v", text, err)
		}
	})
	t.Run("without a daemon", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "api.sock")
		if _, err := NewClient(path).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("no socket: %v", err)
		}
		old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		old.SetUnlinkOnClose(false)
		old.Close()
		if _, err := NewClient(path).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("a socket of nobody: %v", err)
		}
	})
}
