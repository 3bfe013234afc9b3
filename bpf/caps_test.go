package bpf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// childVariable makes the test binary do one thing instead of the tests.
const childVariable = "TANDEM_BPF_TEST_CHILD"

func TestMain(m *testing.M) {
	var err error
	switch task := os.Getenv(childVariable); task {
	case "":
		os.Exit(m.Run())
	case "mount":
		err = mountsItself()
	case "private":
		err = refusesToMount()
	default:
		err = unprivileged(task)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// TestMount opens an instance where no BPF file system is mounted yet: one that would stay is mounted, and refused where it
// would end with the process's own mount namespace.
func TestMount(t *testing.T) {
	newSite(t)
	for task, flags := range map[string]uintptr{
		"mount":   unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID, // the child is the first process, so the mounts are the machine's
		"private": unix.CLONE_NEWNS | unix.CLONE_NEWNET,
	} {
		t.Run(task, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), childVariable+"="+task)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// noBPFFS takes the BPF file system out of the child's mounts.
func noBPFFS() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for unix.Unmount(mountPoint, unix.MNT_DETACH) == nil {
		// Whatever was mounted there.
	}
	if mounted, err := onBPFFS(mountPoint); err != nil || mounted {
		return fmt.Errorf("still mounted: %v, %w", mounted, err)
	}
	return nil
}

// refusesToMount is the child with mounts of its own.
func refusesToMount() error {
	if err := noBPFFS(); err != nil {
		return err
	}
	p, _, err := Open(Options{Records: 64})
	if err == nil {
		return errors.Join(errors.New("mounted a file system that ends with this process"), p.Release())
	}
	if !strings.Contains(err.Error(), "nsenter") {
		return fmt.Errorf("refused without saying what to do: %w", err)
	}
	return nil
}

// mountsItself is the child whose mounts are the machine's.
func mountsItself() error {
	if err := noBPFFS(); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	p, _, err := Open(Options{Records: 64})
	if err != nil {
		return err
	}
	if mounted, err := onBPFFS(mountPoint); err != nil || !mounted {
		return fmt.Errorf("not mounted: %w", err)
	}
	if names, err := Instances(""); err != nil || len(names) != 1 || names[0] != "default" {
		return fmt.Errorf("instances %v, %w", names, err)
	}
	return p.Release()
}

// TestCapabilities does everything as a user with CAP_BPF and CAP_NET_ADMIN and nothing else.
func TestCapabilities(t *testing.T) {
	s := newSite(t)
	// The way to the pins must be open to others.
	for dir := filepath.Dir(s.root); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		check(t, os.Chmod(dir, 0o755))
	}
	root := filepath.Join(s.root, "unprivileged")
	check(t, os.Mkdir(root, 0o700), os.Chown(root, 65534, 65534))
	binary := filepath.Join(filepath.Dir(s.root), "child")
	self, err := os.ReadFile("/proc/self/exe")
	check(t, err, os.WriteFile(binary, self, 0o755))
	for _, c := range []struct {
		name string
		caps []uintptr
		fine bool
	}{
		{"CAP_BPF and CAP_NET_ADMIN", []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN}, true},
		{"CAP_BPF alone", []uintptr{unix.CAP_BPF}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			cmd := exec.Command(binary)
			cmd.Dir = "/"
			cmd.Env = append(os.Environ(), childVariable+"="+root)
			cmd.Stdout, cmd.Stderr = &out, &out
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
				AmbientCaps: c.caps,
			}
			check(t, s.ns.Start(cmd))
			if err := cmd.Wait(); (err == nil) != c.fine {
				t.Errorf("%v: %s", err, out.String())
			}
			t.Log(strings.TrimSpace(out.String()))
		})
	}
}

// unprivileged is the child.
func unprivileged(root string) error {
	if os.Geteuid() == 0 {
		return errors.New("still root")
	}
	dev, err := net.InterfaceByName("eth0.7")
	if err != nil {
		return err
	}
	for range 2 {
		p, _, err := Open(Options{Root: root, Records: 64})
		if err != nil {
			return err
		}
		defer p.Close()
		if err := errors.Join(
			checkInstructions(p),
			p.Attach(dev.Index, dev.Name, ModeNative), p.AttachLookup(), p.AllowDevice(uint32(dev.Index)),
			p.OpenMedia(mediaAddr, PortRange{20000, 20009}), p.SetIndex(callerSide, 2),
			ProveEgress(uint32(dev.Index), dev.HardwareAddr),
			InjectPass(uint32(dev.Index), goodPacket().frame(), 1),
		); err != nil {
			return err
		}
		p.SetRole(Role{ForwardUntil: Never})
		p.SetDaemon(Never, Never)
		p.WriteNextHop(calleeHop, NextHop{Ifindex: uint32(dev.Index), MTU: 1500, From: mediaAddr, Valid: true})
		p.WriteRecord(2, sceneRecord())
		verdict, err := p.objects.TandemRelay.Run(&ebpf.RunOptions{Data: goodPacket().frame(), Repeat: 1})
		if err != nil || verdict != xdpRedirect {
			return fmt.Errorf("verdict %d, %w", verdict, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if p.Flow(callerFlow).Packets == 1 {
			if err := p.Events(ctx, func(Event) { cancel() }); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("event: %w", err)
			}
		}
		if _, err := p.Counters(); err != nil {
			return err
		}
	}
	return Cleanup(root, "")
}
