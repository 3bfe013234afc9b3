package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench"
	"github.com/tandem-relay/tandem/bench/lab/require"
)

// perform runs the demo with --json and returns the object, which must be all there is on its standard output.
func perform(t *testing.T, ctx context.Context, o Options) (map[string]any, error) {
	t.Helper()
	var out, show bytes.Buffer
	o.Out, o.Err, o.JSON = &out, &show, true
	err := Run(ctx, o)
	t.Logf("display:\n%s", show.String())
	decoder := json.NewDecoder(&out)
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		t.Fatalf("no object on stdout: %v", err)
	}
	if decoder.More() {
		t.Error("more than one object on stdout")
	}
	for _, key := range []string{"calls", "packets_sent", "packets_received", "lost", "audio_intact", "forwarded_xdp",
		"forwarded_other", "latency_us_p50", "latency_us_p99"} {
		if _, ok := object[key]; !ok {
			t.Errorf("the object has no %q", key)
		}
	}
	if object["ok"] != (err == nil) {
		t.Errorf("ok is %v, error is %v", object["ok"], err)
	}
	for _, key := range []string{"problems", "notes"} {
		if _, ok := object[key].([]any); !ok {
			t.Errorf("%s is %v, not a list", key, object[key])
		}
	}
	for _, trace := range everywhere() {
		for _, prefix := range trace.prefixes {
			_, err := os.Stat(filepath.Join(trace.dir, trace.name(prefix, os.Getpid())))
			if os.Geteuid() != 0 && errors.Is(err, os.ErrPermission) {
				continue // where this user may not look he has left nothing either
			}
			if !errors.Is(err, os.ErrNotExist) {
				t.Errorf("something is left in %s: %v", trace.dir, err)
			}
		}
	}
	return object, err
}

// TestRunUserspace needs no privileges: the stand-in carries the packets over loopback.
func TestRunUserspace(t *testing.T) {
	tests := []struct {
		name, why, faults string
		wrong             string // in the error or the problems; empty: all is well
		verdict           bool   // the demo got to its end
		check             func(o map[string]any) bool
	}{
		{"good", "a relay without faults passes", "", "", true, func(o map[string]any) bool {
			return o["calls"] == 3.0 && o["lost"] == 0.0 && o["audio_intact"] == true && o["forwarded_xdp"] == 0.0 &&
				o["forwarded_other"] == o["packets_sent"] && o["packets_sent"].(float64) >= 300 && o["stopped"] == nil
		}},
		{"corrupted", "one flipped bit is found", "corrupt", "1 packets were not byte for byte", true, func(o map[string]any) bool {
			return o["audio_intact"] == false && o["lost"] == 0.0 && o["corrupted"] == 1.0
		}},
		{"lost", "one missing packet is found", "lose", "1 packets were lost", true, func(o map[string]any) bool {
			return o["audio_intact"] == false && o["lost"] == 1.0
		}},
		{"duplicated", "one packet too many is found", "duplicate", "1 packets were duplicated", true, func(o map[string]any) bool {
			return o["audio_intact"] == true && o["duplicated"] == 1.0
		}},
		{"reordered", "sockets of a busy machine may do that", "reorder", "", true, func(o map[string]any) bool {
			return o["audio_intact"] == true && o["lost"] == 0.0 && o["reordered"].(float64) >= 1
		}},
		{"refused", "a call that is not established", "busy", "no call was established: call 1: INVITE: rejected with 486", false, nil},
		{"session left", "the daemon must forget ended calls", "leak", "3 sessions are left", true, nil},
		{"dead on arrival", "its last words are shown", "exit", "the stand-in was told to exit", false, nil},
		{"dead in the call", "the demo ends at once", "die", "tandemd ended by itself (exit status 3)", false, nil},
		{"another plane", "a fallback is never silent", "plane", "runs with the data plane other, asked for was userspace", false, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			begin := time.Now()
			o, err := perform(t, t.Context(), Options{Dataplane: Userspace, Seconds: 1, Calls: 3, Daemon: standInProgram(t, test.faults)})
			if test.wrong == "" != (err == nil) || errors.Is(err, ErrVerdict) != (test.verdict && test.wrong != "") {
				t.Errorf("error %v: %s", err, test.why)
			}
			if problems := fmt.Sprint(o["problems"]); !strings.Contains(problems, test.wrong) {
				t.Errorf("problems %q, want %q: %s", problems, test.wrong, test.why)
			}
			if test.check != nil && !test.check(o) {
				t.Errorf("object %v: %s", o, test.why)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

// TestRunStopped lets the stand-in claim that XDP carries its packets. Stopping it must show the lie.
func TestRunStopped(t *testing.T) {
	require.Lab(t)
	o, err := perform(t, t.Context(), Options{Dataplane: XDP, Seconds: 2, Calls: 1, Daemon: standInProgram(t, "")})
	// Nothing need be lost, because its sockets keep what arrives while it is stopped; but it comes too late.
	if !errors.Is(err, ErrVerdict) || !strings.Contains(fmt.Sprint(o["problems"]), "packets sent while the daemon was stopped only") {
		t.Errorf("a relay that was stopped for 600 ms went unnoticed: %v, %v", err, o["problems"])
	}
	stopped, ok := o["stopped"].(map[string]any)
	if !ok || stopped["seconds"].(float64) < 0.6 || stopped["packets_sent"].(float64) < 20 {
		t.Errorf("stopped: %v", o["stopped"])
	}
}

// TestRunReordered: XDP keeps the order of packets, so that one out of order is a fault.
func TestRunReordered(t *testing.T) {
	require.Lab(t)
	for faults, wrong := range map[string]bool{"": false, "reorder": true} {
		o, err := perform(t, t.Context(), Options{Dataplane: XDP, Seconds: 2, Calls: 1, Daemon: standInProgram(t, faults)})
		// It is stopped too, so its verdict is bad in any case.
		if complains := strings.Contains(fmt.Sprint(o["problems"]), "arrived out of order"); !errors.Is(err, ErrVerdict) || complains != wrong {
			t.Errorf("fault %q: error %v, problems %v", faults, err, o["problems"])
		}
	}
}

// TestRunSlow has a relay own up to another path. It is stopped too, so its verdict is bad in any case.
func TestRunSlow(t *testing.T) {
	require.Lab(t)
	for slow, wrong := range map[int]bool{spareXDP: false, spareXDP + 1: true} {
		o, err := perform(t, t.Context(), Options{Dataplane: XDP, Seconds: 1, Calls: 2, Daemon: standInProgram(t, fmt.Sprintf("slow=%d", slow))})
		complains := strings.Contains(fmt.Sprint(o["problems"]), "on 4 of 4 streams XDP did not carry all but at most 2")
		if !errors.Is(err, ErrVerdict) || complains != wrong {
			t.Errorf("%d packets of each stream: error %v, problems %v", slow, err, o["problems"])
		}
		if o["forwarded_other"] != float64(4*slow) || fmt.Sprint(o["other_reasons"]) != fmt.Sprintf("map[fragment:%d]", 4*slow) {
			t.Errorf("other: %v %v", o["forwarded_other"], o["other_reasons"])
		}
	}
}

// TestText has the verdict say what people look for.
func TestText(t *testing.T) {
	direction := func(name string, intact bool) Direction {
		return Direction{name, Totals{AudioIntact: intact, ForwardedXDP: 500, Report: bench.Report{Sent: 501, Received: 500, Lost: 1, Corrupted: 2}}}
	}
	r := &Result{OK: false, Problems: []string{"1 packets were lost", "something else"}, Dataplane: XDP, Notes: []string{"a note"},
		Directions: []Direction{direction("caller to callee", true), direction("callee to caller", false)},
		Stopped:    &Stopped{3, 300, 299}, Calls: 1, Dropped: map[string]uint64{"no_session": 7},
		Totals: Totals{ForwardedOther: 3, OtherPaths: map[string]uint64{"slow": 3}, OtherReasons: map[string]uint64{"stun": 1, "fragment": 2}}}
	bad := r.text()
	for _, want := range []string{"NOT OK: 1 packets were lost\n        something else", "packets sent", "501", "NOT INTACT (2 damaged, 0 strange)",
		"1 call from INVITE to BYE", "another path: slow 3; because of fragment 2, stun 1", "dropped by Tandem: no_session 7",
		"daemon stopped by SIGSTOP for 3.0 s: 300 packets sent meanwhile, 299 of them arrived", "note: a note"} {
		if !strings.Contains(bad, want) {
			t.Errorf("no %q in\n%s", want, bad)
		}
	}
	r.OK, r.Problems = true, nil
	for want, change := range map[string]func(){
		"XDP carried all but 3 packets":     func() {},
		"XDP carried every packet":          func() { r.ForwardedOther = 0 },
		"daemon's sockets, not through XDP": func() { r.Dataplane = Userspace },
	} {
		saved := *r
		change()
		if good := r.text(); !strings.HasPrefix(good, "\nOK: ") || !strings.Contains(good, want) {
			t.Errorf("no %q in\n%s", want, good)
		}
		*r = saved
	}
}

func TestInterrupted(t *testing.T) {
	// In the call, while the daemon starts, and before anything was begun.
	for _, after := range []time.Duration{1500 * time.Millisecond, 20 * time.Millisecond, 0} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		defer cancel()
		begin := time.Now()
		o, err := perform(t, ctx, Options{Dataplane: Userspace, Seconds: 60, Calls: 1, Daemon: standInProgram(t, "")})
		if err == nil || o["error"] != "interrupted" || time.Since(begin) > 8*time.Second {
			t.Errorf("interrupted after %s, ended after %s: %v, %v", after, time.Since(begin), err, o["error"])
		}
	}
}

// closing is a standard output that takes everything but the verdict.
type closing struct{ bytes.Buffer }

func (c *closing) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("OK: ")) {
		return 0, os.ErrClosed
	}
	return c.Buffer.Write(b)
}

// TestVerdictUnread: a verdict that nobody could read is no success.
func TestVerdictUnread(t *testing.T) {
	out := &closing{}
	err := Run(t.Context(), Options{Dataplane: Userspace, Seconds: 1, Calls: 1, Daemon: standInProgram(t, ""), Out: out, Err: out})
	if !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "look yourself: "+self+" status --socket ") {
		t.Errorf("does not name the program that runs:\n%s", out.String())
	}
}

// TestAdded: a negative difference is named for what it is, not made zero.
func TestAdded(t *testing.T) {
	for us, want := range map[float64]string{-0.4: "within the resolution", 0: "0.0 us", 1.25: "1.2 us"} {
		if got := added(us); got != want {
			t.Errorf("%v: %q, want %q", us, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	good := Options{Dataplane: XDP, Seconds: 10, Calls: 1}
	tests := []struct {
		name   string
		change func(*Options)
		wrong  string
	}{
		{"good", func(*Options) {}, ""},
		{"plane", func(o *Options) { o.Dataplane = "dpdk" }, `--dataplane is "dpdk": want xdp or userspace`},
		{"no time", func(o *Options) { o.Seconds = 0 }, "--seconds is 0: want 1 to 3600"},
		{"too long", func(o *Options) { o.Seconds = MaxSeconds + 1 }, "--seconds is 3601: want 1 to 3600"},
		{"no calls", func(o *Options) { o.Calls = 0 }, "--calls is 0: want 1 to 1000"},
		{"negative", func(o *Options) { o.Calls = -4 }, "--calls is -4: want 1 to 1000"},
		{"too many", func(o *Options) { o.Calls = MaxCalls + 1 }, "--calls is 1001: want 1 to 1000"},
	}
	for _, test := range tests {
		o := good
		test.change(&o)
		if err := o.Check(); (err == nil) != (test.wrong == "") || err != nil && err.Error() != test.wrong {
			t.Errorf("%s: %v, want %q", test.name, err, test.wrong)
		}
	}
}

func TestPause(t *testing.T) {
	for seconds, want := range map[int]time.Duration{1: 300 * time.Millisecond, 2: 600 * time.Millisecond, 10: 3 * time.Second, 60: 3 * time.Second} {
		if got := (Options{Seconds: seconds}).pause(); got != want {
			t.Errorf("%d s: stopped for %s, want %s", seconds, got, want)
		}
	}
}

func TestFindDaemon(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, wrong := range map[string]string{program: "", dir: "no program", plain: "no program", dir + "/none": "make build", "": "--tandemd PATH"} {
		got, err := (Options{Daemon: path}).findDaemon()
		if (err == nil) != (wrong == "") || err != nil && !strings.Contains(err.Error(), wrong) || err == nil && got != path {
			t.Errorf("%q: %q, %v, want %q", path, got, err, wrong)
		}
	}
}

func TestSweep(t *testing.T) {
	pins, temporary := t.TempDir(), t.TempDir()
	for _, path := range []string{
		pins + "/demo-11-" + mark(11) + "/sub", pins + "/demo-12-" + mark(12), pins + "/_new_demo-11-" + mark(11), pins + "/default", pins + "/demo-", pins + "/demo-x",
		pins + "/demo-11", pins + "/_new_demo-11", pins + "/demo-11-" + mark(12), pins + "/demo-11-", pins + "/demo-011-" + mark(11), pins + "/demo-11-" + mark(11) + "0",
		temporary + "/tandem-demo-11", temporary + "/tandem-demo-12", temporary + "/demo-11",
	} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	where := []traces{{pins, []string{"demo-", "_new_demo-"}, mark}, {temporary, []string{"tandem-demo-"}, nil}, {temporary + "/none", []string{""}, nil}}
	removed, err := sweep(where, func(pid int) bool { return pid == 11 })
	slices.Sort(removed)
	want := []string{pins + "/_new_demo-11-" + mark(11), pins + "/demo-11-" + mark(11), temporary + "/tandem-demo-11"}
	slices.Sort(want)
	if err != nil || !slices.Equal(removed, want) {
		t.Errorf("removed %v, %v, want %v", removed, err, want)
	}
	for _, path := range want {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if name := instanceName(4194304); filepath.Base(where[0].name("demo-", 4194304)) != name || len(name) > 32 {
		t.Errorf("instance %q", name)
	}
	for _, path := range []string{
		pins + "/demo-12-" + mark(12), pins + "/default", pins + "/demo-11", pins + "/_new_demo-11", pins + "/demo-11-" + mark(12), pins + "/demo-11-",
		pins + "/demo-011-" + mark(11), pins + "/demo-11-" + mark(11) + "0", temporary + "/demo-11",
	} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s is gone: it belongs to somebody else", path)
		}
	}
	if dead(1) || !dead(os.Getpid()) {
		t.Error("process 1 lives; what carries our own id is left by another process")
	}
}
