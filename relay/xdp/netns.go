package xdp

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

const threadNamespace = "/proc/thread-self/ns/net"

// namespace is the network namespace in which the plane lives. Namespaces belong to threads.
type namespace struct{ file *os.File }

// currentNamespace returns that of the calling thread.
func currentNamespace() (*namespace, error) {
	f, err := os.Open(threadNamespace)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return &namespace{f}, nil
}

func (n *namespace) close() { _ = n.file.Close() }

// enter puts the calling goroutine into the namespace for the rest of its life; a thread that had to change ends with it. In
// a process that lives in one namespace it changes nothing and needs no privilege.
func (n *namespace) enter() error {
	runtime.LockOSThread()
	var here, there unix.Stat_t
	if err := unix.Stat(threadNamespace, &here); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", os.NewSyscallError("stat", err))
	}
	if err := unix.Fstat(int(n.file.Fd()), &there); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", os.NewSyscallError("fstat", err))
	}
	if here.Dev == there.Dev && here.Ino == there.Ino {
		runtime.UnlockOSThread()
		return nil
	}
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", os.NewSyscallError("setns", err))
	}
	return nil
}
