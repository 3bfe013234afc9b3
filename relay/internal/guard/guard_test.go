package guard

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Every panic is caught and counted; the log gets one a second, with where it was.
func TestCatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Panics
		out := new(bytes.Buffer)
		logger := slog.New(slog.NewTextHandler(out, nil))
		boom := func(v any) {
			defer p.Catch(logger, "test")
			if v != nil {
				panic(v)
			}
		}
		boom(nil)
		if p.Count() != 0 || out.Len() != 0 {
			t.Errorf("%d panics without one, log %q", p.Count(), out)
		}
		for range 100 {
			boom("first")
		}
		time.Sleep(period)
		boom("second")
		if p.Count() != 101 {
			t.Errorf("%d panics, want 101", p.Count())
		}
		got := out.String()
		if strings.Count(got, "msg=panic") != 2 || !strings.Contains(got, "err=second panics=101") || !strings.Contains(got, "guard_test.go") {
			t.Errorf("log %q", got)
		}
	})
}
