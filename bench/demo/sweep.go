package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// traces says where demos leave something outside their own process, as directories that hold an entry for each demo, whose
// name is one of the prefixes, the process id, and the mark if there is one.
type traces struct {
	dir      string
	prefixes []string
	mark     func(pid int) string
}

func (t traces) name(prefix string, pid int) string {
	name := prefix + strconv.Itoa(pid)
	if t.mark != nil {
		name += "-" + t.mark(pid)
	}
	return name
}

// everywhere lists all traces: pins (which forward packets until they are removed), runtime directories, temporary ones.
func everywhere() []traces {
	return []traces{
		{"/sys/fs/bpf/tandem", []string{instancePrefix, "_new_" + instancePrefix}, mark},
		{"/run/tandem", []string{instancePrefix}, mark},
		{os.TempDir(), []string{temporaryPrefix}, nil},
	}
}

// instanceName is the instance of the demo of a process. An operator may call his "demo-7" too, and what it left forwarding is not
// ours to remove: the mark is what no name of his has.
func instanceName(pid int) string { return instancePrefix + strconv.Itoa(pid) + "-" + mark(pid) }

// mark follows from the process id and this boot of the machine, so that later demos know it without having been told.
func mark(pid int) string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		boot = nil // hidden from every demo alike
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "tandem demo %d %s", pid, boot))
	return hex.EncodeToString(sum[:6])
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
			if pid, ok := t.demoPID(entry.Name()); !ok || !gone(pid) {
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

// demoPID reads the process id from a name, which must be exactly that of a demo.
func (t traces) demoPID(name string) (int, bool) {
	for _, prefix := range t.prefixes {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			digits, _, _ := strings.Cut(rest, "-")
			pid, err := strconv.Atoi(digits)
			return pid, err == nil && pid > 0 && name == t.name(prefix, pid)
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
