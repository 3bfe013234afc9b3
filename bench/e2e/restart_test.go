package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab/require"
)

// TestDaemonDies ends the daemon in the middle of a call and starts it again: no packet may be missing, and the BYE of
// the other side must find its dialog.
func TestDaemonDies(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			h := build(t)
			require.Tool(t, "sipp")
			d := h.start(t, phonesAndPBX)
			heard := counting(t, h.phone, "udp dport 6000")
			uas := startSipp(t, h.pbx, "uas", "-sf", scenario(t, "uas_challenge_183.xml"), "-i", pbxIP, "-p", "5060",
				"-mi", pbxIP, "-mp", "7000", "-rtp_echo", "-m", "1")
			listening(t, h.pbx, 5060)
			uac := startSipp(t, h.phone, "uac", "-sf", scenario(t, "uac_auth_pcap.xml"), "-i", phoneIP, "-p", "5062",
				"-mi", phoneIP, "-mp", "6000", "-s", "bob", "-m", "1", outsideIP+":5060")
			eventually(t, 15*time.Second, "the phone hears the far side", func() error {
				if n := heard(); n < 20 {
					return fmt.Errorf("%d packets", n)
				}
				return nil
			})
			before, err := d.sessions()
			must(t, err)

			d.signal(sig)
			dead := heard()
			eventually(t, 10*time.Second, "media goes on without a daemon", func() error {
				if n := heard(); n < dead+50 {
					return fmt.Errorf("%d packets since", n-dead)
				}
				return nil
			})
			d.launch()

			after, err := d.sessions()
			must(t, err)
			if len(after.Sessions) != 1 || after.Sessions[0].ID != before.Sessions[0].ID || after.Sessions[0].Call == nil {
				t.Fatalf("sessions after the restart: %+v", after)
			}
			for i, party := range after.Sessions[0].Parties {
				was, is := before.Sessions[0].Parties[i].Streams[0].Flows[0], party.Streams[0].Flows[0]
				if is.Learnt != was.Learnt || is.Learnt == "" || is.Packets["xdp"] < was.Packets["xdp"]+50 {
					t.Errorf("party %s: learnt endpoint or counters were lost\nbefore %+v\nafter  %+v", party.ID, was, is)
				}
			}
			uac.done(40 * time.Second)
			uas.done(10 * time.Second)
			if n := heard(); n != pcapPackets {
				t.Errorf("the phone heard %d of its %d echoed packets", n, pcapPackets)
			}
			d.empty()
		})
	}
}

// pins are the names below the instance's directory in the BPF file system.
func pins(instance string) []string {
	entries, err := os.ReadDir(filepath.Join("/sys/fs/bpf/tandem", instance))
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestWaysToAnEmptyKernel walks through stop, cleanup, stop --release, and the guards in front of them.
func TestWaysToAnEmptyKernel(t *testing.T) {
	h := build(t)
	d := h.start(t, phonesAndPBX)
	if len(pins(d.instance)) == 0 {
		t.Fatal("nothing is pinned while the daemon runs")
	}
	if out, err := d.tandem("cleanup"); err == nil {
		t.Errorf("cleanup did its work under a living daemon: %s", out)
	}
	second := start2(t, h, d)
	if !strings.Contains(second, fmt.Sprintf("process %d", d.cmd.Process.Pid)) || !strings.Contains(second, d.instance) {
		t.Errorf("a second process of the instance said: %s", second)
	}

	if out, err := d.tandem("stop"); err != nil {
		t.Fatalf("stop: %v\n%s", err, out)
	}
	<-d.exited
	if len(pins(d.instance)) == 0 {
		t.Fatal("stop emptied the kernel; only stop --release may")
	}
	if out, err := d.tandem("status"); err == nil || !strings.Contains(out, d.instance) {
		t.Errorf("status without a daemon: %v: %s", err, out)
	}
	if out, err := d.tandem("cleanup"); err != nil {
		t.Fatalf("cleanup: %v\n%s", err, out)
	}
	if left := pins(d.instance); left != nil {
		t.Errorf("cleanup left %v", left)
	}

	d.launch()
	if out, err := d.tandem("stop", "--release"); err != nil {
		t.Fatalf("stop --release: %v\n%s", err, out)
	}
	<-d.exited
	if left := pins(d.instance); left != nil {
		t.Errorf("stop --release left %v", left)
	}
	attached := ""
	must(t, h.tandem.Do(func() error {
		for _, name := range []string{"out0", "in0"} {
			link, err := h.tandem.Handle().LinkByName(name)
			if err != nil {
				return err
			}
			if xdp := link.Attrs().Xdp; xdp != nil && xdp.Attached {
				attached += " " + name
			}
		}
		return nil
	}))
	if attached != "" {
		t.Errorf("XDP is still attached to%s", attached)
	}
}

// start2 starts a second process of the same instance, which must refuse, and returns what it said.
func start2(t *testing.T, h *house, d *daemon) string {
	t.Helper()
	other := *d
	other.log = &buffer{}
	cmd := command(t, "tandemd", d.runtime, "--config", d.config)
	cmd.Stdout, cmd.Stderr = other.log, other.log
	must(t, h.tandem.Start(cmd))
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a second process of the instance ended with status 0")
		}
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		t.Error("a second process of the instance went on running")
	}
	return other.log.String()
}

// TestDrain refuses new calls and lets the one in progress end by itself.
func TestDrain(t *testing.T) {
	h := build(t)
	require.Tool(t, "sipp")
	d := h.start(t, phonesAndPBX)
	uas := startSipp(t, h.pbx, "uas", "-sf", scenario(t, "uas_challenge_183.xml"), "-i", pbxIP, "-p", "5060", "-mi", pbxIP,
		"-mp", "7000", "-rtp_echo", "-m", "1")
	listening(t, h.pbx, 5060)
	uac := startSipp(t, h.phone, "uac", "-sf", scenario(t, "uac_auth_pcap.xml"), "-i", phoneIP, "-p", "5062", "-mi", phoneIP,
		"-mp", "6000", "-s", "bob", "-m", "1", outsideIP+":5060")
	eventually(t, 15*time.Second, "a call is up", func() error {
		s, err := d.sessions()
		if err != nil {
			return err
		}
		if len(s.Sessions) != 1 || s.Sessions[0].Call == nil || s.Sessions[0].Call.AnsweredAt == nil {
			return errors.New("not yet")
		}
		return nil
	})
	if out, err := d.tandem("drain"); err != nil {
		t.Fatalf("drain: %v\n%s", err, out)
	}
	h.expect(t, h.nat, natIP, invite("refused", "carol"), "SIP/2.0 503 ")
	if s, err := d.status(); err != nil || !s.Draining || s.Calls != 1 {
		t.Errorf("status while draining: %v: draining %v, %d calls", err, s.Draining, s.Calls)
	}
	uac.done(40 * time.Second)
	uas.done(10 * time.Second)
	if out, err := d.tandem("drain", "--wait"); err != nil {
		t.Errorf("drain --wait with no call left: %v\n%s", err, out)
	}
	if out, err := d.tandem("drain", "--off"); err != nil {
		t.Fatalf("drain --off: %v\n%s", err, out)
	}
	d.empty()
}

// TestSideBySide runs two instances on one kernel; emptying one leaves the other alone.
func TestSideBySide(t *testing.T) {
	one, two := build(t), build(t)
	a, b := one.start(t, phonesAndPBX), two.start(t, phonesAndPBX)
	if out, err := a.tandem("stop", "--release"); err != nil {
		t.Fatalf("stop --release: %v\n%s", err, out)
	}
	<-a.exited
	if pins(a.instance) != nil || len(pins(b.instance)) == 0 {
		t.Errorf("pins after the release of one: %v and %v", pins(a.instance), pins(b.instance))
	}
	if _, err := b.status(); err != nil {
		t.Errorf("the other instance: %v", err)
	}
}
