package slowpath

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

const threadNamespace = "/proc/thread-self/ns/net"

// namespace is the network namespace in which the path lives. Namespaces belong to threads, and a goroutine that
// sends may run on any of them.
type namespace struct {
	file     *os.File
	dev, ino uint64
}

// currentNamespace returns that of the calling thread.
func currentNamespace() (*namespace, error) {
	f, err := os.Open(threadNamespace)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		_ = f.Close()
		return nil, os.NewSyscallError("fstat", err)
	}
	return &namespace{file: f, dev: uint64(st.Dev), ino: st.Ino}, nil
}

// do calls fn on a thread in the namespace. In a process that lives in one namespace it changes nothing.
func (n *namespace) do(fn func() error) error {
	runtime.LockOSThread()
	var st unix.Stat_t
	if err := unix.Stat(threadNamespace, &st); err != nil {
		runtime.UnlockOSThread()
		return os.NewSyscallError("stat", err)
	}
	if uint64(st.Dev) == n.dev && st.Ino == n.ino {
		defer runtime.UnlockOSThread()
		return fn()
	}
	back, err := os.Open(threadNamespace)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() { _ = back.Close() }()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return os.NewSyscallError("setns", err)
	}
	err = fn()
	// A thread that cannot go back stays locked, and ends with its goroutine.
	if unix.Setns(int(back.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}
