package xdp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/relaytest"
	"github.com/tandem-relay/tandem/relay/xdp"
)

// TestAdoptAfterClose: a new process finds everything again while packets flow: records, counters, what was learnt in
// whatever way, and what nobody claims any more.
func TestAdoptAfterClose(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	kept, open, changed, orphan := r.newCall("kept", 0), r.newCall("open", 1), r.newCall("changed", 2), r.newCall("orphan", 3)
	open.out.Accept = relay.AcceptSet{Any: true}
	open.in.Outputs[0].To = netip.AddrPort{}
	for _, c := range []*call{kept, open, changed, orphan} {
		c.apply()
		passes(t, c.caller, c.atOut, c.callee, c.atIn, relaytest.RTP(1, 160))
		passes(t, c.callee, c.atIn, c.caller, c.atOut, relaytest.RTP(1, 160))
	}
	eventually(t, "the open call is handed over", func() bool {
		passes(t, open.caller, open.atOut, open.callee, open.atIn, relaytest.RTP(2, 160))
		return r.flow("open", open.atOut).Packets[relay.PathXDP] > 0
	})
	before := map[netip.AddrPort]relay.Flow{}
	for _, c := range []*call{kept, open, changed} {
		before[c.atOut], before[c.atIn] = r.flow(c.id, c.atOut), r.flow(c.id, c.atIn)
	}
	streams := []*stream{
		startStream(kept.caller, kept.atOut, kept.callee, time.Millisecond),
		startStream(kept.callee, kept.atIn, kept.caller, time.Millisecond),
		startStream(open.caller, open.atOut, open.callee, time.Millisecond),
		startStream(open.callee, open.atIn, open.caller, time.Millisecond),
	}
	must(t, r.plane.Close())
	r.attached(t, true)
	r.start()
	changed.generation++
	changed.out.Action = relay.Hold
	missing := r.newCall("missing", 9)
	missing.generation = 3
	result, err := r.plane.Adopt(context.Background(), []relay.Compiled{
		kept.compiled(), open.compiled(), changed.compiled(), missing.compiled(),
	})
	must(t, err)
	if want := (relay.Adoption{Kept: 4, Written: 4, Removed: 2}); !reflect.DeepEqual(result, want) {
		t.Errorf("adoption %+v, want %+v", result, want)
	}
	for _, s := range streams {
		s.end().intact(t)
	}
	for _, c := range []*call{kept, open, changed} {
		for _, local := range []netip.AddrPort{c.atOut, c.atIn} {
			f := r.flow(c.id, local)
			if f.Learnt != before[local].Learnt || !f.Learnt.IsValid() || f.Packets[relay.PathXDP] < before[local].Packets[relay.PathXDP] {
				t.Errorf("%s %s: %+v, before %+v", c.id, local, f, before[local])
			}
		}
	}
	kept.byXDP(3)
	open.byXDP(3)
	missing.byXDP(3)
	_, err = changed.caller.WriteToUDPAddrPort(relaytest.RTP(4, 160), changed.atOut)
	must(t, err)
	_, err = orphan.caller.WriteToUDPAddrPort(relaytest.RTP(4, 160), orphan.atOut)
	must(t, err)
	eventually(t, "held and orphaned packets are dropped", func() bool { return r.reason("held") == 1 && r.reason("no_session") == 1 })
	quiet(t, changed.callee, orphan.callee)
	// What was adopted goes on to be changed as ever; a new window forgets.
	kept.out.Window++
	kept.apply()
	nat := r.party(relaytest.Outside, 0)
	passes(t, nat, kept.atOut, kept.callee, kept.atIn, relaytest.RTP(5, 160))
	passes(t, kept.callee, kept.atIn, nat, kept.atOut, relaytest.RTP(5, 160))
}

// TestAdoptTwice: nothing is left of a plane that was closed many times, and slots are not lost.
func TestAdoptTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass)
	r.records = 32
	r.start()
	c := r.newCall("again", 0)
	c.apply()
	for i := range uint16(12) {
		c.exchange(i)
		must(t, r.plane.Close())
		r.start()
		compiled := c.compiled()
		if i%2 == 1 {
			c.out.Window++ // the next adoption writes it
			compiled = c.compiled()
		}
		result, err := r.plane.Adopt(context.Background(), []relay.Compiled{compiled})
		must(t, err)
		if result.Kept+result.Written != 2 || (result.Kept == 2) != (i%2 == 0) {
			t.Errorf("round %d: %+v", i, result)
		}
	}
	c.byXDP(99)
	if _, err := r.plane.Adopt(context.Background(), nil); err == nil {
		t.Error("a second adoption was not refused")
	}
}

const childVariable = "TANDEM_XDP_TEST_CHILD"

// child is what the process to be killed needs to know.
type child struct {
	Instance string
	Networks []xdp.Network
	Sessions []relay.Compiled
}

// TestKilledChild is not a test: it is the daemon that TestAdoptAfterKill kills.
func TestKilledChild(t *testing.T) {
	text := os.Getenv(childVariable)
	if text == "" {
		return
	}
	var c child
	must(t, json.Unmarshal([]byte(text), &c))
	maps, _, err := bpf.Open(bpf.Options{Instance: c.Instance, Records: 4096})
	must(t, err)
	plane, err := xdp.New(context.Background(), xdp.Config{Maps: maps, Networks: c.Networks})
	must(t, err)
	for _, s := range c.Sessions {
		must(t, plane.Apply(context.Background(), s.ID, s.Generation, s.Records))
	}
	_, _ = os.Stdout.WriteString("ready\n")
	select {}
}

// TestAdoptAfterKill: a daemon that was killed in the middle of everything leaves XDP forwarding, and its successor adopts.
func TestAdoptAfterKill(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass)
	c := r.newCall("survivor", 0)
	c.generation = 1
	text, err := json.Marshal(child{r.instance, r.networks(), []relay.Compiled{c.compiled()}})
	must(t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledChild$")
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, r.relay.Start(cmd))
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("child said %q, %v", line, err)
	}
	passes(t, c.caller, c.atOut, c.callee, c.atIn, relaytest.RTP(0, 160))
	passes(t, c.callee, c.atIn, c.caller, c.atOut, relaytest.RTP(0, 160))
	streams := []*stream{
		startStream(c.caller, c.atOut, c.callee, time.Millisecond),
		startStream(c.callee, c.atIn, c.caller, time.Millisecond),
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	r.start()
	result, err := r.plane.Adopt(context.Background(), []relay.Compiled{c.compiled()})
	must(t, err)
	if !reflect.DeepEqual(result, relay.Adoption{Kept: 2}) {
		t.Errorf("adoption %+v", result)
	}
	for _, s := range streams {
		s.end().intact(t)
	}
	c.byXDP(1)
	passes(t, c.caller, c.atOut, c.callee, c.atIn, relaytest.STUN())
}

// TestOrphan: without a daemon flows go on for the orphan time, not longer; nothing is punted to nobody, and the kernel does
// not answer for it.
func TestOrphan(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass)
	plane, err := r.try(func(c *xdp.Config) { c.Orphan = 1500 * time.Millisecond })
	must(t, err)
	r.plane = plane
	c := r.newCall("orphan", 0)
	c.apply()
	c.exchange(0)
	must(t, r.plane.Close())
	c.exchange(1)
	connected, err := r.hosts[relaytest.Outside].DialUDP(netip.AddrPort{}, c.atOut)
	must(t, err)
	defer connected.Close()
	_, err = connected.Write(relaytest.STUN())
	must(t, err)
	_ = connected.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := connected.Read(make([]byte, 10)); err == nil || !os.IsTimeout(err) {
		t.Errorf("what is punted without a daemon was answered: %v", err)
	}
	eventually(t, "the flow ends", func() bool { return !arrives(c.caller, c.atOut, c.callee) })
	r.start()
	if r.reason("orphaned") == 0 || r.reason("no_daemon") == 0 {
		t.Error("orphaned packets are not counted")
	}
}

// arrives sends a packet and reports whether it arrives.
func arrives(from *net.UDPConn, at netip.AddrPort, to *net.UDPConn) bool {
	if _, err := from.WriteToUDPAddrPort(relaytest.RTP(7, 160), at); err != nil {
		return false
	}
	_ = to.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	_, _, err := to.ReadFromUDPAddrPort(make([]byte, 2048))
	return err == nil
}
