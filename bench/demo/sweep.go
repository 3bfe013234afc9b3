package demo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// traces says where demos leave something outside their own process, as directories that hold an entry for each demo, whose
// name is one of the prefixes and the process id.
type traces struct {
	dir      string
	prefixes []string
}

// everywhere lists all traces: pins (which forward packets until they are removed), runtime directories, temporary ones.
func everywhere() []traces {
	return []traces{
		{"/sys/fs/bpf/tandem", []string{instancePrefix, "_new_" + instancePrefix}},
		{"/run/tandem", []string{instancePrefix}},
		{os.TempDir(), []string{temporaryPrefix}},
	}
}

const (
	instancePrefix  = "demo-"
	temporaryPrefix = "tandem-demo-"
)

// sweep removes what demos of these processes left behind, and returns the paths.
func sweep(where []traces, gone func(pid int) bool) ([]string, error) {
	var removed []string
	var errs []error
	for _, t := range where {
		entries, err := os.ReadDir(t.dir)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sweep: %w", err))
			continue
		}
		for _, entry := range entries {
			if pid, ok := demoPID(entry.Name(), t.prefixes); !ok || !gone(pid) {
				continue
			}
			path := filepath.Join(t.dir, entry.Name())
			if err := os.RemoveAll(path); err != nil && !errors.Is(err, os.ErrPermission) {
				errs = append(errs, fmt.Errorf("sweep: %w", err))
			} else if err == nil { // another user's demo stays
				removed = append(removed, path)
			}
		}
	}
	return removed, errors.Join(errs...)
}

// demoPID reads the process id from a name.
func demoPID(name string, prefixes []string) (int, bool) {
	for _, prefix := range prefixes {
		if digits, ok := strings.CutPrefix(name, prefix); ok {
			pid, err := strconv.Atoi(digits)
			return pid, err == nil && pid > 0
		}
	}
	return 0, false
}

// dead reports whether no other process with that id runs: nothing of a demo that runs is touched. One that only waits for
// its parent to notice is dead.
func dead(pid int) bool {
	if pid == os.Getpid() {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH)
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z")
}

// own reports whether the id is this process's.
func own(pid int) bool { return pid == os.Getpid() }
