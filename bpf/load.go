package bpf

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// errForsaken: the pins belong to a network namespace that is gone, together with everything that was attached there.
var errForsaken = errors.New("network namespace is gone")

// specification is the object with the instance's capacities.
func specification(records uint32) (*ebpf.CollectionSpec, error) {
	spec, err := loadRelay()
	if err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	// Only there to keep types in the object.
	delete(spec.Maps, ".bss")
	clear(spec.Variables)
	spec.Maps[relayMapRecords].MaxEntries = records
	spec.Maps[relayMapFlows].MaxEntries = records
	return spec, nil
}

func assign(c *ebpf.Collection, o *relayObjects) error {
	if err := c.Assign(&o.relayMaps); err != nil {
		return err
	}
	return c.Assign(&o.relayPrograms)
}

// create loads everything afresh and pins it in a temporary directory, which is then renamed.
func (p *Plane) create(o Options) error {
	spec, err := specification(o.Records)
	if err != nil {
		return err
	}
	p.inner = spec.Maps[relayMapMedia].InnerMap
	if err := p.load(spec, nil); err != nil {
		return err
	}
	netns, err := netnsCookie()
	if err != nil {
		return err
	}
	meta := relayMeta{
		Abi:      abiVersion,
		Records:  o.Records,
		NextHops: p.objects.NextHops.MaxEntries(),
		Media:    p.objects.Media.MaxEntries(),
		Netns:    netns,
	}
	if err := p.objects.Meta.Put(uint32(0), &meta); err != nil {
		return fmt.Errorf("write meta map: %w", err)
	}

	dir := filepath.Join(o.Root, temporary(o.Instance))
	if err := removePins(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make pin directory: %w", err)
	}
	if err := p.pinAll(dir, spec); err != nil {
		return errors.Join(err, removePins(dir))
	}
	if err := os.Rename(dir, p.dir); err != nil {
		return errors.Join(fmt.Errorf("publish pins: %w", err), removePins(dir))
	}
	return nil
}

func (p *Plane) pinAll(dir string, spec *ebpf.CollectionSpec) error {
	for name, m := range p.maps() {
		if err := m.Pin(filepath.Join(dir, prefixMap+name)); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	for name, prog := range p.programs() {
		if err := prog.Pin(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("pin %s: %w", name, err)
		}
	}
	// A map that is forgotten here would be empty after a restart.
	if got, want := len(p.maps()), len(spec.Maps); got != want {
		return fmt.Errorf("pin maps: %d of %d", got, want)
	}
	return nil
}

// load puts the programs into the kernel, with the given maps or new ones, and maps the pools into memory.
func (p *Plane) load(spec *ebpf.CollectionSpec, existing map[string]*ebpf.Map) error {
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: existing})
	if err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	defer c.Close()
	if err := assign(c, &p.objects); err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	var errs [5]error
	p.records, errs[0] = mapTable[relayRecord](p.objects.Records)
	p.flows, errs[1] = mapTable[relayFlow](p.objects.Flows)
	p.nextHops, errs[2] = mapTable[relayNextHop](p.objects.NextHops)
	p.role, errs[3] = mapTable[relayRole](p.objects.Role)
	p.daemon, errs[4] = mapTable[relayDaemon](p.objects.Daemon)
	return errors.Join(errs[:]...)
}

// adopt takes over the pinned maps and links.
func (p *Plane) adopt(o Options) error {
	meta, err := p.checkMeta()
	if err != nil {
		return err
	}
	if meta.Records != o.Records {
		p.log.Warn("pinned maps keep their capacity until they are released", "records", meta.Records, "configured", o.Records)
	}
	spec, err := specification(meta.Records)
	if err != nil {
		return err
	}
	p.inner = spec.Maps[relayMapMedia].InnerMap

	existing := map[string]*ebpf.Map{}
	defer func() {
		for _, m := range existing {
			_ = m.Close()
		}
	}()
	for name, want := range spec.Maps {
		m, err := ebpf.LoadPinnedMap(filepath.Join(p.dir, prefixMap+name), nil)
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("adopt %s: map %s: %w", p.dir, name, ErrIncomplete)
		}
		if err != nil {
			return fmt.Errorf("adopt map %s: %w", name, err)
		}
		existing[name] = m
		if err := want.Compatible(m); err != nil {
			return fmt.Errorf("adopt map %s: %w: %w", name, ErrLayout, err)
		}
	}
	if err := p.load(spec, existing); err != nil {
		return err
	}
	if err := p.adoptMedia(); err != nil {
		return err
	}
	if err := p.adoptLinks(); err != nil {
		return err
	}
	return p.upgrade()
}

// checkMeta reads the pinned meta map first of all: it says whether the rest may be touched.
func (p *Plane) checkMeta() (relayMeta, error) {
	var meta relayMeta
	m, err := ebpf.LoadPinnedMap(filepath.Join(p.dir, prefixMap+relayMapMeta), nil)
	if errors.Is(err, os.ErrNotExist) {
		return meta, fmt.Errorf("adopt %s: map %s: %w", p.dir, relayMapMeta, ErrIncomplete)
	}
	if err != nil {
		return meta, fmt.Errorf("adopt meta map: %w", err)
	}
	defer func() { _ = m.Close() }()
	if m.ValueSize() < 4 {
		return meta, fmt.Errorf("adopt %s: %w", p.dir, ErrLayout)
	}
	raw := make([]byte, m.ValueSize())
	if err := m.Lookup(uint32(0), &raw); err != nil {
		return meta, fmt.Errorf("read meta map: %w", err)
	}
	abi := metaABI(raw)
	if abi != abiVersion || !metaFrom(raw, &meta) {
		return meta, fmt.Errorf("adopt %s: %w: version %d, this build has %d", p.dir, ErrLayout, abi, abiVersion)
	}
	netns, err := netnsCookie()
	if err != nil {
		return meta, err
	}
	if meta.Netns == netns {
		return meta, nil
	}
	alive, err := p.anyLinkAlive()
	if err != nil {
		return meta, err
	}
	if alive {
		return meta, fmt.Errorf("adopt %s: %w", p.dir, ErrElsewhere)
	}
	return meta, errForsaken
}

// upgrade swaps the programs under the existing links if they are not the pinned ones. It may be repeated after a crash at any point:
// the pins of the programs are replaced last.
func (p *Plane) upgrade() error {
	for name, prog := range p.programs() {
		path := filepath.Join(p.dir, name)
		same, err := sameProgram(path, prog)
		if err != nil {
			return err
		}
		if same {
			continue
		}
		links := map[string]link.Link{pinLookup: p.steer}
		if name == pinRelay {
			links = p.links
		}
		for target, l := range links {
			if l == nil {
				continue
			}
			if err := l.Update(prog); err != nil {
				return fmt.Errorf("swap program of %s: %w", target, err)
			}
		}
		if err := replacePin(path, prog); err != nil {
			return err
		}
		p.log.Info("program swapped", "program", name, "links", slices.Sorted(maps.Keys(links)))
	}
	return nil
}

func replacePin(path string, prog *ebpf.Program) error {
	next := filepath.Join(filepath.Dir(path), "next_"+filepath.Base(path))
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace pin: %w", err)
	}
	if err := prog.Pin(next); err != nil {
		return fmt.Errorf("replace pin: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("replace pin: %w", err)
	}
	return nil
}

// sameProgram compares the kernel's tags, which cover the instructions as loaded.
func sameProgram(path string, prog *ebpf.Program) (bool, error) {
	pinned, err := ebpf.LoadPinnedProgram(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open pinned program: %w", err)
	}
	defer func() { _ = pinned.Close() }()
	before, err := pinned.Info()
	if err != nil {
		return false, fmt.Errorf("look at pinned program: %w", err)
	}
	now, err := prog.Info()
	if err != nil {
		return false, fmt.Errorf("look at program: %w", err)
	}
	return before.Tag == now.Tag, nil
}

func (p *Plane) maps() map[string]*ebpf.Map {
	o := &p.objects
	return map[string]*ebpf.Map{
		relayMapBudget: o.Budget, relayMapDaemon: o.Daemon, relayMapDevices: o.Devices, relayMapEvents: o.Events,
		relayMapFlows: o.Flows, relayMapMedia: o.Media, relayMapMeta: o.Meta, relayMapNextHops: o.NextHops,
		relayMapReasons: o.Reasons, relayMapRecords: o.Records, relayMapRole: o.Role, relayMapSteer: o.Steer,
	}
}

func (p *Plane) programs() map[string]*ebpf.Program {
	return map[string]*ebpf.Program{pinRelay: p.objects.TandemRelay, pinSteer: p.objects.TandemSteer}
}

// pins lists the pins whose names have the prefix, without it.
func (p *Plane) pins(prefix string) ([]string, error) {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), prefix); ok {
			names = append(names, name)
		}
	}
	return names, nil
}
