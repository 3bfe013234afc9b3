package bpf

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
)

// TestRefusals finds pins that must not be adopted.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name string
		harm func(*testing.T, *Plane)
		want error
	}{
		{"missing map", func(t *testing.T, p *Plane) { remove(t, p, "map_flows") }, ErrIncomplete},
		{"missing meta", func(t *testing.T, p *Plane) { remove(t, p, "map_meta") }, ErrIncomplete},
		{"other version", func(t *testing.T, p *Plane) {
			m := relayMeta{Abi: abiVersion + 1, Records: 64}
			if err := p.objects.Meta.Put(uint32(0), &m); err != nil {
				t.Fatal(err)
			}
		}, ErrLayout},
		{"other value size", func(t *testing.T, p *Plane) {
			remove(t, p, "map_flows")
			m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 64, MaxEntries: 64, Flags: 1 << 10})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if err := m.Pin(filepath.Join(p.dir, "map_flows")); err != nil {
				t.Fatal(err)
			}
		}, ErrLayout},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			p, _ := s.open(t, "")
			s.attach(t, p, ModeNative)
			running := s.attachedProgram(t)
			c.harm(t, p)
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			_, _, err := openIn(s.ns, Options{Root: s.root})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if got := s.attachedProgram(t); got != running {
				t.Errorf("program %d is attached, want %d: what is refused goes on", got, running)
			}
			if err := Cleanup(s.root, ""); err != nil {
				t.Fatal(err)
			}
			if got := s.attachedProgram(t); got != 0 {
				t.Errorf("after Cleanup program %d is attached", got)
			}
		})
	}
}

func remove(t *testing.T, p *Plane, pin string) {
	t.Helper()
	if err := os.Remove(filepath.Join(p.dir, pin)); err != nil {
		t.Fatal(err)
	}
}

// TestOptions has names and sizes that are refused before anything is touched.
func TestOptions(t *testing.T) {
	for _, o := range []Options{{Instance: "_new"}, {Instance: "a.b"}, {Instance: "a/b"}, {Instance: "\x00"}, {Records: 15}, {Root: "relative"}, {Root: "/nowhere/at/all"}} {
		if _, _, err := Open(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

// TestNamespaces opens an instance from another namespace: refused while its own lives, started afresh once that is gone.
func TestNamespaces(t *testing.T) {
	s := newSite(t)
	p, _ := s.open(t, "")
	s.attach(t, p, ModeNative)
	p.WriteRecord(2, sceneRecord())
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openIn(s.other, Options{Root: s.root}); !errors.Is(err, ErrElsewhere) {
		t.Errorf("got %v, want %v", err, ErrElsewhere)
	}
	if s.attachedProgram(t) == 0 {
		t.Error("the refused attempt detached the program")
	}
	if err := s.lab.Close(); err != nil {
		t.Fatal(err)
	}
	l := require.Lab(t)
	fresh, err := l.Namespace("fresh")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace goes", func() bool {
		p, adopted, err := openIn(fresh, Options{Root: s.root, Records: 64})
		if errors.Is(err, ErrElsewhere) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := p.ReadRecord(2); adopted || got != (Record{}) {
			t.Errorf("adopted %v, record %+v", adopted, got)
		}
		if err := p.Release(); err != nil {
			t.Error(err)
		}
		return true
	})
}

// TestInterrupted leaves what a crash in the middle of Open or OpenMedia leaves.
func TestInterrupted(t *testing.T) {
	s := newSite(t)
	p, _ := s.open(t, "")
	if err := p.OpenMedia(mediaAddr, PortRange{20000, 20009}); err != nil {
		t.Fatal(err)
	}
	if err := p.objects.Media.Delete(toAddress(mediaAddr)); err != nil {
		t.Fatal(err)
	}
	if err := p.objects.TandemRelay.Pin(filepath.Join(p.dir, "next_"+pinRelay)); err != nil {
		t.Fatal(err)
	}
	older(t, p)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p, _ = s.open(t, "")
	var id uint32
	if err := p.objects.Media.Lookup(toAddress(mediaAddr), &id); err != nil {
		t.Errorf("the program does not see the adopted index: %v", err)
	}
	// A directory that never got its name is replaced by the next.
	if err := os.Rename(p.dir, filepath.Join(s.root, temporary("default"))); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p, adopted := s.open(t, "")
	if adopted {
		t.Error("a half-made instance is adopted")
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	s.empty(t)
}

// TestInterfaceReplaced makes an interface anew under its old name.
func TestInterfaceReplaced(t *testing.T) {
	s := newSite(t)
	p, _ := s.open(t, "")
	defer func() { p.Release() }()
	s.attach(t, p, ModeNative)
	dev, err := s.ns.Handle().LinkByIndex(s.eth0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ns.Handle().LinkDel(dev); err != nil {
		t.Fatal(err)
	}
	if err := s.lab.Connect(lab.End{Namespace: s.other, Name: "eth0"}, lab.End{Namespace: s.ns, Name: "eth0.7", Reception: lab.Bare}); err != nil {
		t.Fatal(err)
	}
	if s.eth0, err = s.ns.Ifindex("eth0.7"); err != nil {
		t.Fatal(err)
	}
	s.attach(t, p, ModeNative)
	if s.attachedProgram(t) == 0 {
		t.Error("not attached to the new interface")
	}
	// The same with a new process.
	if dev, err = s.ns.Handle().LinkByIndex(s.eth0); err != nil {
		t.Fatal(err)
	}
	if err := s.ns.Handle().LinkDel(dev); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p, _ = s.open(t, "")
	if got := p.Attached(); len(got) != 0 {
		t.Errorf("attached to %v, which is gone", got)
	}
}
