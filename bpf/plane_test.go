package bpf

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
)

// site is a namespace with interfaces, and a directory for pins.
type site struct {
	ns    *lab.Namespace
	root  string
	eth0  int
	lab   *lab.Lab
	other *lab.Namespace
}

func newSite(t *testing.T) *site {
	t.Helper()
	l := require.Lab(t)
	s := &site{lab: l, root: require.PinDir(t)}
	var err error
	if s.ns, err = l.Namespace("tandem"); err != nil {
		t.Fatal(err)
	}
	if s.other, err = l.Namespace("other"); err != nil {
		t.Fatal(err)
	}
	if err := l.Connect(
		lab.End{Namespace: s.other, Name: "eth0"},
		lab.End{Namespace: s.ns, Name: "eth0.7", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}, Reception: lab.Bare},
	); err != nil {
		t.Fatal(err)
	}
	if s.eth0, err = s.ns.Ifindex("eth0.7"); err != nil {
		t.Fatal(err)
	}
	return s
}

// open opens an instance in the site's namespace and attaches it.
func (s *site) open(t *testing.T, instance string) (*Plane, bool) {
	t.Helper()
	p, adopted, err := openIn(s.ns, Options{Root: s.root, Instance: instance, Records: 64})
	if err != nil {
		t.Fatal(err)
	}
	return p, adopted
}

func (s *site) attach(t *testing.T, p *Plane, mode Mode) {
	t.Helper()
	err := s.ns.Do(func() error { return errors.Join(p.Attach(s.eth0, "eth0.7", mode), p.AttachLookup()) })
	if err != nil {
		t.Fatal(err)
	}
}

// empty requires that no instance left anything.
func (s *site) empty(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(s.root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			t.Errorf("%s is left", e.Name())
		}
	}
}

// attachedProgram tells which program the kernel runs on the interface; 0: none.
func (s *site) attachedProgram(t *testing.T) uint32 {
	t.Helper()
	dev, err := s.ns.Handle().LinkByIndex(s.eth0)
	if err != nil {
		t.Fatal(err)
	}
	if x := dev.Attrs().Xdp; x != nil && x.Attached {
		return x.ProgId
	}
	return 0
}

func programID(t *testing.T, p *ebpf.Program) uint32 {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return uint32(id)
}

// TestAdopt closes a plane and opens it again: everything is still there.
func TestAdopt(t *testing.T) {
	s := newSite(t)
	p, adopted := s.open(t, "one")
	if adopted {
		t.Error("a fresh instance is adopted")
	}
	s.attach(t, p, ModeNative)
	v6 := netip.MustParseAddr("2001:db8::1")
	for _, addr := range []netip.Addr{mediaAddr, v6} {
		if err := p.OpenMedia(addr, PortRange{20000, 20009}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.SetIndex(callerSide, 2); err != nil {
		t.Fatal(err)
	}
	p.WriteRecord(2, sceneRecord())
	p.WriteNextHop(calleeHop, NextHop{Ifindex: 3, DMAC: hopMAC, SMAC: ownMAC, MTU: 1400, From: mediaAddr, Valid: true})
	p.SetLatch(callerFlow, 1, 40000)
	p.SetRole(Role{ForwardUntil: 10, OwnUntil: 9, Epoch: 8, State: StateActive})
	hop, running := p.ReadNextHop(calleeHop), s.attachedProgram(t)
	if running == 0 {
		t.Fatal("not attached")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if got := s.attachedProgram(t); got != running {
		t.Errorf("after Close program %d is attached, want %d", got, running)
	}

	p, adopted = s.open(t, "one")
	if !adopted {
		t.Error("not adopted")
	}
	if got := p.ReadRecord(2); got != sceneRecord() {
		t.Errorf("record %+v", got)
	}
	if got := p.ReadNextHop(calleeHop); got != hop || got.MTU != 1400 {
		t.Errorf("next hop %+v", got)
	}
	if f := p.Flow(callerFlow); !f.Learnt || f.Port != 40000 || f.Window != 1 {
		t.Errorf("flow %+v", f)
	}
	if got := p.Role(); got != (Role{ForwardUntil: 10, OwnUntil: 9, Epoch: 8, State: StateActive}) {
		t.Errorf("role %+v", got)
	}
	if got := p.Media(); !slices.Equal(got, []netip.Addr{mediaAddr, v6}) {
		t.Errorf("media %v", got)
	}
	for local, want := range map[netip.AddrPort]uint32{
		callerSide:                            2,
		netip.AddrPortFrom(mediaAddr, 20009):  IndexEmpty,
		netip.AddrPortFrom(mediaAddr, 20010):  IndexOutside,
		netip.AddrPortFrom(v6, 20000):         IndexEmpty,
		netip.AddrPortFrom(callee.Addr(), 20): IndexOutside,
	} {
		if got := p.Index(local); got != want {
			t.Errorf("index of %s is %d, want %d", local, got, want)
		}
	}
	if got := p.Attached(); !slices.Equal(got, []string{"eth0.7"}) {
		t.Errorf("attached to %v", got)
	}
	s.attach(t, p, ModeNative)
	if got := s.attachedProgram(t); got != running {
		t.Errorf("program %d is attached, want %d: an equal one is not swapped", got, running)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if got := s.attachedProgram(t); got != 0 {
		t.Errorf("after Release program %d is attached", got)
	}
	s.empty(t)
}

// TestRanges changes the ranges of a media address that has a session.
func TestRanges(t *testing.T) {
	s := newSite(t)
	p, _ := s.open(t, "")
	defer p.Release()
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(mediaAddr, port) }
	if err := p.OpenMedia(mediaAddr, PortRange{100, 109}, PortRange{65535, 65535}); err != nil {
		t.Fatal(err)
	}
	for _, port := range []uint16{102, 109} {
		if err := p.SetIndex(at(port), 5); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.OpenMedia(mediaAddr, PortRange{104, 120}); err != nil {
		t.Fatal(err)
	}
	for port, want := range map[uint16]uint32{
		100: IndexOutside, 102: 5, 103: IndexOutside, 104: IndexEmpty, 109: 5, 120: IndexEmpty, 121: IndexOutside, 65535: IndexOutside,
	} {
		if got := p.Index(at(port)); got != want {
			t.Errorf("port %d: %d, want %d", port, got, want)
		}
	}
	if err := p.SetIndex(at(104), 64); err == nil {
		t.Error("a record beyond the pool is accepted")
	}
	if err := p.CloseMedia(mediaAddr); err != nil {
		t.Fatal(err)
	}
	if err := p.SetIndex(at(104), 3); !errors.Is(err, ErrNoMedia) {
		t.Errorf("after CloseMedia: %v", err)
	}
	if err := p.CloseMedia(mediaAddr); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	for _, bad := range []string{"0.0.0.0", "::", "fe80::1%eth0"} {
		if err := p.OpenMedia(netip.MustParseAddr(bad)); !errors.Is(err, ErrNoMedia) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// older swaps in a program that differs from the built one, as if an earlier build had left it.
func older(t *testing.T, p *Plane) *ebpf.Program {
	t.Helper()
	spec, err := specification(64)
	if err != nil {
		t.Fatal(err)
	}
	prog := spec.Programs[relayProgTandemRelay]
	// Behind the first instruction, which holds the function's metadata.
	prog.Instructions = slices.Insert(prog.Instructions, 1, asm.Mov.Imm(asm.R0, 0))
	spec.Programs = map[string]*ebpf.ProgramSpec{relayProgTandemRelay: prog}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: p.maps()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	old := c.Programs[relayProgTandemRelay]
	for _, l := range p.links {
		if err := l.Update(old); err != nil {
			t.Fatal(err)
		}
	}
	if err := replacePin(filepath.Join(p.dir, pinRelay), old); err != nil {
		t.Fatal(err)
	}
	return old
}

// TestUpgrade finds the program of another build pinned and attached, and swaps it under the same link.
func TestUpgrade(t *testing.T) {
	s := newSite(t)
	p, _ := s.open(t, "")
	s.attach(t, p, ModeNative)
	old := older(t, p)
	if got, want := s.attachedProgram(t), programID(t, old); got != want {
		t.Fatalf("program %d is attached, want the older one, %d", got, want)
	}
	before := linkID(t, p)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p, adopted := s.open(t, "")
	defer p.Release()
	if !adopted {
		t.Error("not adopted")
	}
	if got, want := s.attachedProgram(t), programID(t, p.objects.TandemRelay); got != want {
		t.Errorf("program %d is attached, want the built one, %d", got, want)
	}
	if got := linkID(t, p); got != before {
		t.Errorf("link %d, want the same as before, %d", got, before)
	}
	same, err := sameProgram(filepath.Join(p.dir, pinRelay), p.objects.TandemRelay)
	if err != nil || !same {
		t.Errorf("the pinned program is not the built one: %v", err)
	}
}

func linkID(t *testing.T, p *Plane) link.ID {
	t.Helper()
	info, err := p.links["eth0.7"].Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.ID
}

// TestModes attaches in one mode after the other, and where another program is.
func TestModes(t *testing.T) {
	s := newSite(t)
	p, _ := s.open(t, "")
	defer p.Release()
	for _, mode := range []Mode{ModeNative, ModeGeneric, ModeGeneric, ModeNative} {
		s.attach(t, p, mode)
		dev, err := s.ns.Handle().LinkByIndex(s.eth0)
		if err != nil {
			t.Fatal(err)
		}
		// The numbers of IFLA_XDP_ATTACHED.
		if got, want := dev.Attrs().Xdp.AttachMode, map[Mode]uint32{ModeNative: 1, ModeGeneric: 2}[mode]; got != want {
			t.Errorf("attached in mode %d, want %d", got, want)
		}
		if got, ok := p.AttachedMode("eth0.7"); !ok || got != mode {
			t.Errorf("says %s, want %s", got, mode)
		}
	}
	second, _ := s.open(t, "second")
	defer second.Release()
	if err := s.ns.Do(func() error { return second.Attach(s.eth0, "eth0.7", ModeNative) }); err == nil {
		t.Error("two programs on one interface")
	}
	if got := s.attachedProgram(t); got != programID(t, p.objects.TandemRelay) {
		t.Errorf("program %d is attached", got)
	}
	if err := p.Detach("eth0.7"); err != nil {
		t.Fatal(err)
	}
	if err := s.ns.Do(func() error { return second.Attach(s.eth0, "eth0.7", ModeNative) }); err != nil {
		t.Errorf("after Detach: %v", err)
	}
	if err := s.ns.Do(func() error { return second.Attach(999, "eth9", ModeNative) }); err == nil {
		t.Error("attached to nothing")
	}
}

// TestInstances keeps two instances side by side and cleans one up by its pins while its process holds it open.
func TestInstances(t *testing.T) {
	s := newSite(t)
	a, _ := s.open(t, "a")
	b, _ := s.open(t, "b")
	defer b.Release()
	s.attach(t, a, ModeNative)
	a.WriteRecord(2, sceneRecord())
	if got := b.ReadRecord(2); got != (Record{}) {
		t.Errorf("b sees a's record: %+v", got)
	}
	if got, err := Instances(s.root); err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("instances %v, %v", got, err)
	}
	if err := Cleanup(s.root, "a"); err != nil {
		t.Fatal(err)
	}
	if got := s.attachedProgram(t); got != 0 {
		t.Errorf("after Cleanup program %d is attached", got)
	}
	if got, err := Instances(s.root); err != nil || !slices.Equal(got, []string{"b"}) {
		t.Errorf("instances %v, %v", got, err)
	}
	for _, name := range []string{"a", "nobody"} {
		if err := Cleanup(s.root, name); err != nil {
			t.Errorf("clean up %s: %v", name, err)
		}
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}
