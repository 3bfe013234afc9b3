package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const mountPoint = "/sys/fs/bpf"

// Names of pins. The BPF file system refuses dots.
const (
	pinRelay      = "program_relay"
	pinSteer      = "program_steer"
	pinLookup     = "link_lookup"
	prefixMap     = "map_"
	prefixIndex   = "index_"
	prefixNative  = "link_native_"
	prefixGeneric = "link_generic_"
)

func temporary(instance string) string { return "_new_" + instance }

func escape(name string) string {
	return strings.NewReplacer("%", "%25", ".", "%2e").Replace(name)
}

func unescape(name string) string {
	return strings.NewReplacer("%25", "%", "%2e", ".").Replace(name)
}

// lockRoot makes the root directory, on a BPF file system that it mounts if need be, and locks it against other processes.
func lockRoot(root string) (unlock func(), err error) {
	if err := ensureRoot(root); err != nil {
		return nil, err
	}
	f, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", root, err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", root, err)
	}
	return func() { _ = f.Close() }, nil
}

func ensureRoot(root string) error {
	if !filepath.IsAbs(root) {
		return fmt.Errorf("pin directory %s: want an absolute path", root)
	}
	mounted, err := onBPFFS(root)
	if err != nil {
		return err
	}
	if !mounted {
		if root != mountPoint && !strings.HasPrefix(root, mountPoint+"/") {
			return fmt.Errorf("pin directory %s is not on a BPF file system; mount one there: mount -t bpf bpf DIRECTORY", root)
		}
		if privateMounts() {
			return fmt.Errorf("%s is no BPF file system, and this process has a mount namespace of its own (as under ip netns exec), with which one mounted now "+
				"would end: start it by nsenter --net=/run/netns/NAME instead, or mount one that stays: mount -t bpf bpf %s", mountPoint, mountPoint)
		}
		if err := unix.Mount("bpf", mountPoint, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
			return fmt.Errorf("mount BPF file system on %s (as root: mount -t bpf bpf %s): %w", mountPoint, mountPoint, err)
		}
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return fmt.Errorf("make pin directory: %w", err)
	}
	return nil
}

// privateMounts reports whether the process does not share its mounts with the first process or, where that one may not be looked at,
// with its parent.
func privateMounts() bool {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return false
	}
	for _, pid := range []int{1, os.Getppid()} {
		if other, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid)); err == nil {
			return other != own
		}
	}
	return false
}

// onBPFFS looks at the nearest directory that exists.
func onBPFFS(path string) (bool, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		if err == nil {
			return st.Type == unix.BPF_FS_MAGIC, nil
		}
		if !errors.Is(err, unix.ENOENT) || path == "/" {
			return false, fmt.Errorf("look at pin directory %s: %w", path, err)
		}
		path = filepath.Dir(path)
	}
}

func isDir(path string) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	return info.IsDir(), nil
}

// removePins detaches the links that are pinned in dir, then removes dir with everything in it.
func removePins(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), "link_") {
			if err := detachPin(path); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove pin: %w", err))
		}
	}
	if len(errs) == 0 {
		if err := os.Remove(dir); err != nil {
			errs = append(errs, fmt.Errorf("remove pin directory: %w", err))
		}
	}
	return errors.Join(errs...)
}

// detachPin detaches a pinned link even if another process holds it open.
func detachPin(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return fmt.Errorf("open pinned link %s: %w", path, err)
	}
	defer func() { _ = l.Close() }()
	// A link whose interface or namespace is gone has nothing left to detach.
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("detach %s: %w", path, err)
	}
	if err := l.Unpin(); err != nil {
		return fmt.Errorf("remove pin %s: %w", path, err)
	}
	return nil
}

// netnsCookie names the calling thread's network namespace; cookies are never used twice.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("read network namespace cookie: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read network namespace cookie: %w", err)
	}
	return cookie, nil
}
