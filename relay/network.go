package relay

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tandem-relay/tandem/relay/ports"
)

// network is the media addresses of one network.
type network struct {
	pools []*pool
	turn  atomic.Uint32
}

// allocate takes a pair from the network's media addresses, which take turns.
func (n *network) allocate(now time.Time) (Pair, error) {
	start := int(n.turn.Add(1))
	for i := range n.pools {
		p := n.pools[(start+i)%len(n.pools)]
		rtp, err := p.Allocate(now)
		if err == nil {
			return Pair{Addr: p.addr, RTP: rtp, RTCP: rtp + 1}, nil
		}
		if !errors.Is(err, ports.ErrExhausted) {
			return Pair{}, err
		}
	}
	return Pair{}, ports.ErrExhausted
}

// allocate takes a pair in the named network.
func (r *Relay) allocate(name string) (Pair, error) {
	n := r.network[name]
	if n == nil || len(n.pools) == 0 {
		return Pair{}, fmt.Errorf("allocate ports in network %q: %w", name, ErrNoNetwork)
	}
	pair, err := n.allocate(time.Now())
	if err != nil {
		return Pair{}, fmt.Errorf("allocate ports in network %q: %w", name, err)
	}
	return pair, nil
}

// giveBack frees pairs at once that never carried media.
func (r *Relay) giveBack(pairs ...Pair) {
	for _, pair := range pairs {
		if err := r.byAddr[pair.Addr].Return(pair.RTP); err != nil {
			r.logger.Error("port accounting is wrong", "local", pair.endpoint(RTP), "err", err)
		}
	}
}

// release puts pairs into quarantine.
func (r *Relay) release(pairs ...Pair) {
	now := time.Now()
	for _, pair := range pairs {
		if err := r.byAddr[pair.Addr].Release(pair.RTP, now); err != nil {
			r.logger.Error("port accounting is wrong", "local", pair.endpoint(RTP), "err", err)
		}
	}
}
