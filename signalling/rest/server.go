package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/relay"
)

// shutdownTimeout bounds how long requests in progress may take when the server ends.
const shutdownTimeout = 2 * time.Second

// dialTimeout bounds how long an earlier owner of the socket has to answer.
const dialTimeout = time.Second

// Media is what the API tells of the media side; *relay.Relay is one.
type Media interface {
	Sessions() []*relay.Session // ordered by id
	Len() int
	Flows(relay.SessionID) []relay.Flow
	Totals() (relay.Totals, error)
	Ports() []relay.PoolStatus
	PlaneName() string
}

// Signalling is what the API tells of the calls, and asks of them.
type Signalling interface {
	CallCount() int
	// Calls returns the calls by the session that carries their media.
	Calls() map[relay.SessionID]Call
	Counters() map[string]uint64
	// Panics counts the messages whose handling ended in a panic.
	Panics() uint64
	Drain(on bool)
	Draining() bool
}

// Config is what a server is made of. Socket, Media, Signalling and Stop are required.
type Config struct {
	Socket            string // path of the unix socket
	Instance, Version string
	Started           time.Time
	Media             Media
	Signalling        Signalling
	// Warnings tells what the operator should know about the data plane; nil: nothing.
	Warnings func() []string
	// PlanePanics counts the packets whose handling in this process ended in a panic; nil: none are handled.
	PlanePanics func() uint64
	// Stop asks the process to end, right after the request was answered. With release the kernel is emptied too.
	Stop   func(release bool)
	Logger *slog.Logger // nil: silent
}

// Server serves the API. It is a task: Run, Ready, String.
type Server struct {
	cfg     Config
	logger  *slog.Logger
	ready   chan struct{}
	panics  atomic.Uint64
	handler http.Handler
}

// New makes a server that does not listen yet.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, logger: cfg.Logger, ready: make(chan struct{})}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	s.register(humago.New(mux, apiConfig(cfg.Version)))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { notFound(mux, w, r) })
	s.handler = s.recovering(mux)
	return s
}

// apiConfig is huma's, without the documentation page, which loads from elsewhere, and without links to schemas in every body.
func apiConfig(version string) huma.Config {
	cfg := huma.DefaultConfig("Tandem", version)
	cfg.DocsPath = ""
	cfg.SchemasPath = ""
	cfg.CreateHooks = nil
	cfg.Info.Description = "Control API of one Tandem daemon. Fields are only ever added."
	return cfg
}

// Handler returns the API without a socket.
func (s *Server) Handler() http.Handler { return s.handler }

// Ready is closed once the socket listens.
func (s *Server) Ready() <-chan struct{} { return s.ready }

func (s *Server) String() string { return "control API" }

// Run serves until ctx ends. The socket is for its owner only (mode 0600); one that an earlier process left behind is replaced, one
// that is in use is an error.
func (s *Server) Run(ctx context.Context) error {
	listener, err := listen(ctx, s.cfg.Socket)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.cfg.Socket, err)
	}
	defer s.unlink(listener)
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	close(s.ready)
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	// As long as this one listens, nobody else can have taken the name.
	s.unlink(listener)
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		s.logger.Warn("requests in progress are cut off", "err", errors.Join(err, server.Close()))
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// socket is a listener with the file that it made.
type socket struct {
	net.Listener
	path string
	file fs.FileInfo // nil: removed
}

// unlink removes the socket's file, once, unless the name has come to mean another one.
func (s *Server) unlink(l *socket) {
	if l.file == nil {
		return
	}
	defer func() { l.file = nil }()
	named, err := os.Lstat(l.path)
	if err == nil && os.SameFile(named, l.file) {
		err = os.Remove(l.path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.logger.Warn("control socket stays behind", "err", err)
	}
}

func listen(ctx context.Context, path string) (*socket, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, errors.New("something that is not a socket has this name")
	default:
		if err := abandoned(ctx, path); err != nil {
			return nil, err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// The mode that the socket has before bind is the mode of its file: nobody can slip in between.
		var chmod error
		err := c.Control(func(fd uintptr) { chmod = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, chmod)
	}}
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false) // it would remove whatever has the name by then
	file, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return &socket{listener, path, file}, nil
}

// abandoned returns an error unless nobody listens on a socket any more. One whose queue is full is in use too.
func abandoned(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return errors.Join(errors.New("in use by another process"), conn.Close())
	case errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("it is not known whether another process uses it: %w", err)
}

// recovering answers 500 where a handler panics, and goes on.
func (s *Server) recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		written := &writtenWriter{ResponseWriter: w}
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			s.panics.Add(1)
			s.logger.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			if written.done {
				// Half an answer went out: the connection must not look as if it were whole.
				panic(http.ErrAbortHandler)
			}
			problem(w, http.StatusInternalServerError, "the request could not be handled; the daemon's log says why")
		}()
		next.ServeHTTP(written, r)
	})
}

// writtenWriter knows whether an answer has begun.
type writtenWriter struct {
	http.ResponseWriter
	done bool
}

func (w *writtenWriter) WriteHeader(status int) {
	w.done = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *writtenWriter) Write(b []byte) (int, error) {
	w.done = true
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *writtenWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// notFound answers what no operation is for: 405 where another method would do, else 404.
func notFound(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := mux.Handler(other); pattern != "/" && pattern != "" {
			w.Header().Set("Allow", method)
			problem(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s needs %s", r.URL.Path, method))
			return
		}
	}
	problem(w, http.StatusNotFound, fmt.Sprintf("there is no %s; /openapi.json lists what there is", r.URL.Path))
}

// problem answers after RFC 9457.
func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	// The peer may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(huma.ErrorModel{Title: http.StatusText(status), Status: status, Detail: detail})
}
