package bpf

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// Values of an entry of a media address's index. Any other value is a position in the record pool.
const (
	IndexOutside uint32 = 0 // not in the media range: packets pass untouched
	IndexEmpty   uint32 = 1 // in the media range, no session: packets are dropped and counted
)

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// index is the index of one media address.
type index struct {
	object *ebpf.Map
	memory *table[uint64]
}

func (x *index) close() error { return errors.Join(x.memory.close(), x.object.Close()) }

// entries has one entry per port.
func (x *index) entries() *[65536]uint32 { return indexEntries(x.memory.slots) }

func (p *Plane) pinOfIndex(addr netip.Addr) string {
	b := toAddress(addr)
	return filepath.Join(p.dir, prefixIndex+hex.EncodeToString(b[:]))
}

func newIndex(m *ebpf.Map) (*index, error) {
	memory, err := mapTable[uint64](m)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return &index{object: m, memory: memory}, nil
}

// OpenMedia makes addr a media address with the given port ranges, or changes the ranges of one that is. Entries that hold a record keep it,
// in and out of range; the others say whether their port is in range.
func (p *Plane) OpenMedia(addr netip.Addr, ranges ...PortRange) error {
	addr = addr.Unmap()
	if !addr.IsValid() || addr.IsUnspecified() || addr.Zone() != "" {
		return fmt.Errorf("open media address %s: %w", addr, ErrNoMedia)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	x, known := p.media[addr]
	if !known {
		m, err := ebpf.NewMap(p.inner)
		if err != nil {
			return fmt.Errorf("open media address %s: %w", addr, err)
		}
		if x, err = newIndex(m); err != nil {
			return fmt.Errorf("open media address %s: %w", addr, err)
		}
	}
	inside := make([]bool, len(x.entries()))
	for _, r := range ranges {
		for port := int(r.First); port <= int(r.Last); port++ {
			inside[port] = true
		}
	}
	for port := range inside {
		want := IndexOutside
		if inside[port] {
			want = IndexEmpty
		}
		entry := &x.entries()[port]
		if v := atomic.LoadUint32(entry); v < FirstRecord && v != want {
			atomic.StoreUint32(entry, want)
		}
	}
	if known {
		return nil
	}
	// Pinned first: after a crash in between, the next process finds it and goes on.
	path := p.pinOfIndex(addr)
	err := x.object.Pin(path)
	if err == nil {
		if err = p.objects.Media.Put(toAddress(addr), x.object); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("open media address %s: %w", addr, err), x.close())
	}
	p.media[addr] = x
	return nil
}

// CloseMedia makes addr an ordinary address again: its packets pass untouched. One that is no media address is no error.
func (p *Plane) CloseMedia(addr netip.Addr) error {
	addr = addr.Unmap()
	p.mu.Lock()
	defer p.mu.Unlock()
	x, ok := p.media[addr]
	if !ok {
		return nil
	}
	if err := p.objects.Media.Delete(toAddress(addr)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("close media address %s: %w", addr, err)
	}
	delete(p.media, addr)
	if err := errors.Join(os.Remove(p.pinOfIndex(addr)), x.close()); err != nil {
		return fmt.Errorf("close media address %s: %w", addr, err)
	}
	return nil
}

// Media lists the media addresses in order.
func (p *Plane) Media() []netip.Addr {
	p.mu.RLock()
	defer p.mu.RUnlock()
	addrs := make([]netip.Addr, 0, len(p.media))
	for a := range p.media {
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

// Index reads the entry of a local endpoint: IndexOutside, IndexEmpty or a position in the record pool.
func (p *Plane) Index(local netip.AddrPort) uint32 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	x, ok := p.media[local.Addr().Unmap()]
	if !ok {
		return IndexOutside
	}
	return atomic.LoadUint32(&x.entries()[local.Port()])
}

// SetIndex replaces the entry of a local endpoint by one atomic store, after which packets see what was written before it.
func (p *Plane) SetIndex(local netip.AddrPort, v uint32) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	x, ok := p.media[local.Addr().Unmap()]
	if !ok {
		return fmt.Errorf("set index of %s: %w", local, ErrNoMedia)
	}
	if v >= uint32(len(p.records.slots)) {
		return fmt.Errorf("set index of %s: record %d is beyond the pool", local, v)
	}
	atomic.StoreUint32(&x.entries()[local.Port()], v)
	return nil
}

// adoptMedia opens the pinned indices and makes sure that the program sees each.
func (p *Plane) adoptMedia() error {
	names, err := p.pins(prefixIndex)
	if err != nil {
		return err
	}
	for _, name := range names {
		var b [16]byte
		if n, err := hex.Decode(b[:], []byte(name)); err != nil || n != len(b) || len(name) != 2*len(b) {
			return fmt.Errorf("adopt index %s: not an address", name)
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(p.dir, prefixIndex+name), nil)
		if err != nil {
			return fmt.Errorf("adopt index %s: %w", name, err)
		}
		if err := p.inner.Compatible(m); err != nil {
			return errors.Join(fmt.Errorf("adopt index %s: %w: %w", name, ErrLayout, err), m.Close())
		}
		x, err := newIndex(m)
		if err != nil {
			return fmt.Errorf("adopt index %s: %w", name, err)
		}
		p.media[fromAddress(b)] = x
		if err := p.objects.Media.Put(b, m); err != nil {
			return fmt.Errorf("adopt index %s: %w", name, err)
		}
	}
	return nil
}
