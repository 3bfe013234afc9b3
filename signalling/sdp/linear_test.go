package sdp

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// TestCarriageReturns: a run of CRs, each of which is a line, costs about what as many LFs do, and not its square.
func TestCarriageReturns(t *testing.T) {
	fastest := func(end string) time.Duration {
		text := append([]byte("v=0\n"), bytes.Repeat([]byte(end), MaxSize-8)...)
		best := time.Hour
		for range 7 {
			begin := time.Now()
			if _, err := Parse(text); !errors.Is(err, ErrSyntax) {
				t.Fatalf("%q: %v", end, err)
			}
			best = min(best, time.Since(begin))
		}
		return best
	}
	// Walking the rest of the run for every line would make it a thousand times as much.
	if cr, lf := fastest("\r"), fastest("\n"); cr > 30*lf {
		t.Errorf("CRs take %s, LFs %s", cr, lf)
	}
}

// TestCarriageReturnRuns: before an LF any number of CRs is one line end, else each is one.
func TestCarriageReturnRuns(t *testing.T) {
	for _, c := range []struct {
		text  string
		lines []string
	}{
		{"a\r\r\r\nb", []string{"a\r\r\r\n", "b"}},
		{"a\r\r\rb", []string{"a\r", "\r", "\r", "b"}},
		{"a\r\r\rb\r\r\n\r", []string{"a\r", "\r", "\r", "b\r\r\n", "\r"}},
		{"\r\r", []string{"\r", "\r"}},
		{"\n\r\n\r", []string{"\n", "\r\n", "\r"}},
	} {
		lines, err := split([]byte(c.text))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range lines {
			got = append(got, string(l.text)+string(l.end))
		}
		if len(got) != len(c.lines) {
			t.Errorf("%q: %q", c.text, got)
			continue
		}
		for i := range got {
			if got[i] != c.lines[i] {
				t.Errorf("%q: %q", c.text, got)
			}
		}
	}
}
