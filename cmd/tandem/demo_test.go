package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/tandem-relay/tandem/cmd/internal/exit"
)

// TestDemoUsage gives the demo command lines that it must refuse in words, and with an object where one was asked for.
func TestDemoUsage(t *testing.T) {
	tests := []struct {
		args []string
		want string
		code exit.Code
	}{
		{[]string{"--seconds", "soon"}, `--seconds is "soon": want a whole number`, exit.Usage},
		{[]string{"--seconds", "0"}, "--seconds is 0: want 1 to 3600", exit.Usage},
		{[]string{"--calls", "1.5"}, `--calls is "1.5": want a whole number`, exit.Usage},
		{[]string{"--calls", "-1"}, "--calls is -1: want 1 to 1000", exit.Usage},
		{[]string{"--dataplane", "dpdk"}, `--dataplane is "dpdk": want xdp or userspace`, exit.Usage},
		{[]string{"now"}, `demo takes flags only, not "now"`, exit.Usage},
		{[]string{"--socket", "/run/x"}, "--socket does not go with demo", exit.Usage},
		{[]string{"--dataplane", "userspace", "--tandemd", "/nonexistent"}, "there is no daemon at /nonexistent", exit.Failure},
	}
	for _, test := range tests {
		for _, object := range []bool{false, true} {
			args := append([]string{"demo"}, test.args...)
			if object {
				args = append([]string{"demo", "--json"}, test.args...)
			}
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), args, &stdout, &stderr)
			if code != test.code || !strings.Contains(stderr.String(), test.want) {
				t.Errorf("%v: exit %d, stderr %q, want %d and %q", args, code, stderr.String(), test.code, test.want)
			}
			if !object {
				if stdout.Len() > 0 {
					t.Errorf("%v: stdout %q", args, stdout.String())
				}
				continue
			}
			var result struct {
				OK    *bool
				Error string
				Lost  *uint64
			}
			if err := json.Unmarshal(stdout.Bytes(), &result); err != nil || result.OK == nil || *result.OK || result.Lost == nil || !strings.Contains(result.Error, test.want) {
				t.Errorf("%v: stdout %q, %v", args, stdout.String(), err)
			}
		}
	}
}
