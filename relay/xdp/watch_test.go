package xdp_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/relaytest"
)

// cut deletes a side's cable, as ip link del does.
func (r *rig) cut(side string) {
	r.t.Helper()
	link, err := r.relay.Handle().LinkByName(side)
	must(r.t, err)
	must(r.t, r.relay.Handle().LinkDel(link))
}

// mend makes it again under the same names and addresses.
func (r *rig) mend(side string, reception lab.Reception) {
	r.t.Helper()
	near, far := r.ends(side, reception)
	must(r.t, r.lab.Connect(far, near))
}

// warned waits until a warning contains the text, or if not wanted until none does.
func (r *rig) warned(text string, want bool) {
	r.t.Helper()
	eventually(r.t, "a warning with "+text, func() bool {
		return strings.Contains(strings.Join(r.plane.Warnings(), "\n"), text) == want
	})
}

// backInXDP waits until packets are forwarded each way, by XDP.
func (c *call) backInXDP() {
	c.t.Helper()
	eventually(c.t, "XDP forwards again", func() bool {
		before := []uint64{c.flow(c.id, c.atOut).Packets[relay.PathXDP], c.flow(c.id, c.atIn).Packets[relay.PathXDP]}
		return arrives(c.caller, c.atOut, c.callee) && arrives(c.callee, c.atIn, c.caller) &&
			c.flow(c.id, c.atOut).Packets[relay.PathXDP] > before[0] && c.flow(c.id, c.atIn).Packets[relay.PathXDP] > before[1]
	})
}

// slow exchanges packets that only the slow path takes.
func (c *call) slow() {
	c.t.Helper()
	passes(c.t, c.caller, c.atOut, c.callee, c.atIn, relaytest.STUN())
	passes(c.t, c.callee, c.atIn, c.caller, c.atOut, relaytest.STUN())
}

// TestInterfaceRecreated: an interface that is deleted is missed, and one that takes its name is used by XDP again, for the
// calls that went on meanwhile, too. So every time.
func TestInterfaceRecreated(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	c := r.newCall("survivor", 0)
	c.apply()
	c.backInXDP()
	c.slow()
	pin := filepath.Join(bpf.DefaultRoot, r.instance, "link_native_"+relaytest.Inside)
	for round := range uint16(3) {
		r.cut(relaytest.Inside)
		r.warned("interface inside is gone", true)
		r.warned("media address "+c.atIn.Addr().String(), true)
		eventually(t, "the pin of the dead link is removed", func() bool {
			_, err := os.Stat(pin)
			return os.IsNotExist(err)
		})
		if w := r.plane.Warnings(); len(w) != 2 {
			t.Errorf("warnings %q", w)
		}
		r.mend(relaytest.Inside, lab.XDPPass)
		eventually(t, "all warnings end", func() bool { return len(r.plane.Warnings()) == 0 })
		c.backInXDP()
		c.backInXDP()
		c.slow()
		next := r.newCall("later", 1)
		next.generation = uint32(round) * 2
		next.apply()
		next.backInXDP()
		must(t, r.plane.Apply(t.Context(), next.id, next.generation+1, nil))
	}
	if _, err := os.Stat(pin); err != nil {
		t.Errorf("the new link is not pinned: %v", err)
	}
	// The successor finds what it needs.
	must(t, r.plane.Close())
	r.start()
	result, err := r.plane.Adopt(t.Context(), []relay.Compiled{c.compiled()})
	must(t, err)
	if result.Kept != 2 {
		t.Errorf("adoption %+v", result)
	}
	c.byXDP(9)
}

// TestInterfaceReplacedAtOnce: nobody need see the gap; nor that the new interface has the old one's index.
func TestInterfaceReplacedAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	c := r.newCall("blink", 0)
	c.apply()
	c.backInXDP()
	for range 5 {
		r.cut(relaytest.Inside)
		r.mend(relaytest.Inside, lab.XDPPass)
		c.backInXDP()
		eventually(t, "all warnings end", func() bool { return len(r.plane.Warnings()) == 0 })
	}
}

// TestInterfaceRecreatedDeaf: where the new peer takes no redirected frames, calls go on by the slow path, and the plane says
// so until it does.
func TestInterfaceRecreatedDeaf(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	c := r.newCall("deaf", 0)
	c.apply()
	c.backInXDP()
	r.cut(relaytest.Inside)
	r.warned("interface inside is gone", true)
	r.mend(relaytest.Inside, lab.Bare)
	r.warned("interface inside cannot be used by XDP", true)
	r.warned("needs a native XDP program or GRO", true)
	r.warned("is gone", false)
	before := r.flow(c.id, c.atOut).Packets
	eventually(t, "the slow path carries the call", func() bool { return arrives(c.caller, c.atOut, c.callee) })
	for range 10 {
		passes(t, c.caller, c.atOut, c.callee, c.atIn, relaytest.RTP(1, 160))
		passes(t, c.callee, c.atIn, c.caller, c.atOut, relaytest.RTP(1, 160))
	}
	if after := r.flow(c.id, c.atOut).Packets; after[relay.PathXDP] != before[relay.PathXDP] || after[relay.PathSlow] < before[relay.PathSlow]+10 {
		t.Errorf("packets %v, before %v", after, before)
	}
	r.warned("interface inside cannot be used by XDP", true) // however often it was tried meanwhile
	// Cured as the warning says. Nobody reports that to the plane: it tries by itself.
	attachPass(t, r.hosts[relaytest.Inside], "veth0")
	eventually(t, "all warnings end", func() bool { return len(r.plane.Warnings()) == 0 })
	c.backInXDP()
}

// attachPass attaches a native XDP program that passes everything.
func attachPass(t *testing.T, ns *lab.Namespace, name string) {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "Apache-2.0", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	must(t, err)
	defer func() { _ = prog.Close() }()
	index, err := ns.Ifindex(name)
	must(t, err)
	must(t, ns.Do(func() error {
		l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: index, Flags: link.XDPDriverMode})
		if err == nil {
			t.Cleanup(func() { _ = l.Close() })
		}
		return err
	}))
}

// TestInterfaceDown: an interface without carrier, and one that is down, are named while they are.
func TestInterfaceDown(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	c := r.newCall("down", 0)
	c.apply()
	c.backInXDP()
	for _, tt := range []struct {
		name, warning, link string
		ns                  *lab.Namespace
	}{
		{"the far end", "interface inside has no carrier", "veth0", r.hosts[relaytest.Inside]},
		{"our end", "interface inside is down", relaytest.Inside, r.relay},
	} {
		must(t, tt.ns.LinkDown(tt.link))
		r.warned(tt.warning, true)
		must(t, tt.ns.LinkUp(tt.link))
		eventually(t, tt.name+": all warnings end", func() bool { return len(r.plane.Warnings()) == 0 })
		c.backInXDP()
	}
}

// TestMediaAddressRemoved: a media address that is taken away is named, and works once it is back.
func TestMediaAddressRemoved(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	c := r.newCall("homeless", 0)
	c.apply()
	c.backInXDP()
	prefix := netip.PrefixFrom(c.atIn.Addr(), 24)
	must(t, r.relay.DelAddr(relaytest.Inside, prefix))
	r.warned("media address "+prefix.Addr().String()+" does not exist", true)
	must(t, r.relay.AddAddr(relaytest.Inside, prefix))
	eventually(t, "all warnings end", func() bool { return len(r.plane.Warnings()) == 0 })
	c.backInXDP()
	c.slow()
}

// TestDetachedByStranger: a link that somebody detached is put back.
func TestDetachedByStranger(t *testing.T) {
	t.Parallel()
	r := newRig(t, ipv4(), lab.XDPPass).start()
	c := r.newCall("detached", 0)
	c.apply()
	c.backInXDP()
	l, err := link.LoadPinnedLink(filepath.Join(bpf.DefaultRoot, r.instance, "link_native_"+relaytest.Inside), nil)
	must(t, err)
	defer func() { _ = l.Close() }()
	must(t, l.Detach())
	passes(t, c.callee, c.atIn, c.caller, c.atOut, relaytest.RTP(1, 160))
	r.nudge()
	c.backInXDP()
	eventually(t, "all warnings end", func() bool { return len(r.plane.Warnings()) == 0 })
}

// nudge makes the kernel report a change of an interface of no concern.
func (r *rig) nudge() {
	r.t.Helper()
	must(r.t, r.relay.AddAddr("lo", netip.MustParsePrefix("10.99.0.1/32")))
}
