package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is an anonymous network namespace. Its methods may be called concurrently.
type Namespace struct {
	name   string
	host   bool // the process's own namespace
	fd     netns.NsHandle
	handle *netlink.Handle
	work   chan func()
	ended  chan struct{}
}

// newNamespace starts the thread that makes the namespace and stays in it, as the parent of everything started there.
func newNamespace(name string) (*Namespace, error) {
	ns := &Namespace{name: name, fd: netns.None(), work: make(chan func()), ended: make(chan struct{})}
	made := make(chan error)
	go ns.hold(made)
	if err := <-made; err != nil {
		return nil, err
	}
	if err := ns.setUp(); err != nil {
		return nil, errors.Join(err, ns.close())
	}
	return ns, nil
}

// newHost starts a thread for the namespace that the process is in already.
func newHost() *Namespace {
	ns := &Namespace{name: "host", host: true, fd: netns.None(), work: make(chan func()), ended: make(chan struct{})}
	made := make(chan error)
	go ns.hold(made)
	for range made { // there is no error: nothing is made
	}
	return ns
}

// hold is the namespace's own thread. It never unlocks it, so the thread ends with the goroutine.
func (ns *Namespace) hold(made chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread does not end with a goroutine, and /proc/self speaks of it. Keep it busy while another one is found.
		moved := make(chan struct{})
		go func() { close(moved); ns.hold(made) }()
		<-moved
		runtime.UnlockOSThread()
		return
	}
	defer close(ns.ended)
	if !ns.host {
		if err := ns.unshare(); err != nil {
			made <- err
			return
		}
	}
	close(made)
	for f := range ns.work {
		f()
	}
}

// unshare moves the calling thread into a new namespace.
func (ns *Namespace) unshare() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	fd, err := netns.Get()
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	ns.fd = fd
	return nil
}

func (ns *Namespace) setUp() error {
	handle, err := netlink.NewHandleAt(ns.fd, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	ns.handle = handle
	if err := ns.LinkUp("lo"); err != nil {
		return err
	}
	// Router solicitations and duplicate address detection would disturb counters. A kernel without IPv6 is fine too.
	if err := ns.Sysctl("net.ipv6.conf.default.disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// close ends the thread; the kernel then kills the children by their parent-death signal.
func (ns *Namespace) close() error {
	close(ns.work)
	<-ns.ended
	if ns.handle != nil {
		ns.handle.Close()
	}
	if ns.host {
		return nil
	}
	return ns.fd.Close()
}

// String returns the label.
func (ns *Namespace) String() string { return ns.name }

// FD is the open namespace, valid until the lab is closed; -1 for the host.
func (ns *Namespace) FD() int { return int(ns.fd) }

// Handle speaks netlink inside the namespace; nil for the host.
func (ns *Namespace) Handle() *netlink.Handle { return ns.handle }

// Do runs f on the calling goroutine with its thread moved into the namespace. Sockets that f opens stay in the
// namespace for good; goroutines that f starts do not. Inside f, /proc/thread-self/net and /proc/sys/net show the
// namespace; /proc/net and /sys/class/net do not.
func (ns *Namespace) Do(f func() error) error {
	if ns.host {
		return f()
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own namespace: %w", err)
	}
	defer func() { _ = home.Close() }()
	if err := netns.Set(ns.fd); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace %s: %w", ns.name, err)
	}
	defer func() {
		// A thread that cannot go home stays locked, and ends with this goroutine.
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// Start starts a program in the namespace. It sees the same file systems as this process, and is killed when the lab is
// closed or this process ends in whatever way. The caller waits for it.
func (ns *Namespace) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	result := make(chan error, 1)
	// The death signal belongs to the thread that forks, which is why this one does it.
	ns.work <- func() { result <- cmd.Start() }
	if err := <-result; err != nil {
		return fmt.Errorf("start in namespace %s: %w", ns.name, err)
	}
	return nil
}

// Run starts a program in the namespace, waits for it, and returns what it wrote to both outputs. The error of a program
// that failed ends with that text.
func (ns *Namespace) Run(cmd *exec.Cmd) (string, error) {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s in namespace %s: %w: %s", cmd.Args[0], ns.name, err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// NFT applies a ruleset with nft.
func (ns *Namespace) NFT(ruleset string) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(ruleset)
	_, err := ns.Run(cmd)
	return err
}

// Sysctl sets a variable of the namespace, named with dots ("net.ipv4.ip_forward").
func (ns *Namespace) Sysctl(name, value string) error {
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	return ns.Do(func() error { return os.WriteFile(path, []byte(value), 0) })
}

// ListenUDP opens a UDP socket in the namespace that can be used from anywhere. Port 0 lets the kernel choose.
func (ns *Namespace) ListenUDP(addr netip.AddrPort) (conn *net.UDPConn, err error) {
	err = ns.Do(func() error {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	})
	return conn, err
}

// DialUDP opens a connected UDP socket in the namespace that can be used from anywhere. A zero local address lets the
// kernel choose.
func (ns *Namespace) DialUDP(local, remote netip.AddrPort) (conn *net.UDPConn, err error) {
	var from *net.UDPAddr
	if local.IsValid() {
		from = net.UDPAddrFromAddrPort(local)
	}
	err = ns.Do(func() error {
		conn, err = net.DialUDP("udp", from, net.UDPAddrFromAddrPort(remote))
		return err
	})
	return conn, err
}
