package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// ErrNotRunning says that nobody listens on the socket.
var ErrNotRunning = errors.New("no daemon answers")

// maxAnswer bounds what a client reads of one answer, in bytes.
const maxAnswer = 256 << 20

// Client is a client of one daemon. It may be used concurrently.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client of the daemon behind a unix socket. It does not connect yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: time.Minute}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for the daemon at a glance.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, PathStatus, nil)
}

// Sessions asks for all sessions, page by page.
func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	all := []Session{}
	cursor := ""
	for {
		path := PathSessions + "?" + url.Values{"limit": {fmt.Sprint(maxPage)}, "cursor": {cursor}}.Encode()
		page, err := call[Sessions](ctx, c, http.MethodGet, path, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Sessions...)
		if cursor = page.NextCursor; cursor == "" {
			return all, nil
		}
	}
}

// Drops asks why packets were dropped or took the slow path.
func (c *Client) Drops(ctx context.Context) (Drops, error) {
	return call[Drops](ctx, c, http.MethodGet, PathDrops, nil)
}

// Drain makes the daemon refuse new calls, or take them again.
func (c *Client) Drain(ctx context.Context, on bool) (DrainState, error) {
	return call[DrainState](ctx, c, http.MethodPost, PathDrain, Drain{On: on})
}

// Stop ends the daemon; with release it empties the kernel first.
func (c *Client) Stop(ctx context.Context, release bool) (Stopping, error) {
	return call[Stopping](ctx, c, http.MethodPost, PathStop, Stop{Release: release})
}

// call asks and reads the answer. Nobody behind the socket is ErrNotRunning.
func call[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var out T
	var reader io.Reader
	if in != nil {
		encoded, err := json.Marshal(in)
		if err != nil {
			return out, fmt.Errorf("encode request: %w", err)
		}
		reader = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://tandem"+path, reader)
	if err != nil {
		return out, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
			return out, fmt.Errorf("%w on %s", ErrNotRunning, c.socket)
		}
		return out, fmt.Errorf("ask daemon: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return out, fmt.Errorf("read answer of %s: %w", path, err)
	}
	if response.StatusCode/100 != 2 {
		return out, refusal(response.StatusCode, answer)
	}
	if err := json.Unmarshal(answer, &out); err != nil {
		return out, fmt.Errorf("read answer of %s: %w", path, err)
	}
	return out, nil
}

// refusal turns an error answer into an error.
func refusal(status int, answer []byte) error {
	var p huma.ErrorModel
	if json.Unmarshal(answer, &p) != nil || p.Detail == "" {
		return fmt.Errorf("daemon answers %d %s", status, http.StatusText(status))
	}
	err := fmt.Errorf("daemon answers %d: %s", status, p.Detail)
	for _, e := range p.Errors {
		err = fmt.Errorf("%w; %s", err, strings.TrimSpace(e.Location+" "+e.Message))
	}
	return err
}
