package xdp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"

	"github.com/tandem-relay/tandem/bpf"
	"github.com/tandem-relay/tandem/relay"
)

// scan finds the records that an earlier process left, so that their slots are not handed out before Adopt has decided on
// them.
func (p *Plane) scan() (records, flows, hops map[uint32]bool) {
	records, flows, hops = make(map[uint32]bool), make(map[uint32]bool), make(map[uint32]bool)
	capacity, _ := p.maps.Capacity()
	for addr := range p.ranges {
		for port := range 1 << 16 {
			local := netip.AddrPortFrom(addr, uint16(port))
			slot := p.maps.Index(local)
			if slot < bpf.FirstRecord {
				continue
			}
			if slot >= capacity || records[slot] {
				p.setIndex(local, p.vacant(local)) // not ours: two endpoints never share a record
				continue
			}
			r := p.maps.ReadRecord(slot)
			if r.Flow >= capacity || flows[r.Flow] {
				p.setIndex(local, p.vacant(local))
				continue
			}
			records[slot], flows[r.Flow] = true, true
			if r.NextHop != 0 {
				hops[r.NextHop] = true
			}
			p.endpoints[local] = &endpoint{
				record: relay.Record{Local: local}, slot: slot, flow: r.Flow, slow: new(atomic.Pointer[slowCounts]),
			}
		}
	}
	return records, flows, hops
}

// Adopt implements relay.Dataplane. A session whose records are all there and equal goes on untouched; of any other session
// all records are written. A session that does not fit the configuration any more, or the tables, is refused.
func (p *Plane) Adopt(ctx context.Context, sessions []relay.Compiled) (relay.Adoption, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var result relay.Adoption
	if p.closed {
		return result, fmt.Errorf("adopt: %w", os.ErrClosed)
	}
	if p.adopted.Load() {
		return result, errors.New("adopt: called twice")
	}
	for i := range sessions {
		if err := ctx.Err(); err != nil {
			return result, fmt.Errorf("adopt: %w", err)
		}
		c := &sessions[i]
		kept, err := p.adoptSession(c)
		switch {
		case err != nil:
			p.logger.Error("session cannot go on", "session", c.ID, "err", err)
			result.Refused = append(result.Refused, c.ID)
		case kept:
			result.Kept += len(c.Records)
		default:
			result.Written += len(c.Records)
		}
	}
	for _, e := range p.endpoints {
		if e.session == nil {
			p.retire(e, true)
			result.Removed++
		}
	}
	p.adopted.Store(true)
	p.hops.unreserve()
	return result, nil
}

func (p *Plane) adoptSession(c *relay.Compiled) (kept bool, err error) {
	if len(c.Records) == 0 {
		return false, nil
	}
	if err := p.check(c.Records); err != nil {
		return false, err
	}
	next := &session{id: c.ID, generation: c.Generation}
	list := p.drafts(next, c.Records)
	if !p.unchanged(list) {
		p.discard(list)
		return false, p.install(next, c.Records)
	}
	for i := range list {
		e := list[i].endpoint
		next.endpoints = append(next.endpoints, e)
		p.endpoints[e.record.Local] = e
		if list[i].learnt.IsValid() {
			e.told.Store(true)
		} else {
			p.untold[e] = struct{}{}
		}
	}
	p.sessions[next.id] = next
	return true, nil
}

// unchanged reports whether the maps hold exactly what the drafts would write. It gives the drafts the slots in use.
func (p *Plane) unchanged(list []draft) bool {
	for i := range list {
		d := &list[i]
		if d.former == nil || d.former.session != nil || d.forget {
			return false
		}
		d.endpoint.slot = d.former.slot
	}
	for i := range list {
		if p.encode(list, &list[i]) != p.maps.ReadRecord(list[i].former.slot) {
			return false
		}
	}
	return true
}
