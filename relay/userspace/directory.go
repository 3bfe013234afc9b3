package userspace

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// directory finds endpoints by their address. All methods may be called concurrently.
type directory struct {
	mu        sync.RWMutex
	endpoints map[netip.AddrPort]*endpoint
	ports     map[netip.Addr]int // endpoints at each address
	// addrs holds the few addresses of ours, so that most packets find out without a lock that they leave the host.
	addrs atomic.Pointer[[]netip.Addr]
}

func newDirectory() directory {
	return directory{endpoints: make(map[netip.AddrPort]*endpoint), ports: make(map[netip.Addr]int)}
}

// find returns the endpoint at local, or nil.
func (d *directory) find(local netip.AddrPort) *endpoint {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.endpoints[local]
}

// own returns the endpoint of ours at which a packet to remote would arrive, or nil.
func (p *Plane) own(remote netip.AddrPort) *endpoint {
	if addrs := p.directory.addrs.Load(); addrs == nil || !slices.Contains(*addrs, remote.Addr()) {
		return nil
	}
	return p.directory.find(remote)
}

func (d *directory) add(e *endpoint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endpoints[e.local] = e
	if d.ports[e.local.Addr()]++; d.ports[e.local.Addr()] == 1 {
		d.publish()
	}
}

func (d *directory) remove(e *endpoint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.endpoints, e.local)
	if d.ports[e.local.Addr()]--; d.ports[e.local.Addr()] == 0 {
		delete(d.ports, e.local.Addr())
		d.publish()
	}
}

// publish replaces addrs. The caller holds mu.
func (d *directory) publish() {
	addrs := make([]netip.Addr, 0, len(d.ports))
	for addr := range d.ports {
		addrs = append(addrs, addr)
	}
	d.addrs.Store(&addrs)
}

func (d *directory) size() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.endpoints)
}
