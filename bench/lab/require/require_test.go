package require

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

func TestDemanded(t *testing.T) {
	tests := []struct {
		list, capability string
		want             bool
		why              string
	}{
		{"", "root", false, "nothing is demanded by default"},
		{"root", "root", true, "one word"},
		{"bpf, root ,sipp", "root", true, "spaces do not matter"},
		{"rooted", "root", false, "whole words only"},
	}
	for _, test := range tests {
		if got := Demanded(test.list, test.capability); got != test.want {
			t.Errorf("Demanded(%q, %q) = %v: %s", test.list, test.capability, got, test.why)
		}
	}
}

// verdict notes how a test would have ended.
type verdict struct {
	testing.TB
	text string
}

func (v *verdict) Helper() {}
func (v *verdict) Fatalf(format string, args ...any) {
	v.text = "fatal: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}
func (v *verdict) Skipf(format string, args ...any) {
	v.text = "skip: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestTool(t *testing.T) {
	tests := []struct{ name, demand, tool, want string }{
		{"present", "", "go", ""},
		{"absent", "", "no-such-tool", `skip: SKIPPED FOR WANT OF NO-SUCH-TOOL: exec: "no-such-tool": executable file not found in $PATH`},
		{"absent but demanded", "root,no-such-tool", "no-such-tool", `fatal: MISSING no-such-tool (demanded by TANDEM_REQUIRE): exec: "no-such-tool": executable file not found in $PATH`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv(Variable, test.demand)
			noted := filepath.Join(t.TempDir(), "skips")
			t.Setenv(LogVariable, noted)
			v := &verdict{TB: t}
			done := make(chan struct{})
			go func() { defer close(done); Tool(v, test.tool) }()
			<-done
			if v.text != test.want {
				t.Errorf("ended with %q, want %q", v.text, test.want)
			}
			log, err := os.ReadFile(noted)
			if skipped := strings.HasPrefix(test.want, "skip:"); skipped != (err == nil) || skipped && !strings.HasPrefix(string(log), t.Name()+": for want of "+test.tool) {
				t.Errorf("noted %q, %v", log, err)
			}
		})
	}
}

func TestPinDir(t *testing.T) {
	Root(t)
	var dir string
	t.Run("while the test runs", func(t *testing.T) {
		dir = PinDir(t)
		array, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer array.Close()
		if err := array.Pin(filepath.Join(dir, "array")); err != nil {
			t.Error(err)
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("after the test: %v, want the directory gone", err)
	}
}
