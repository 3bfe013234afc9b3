package sdp

import (
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// FuzzRewrite: a description that can be read comes back unedited byte for byte; rewritten it can still be read, says
// what it was told to, and differs from the original in nothing else.
func FuzzRewrite(f *testing.F) {
	for _, s := range []string{
		"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na=rtcp:4001 IN IP4 192.0.2.1\r\n",
		"v=0\nc=IN IP6 ::1\nm=audio 4000/2 RTP/AVP 0\nc=IN IP4 0.0.0.0\na=rtcp:0\na=ice-ufrag:x\nm=image 5000 udptl t38",
		"\r\nv=0\r\na=group:BUNDLE a b\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=bundle-only\r\na=candidate:1 1 UDP 1 192.0.2.1 1 typ host\r\nm=x 0 y\r\n",
		"v=0\rm=audio 1 RTP/AVP\r\r\nc=IN IP4 224.2.1.1/127\rc=TN RFC2543 1",
		"v=0\r\nm=audio 65535 RTP/AVP 0\r\ni=x\r\na=rtcp:70000\r\na=rtcp\r\n\r\n",
	} {
		f.Add([]byte(s), uint16(20000), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, port uint16, v4 bool) {
		d, err := Parse(in)
		if err != nil {
			return
		}
		if got := d.Bytes(); !bytes.Equal(got, in) {
			t.Fatalf("unedited: got %q, want %q", got, in)
		}
		to := netip.MustParseAddr("203.0.113.10")
		if !v4 {
			to = netip.MustParseAddr("2001:db8::10")
		}
		rewriteAll(d, port|1, to)
		out := d.Bytes()
		if len(out) > len(in)+64*len(d.lines) {
			t.Fatalf("%d bytes became %d", len(in), len(out))
		}
		if len(in) > MaxLine-64 || len(d.lines) > MaxLines-2*MaxMedia { // so close to a limit that it may be beyond it now
			return
		}
		if err := rewritten(d, out, port|1, to); err != nil {
			t.Fatalf("%v\nin  %q\nout %q", err, in, out)
		}
		if a, b := unnamed(in), unnamed(out); !slices.Equal(a, b) {
			t.Fatalf("more was changed than was to be\nin  %q\nout %q", a, b)
		}
	})
}

func rewriteAll(d *Description, port uint16, to netip.Addr) {
	d.RemoveICE()
	d.RemoveBundle()
	d.SetSessionAddress(to)
	for i, m := range d.Media() {
		d.SetAddress(i, to)
		d.SetRTCP(i, port, to)
		if m.Port != 0 {
			d.SetPort(i, port)
		}
	}
}

// rewritten tells in what out is not as it should be.
func rewritten(before *Description, out []byte, port uint16, to netip.Addr) error {
	d, err := Parse(out)
	if err != nil {
		return err
	}
	if len(d.Media()) != len(before.Media()) {
		return fmt.Errorf("%d m= lines became %d", len(before.Media()), len(d.Media()))
	}
	for i, m := range d.Media() {
		was := before.Media()[i]
		wantPort, wantAddr := port, Connection{Present: true, Addr: to}
		if was.Port == 0 {
			wantPort = 0
		}
		if was.Connection.Unspecified() || was.Connection.Foreign {
			wantAddr = was.Connection
		}
		if m.Port != wantPort || m.Connection != wantAddr || m.BundleOnly {
			return fmt.Errorf("m= line %d: port %d, %+v, bundle-only %t", i, m.Port, m.Connection, m.BundleOnly)
		}
		if m.RTCP.Port != port && m.RTCP.Port != 0 || !m.RTCP.Present {
			return fmt.Errorf("m= line %d: %+v", i, m.RTCP)
		}
		if m.Type != was.Type || m.Proto != was.Proto || m.Direction != was.Direction || !slices.Equal(m.Formats, was.Formats) {
			return fmt.Errorf("m= line %d became another: %+v, was %+v", i, m, was)
		}
	}
	return nil
}

// unnamed returns the lines of a description without what rewriteAll may touch. It is written without the package's own code.
func unnamed(b []byte) []string {
	var all []string
	for _, s := range regexp.MustCompile(`\r+\n|\r|\n`).Split(string(b), -1) {
		name, _, _ := strings.Cut(strings.TrimPrefix(s, "a="), ":")
		name = strings.ToLower(strings.TrimSpace(name))
		_, value, _ := strings.Cut(s, ":")
		switch {
		case strings.HasPrefix(s, "m="):
			s = regexp.MustCompile(`^(m=[ \t]*[^ \t]+[ \t]+)[^ \t]+`).ReplaceAllString(s, "$1")
		case strings.HasPrefix(s, "c="):
			continue
		case strings.HasPrefix(s, "a=") && slices.Contains([]string{"rtcp", "candidate", "remote-candidates", "end-of-candidates",
			"ice-lite", "ice-mismatch", "ice-ufrag", "ice-pwd", "ice-options", "ice-pacing", "bundle-only"}, name):
			continue
		case strings.HasPrefix(s, "a=") && name == "group" && len(strings.Fields(value)) > 0 && strings.EqualFold(strings.Fields(value)[0], "BUNDLE"):
			continue
		}
		all = append(all, s)
	}
	for len(all) > 0 && all[len(all)-1] == "" { // a last line that goes leaves the line end of the one before
		all = all[:len(all)-1]
	}
	return all
}
