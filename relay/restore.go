package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tandem-relay/tandem/relay/feed"
)

// encodeSession is the change that tells of a session; nil has ended.
func encodeSession(id SessionID, generation uint32, s *Session) (feed.Change, error) {
	c := feed.Change{Kind: KindSession, Key: string(id), Version: uint64(generation)}
	if s == nil {
		return c, nil
	}
	var err error
	if c.Value, err = json.Marshal(s); err != nil {
		return feed.Change{}, fmt.Errorf("encode session %s: %w", id, err)
	}
	return c, nil
}

// DecodeSessions reads the sessions out of changes, the latest of each key, as the journal gives them. Changes of
// other kinds and ended sessions are left out. A session whose value makes no sense is among the others, without
// parties, for Restore to end it. It returns an error if a key stands twice.
func DecodeSessions(changes []feed.Change) ([]*Session, error) {
	var all []*Session
	known := make(map[string]bool)
	for _, c := range changes {
		if c.Kind != KindSession || c.Value == nil {
			continue
		}
		if known[c.Key] {
			return nil, fmt.Errorf("decode session %s: it stands twice", c.Key)
		}
		known[c.Key] = true
		s, err := decodeSession(c)
		if err != nil {
			s = &Session{ID: SessionID(c.Key), Generation: uint32(c.Version), damage: err}
		}
		all = append(all, s)
	}
	return all, nil
}

func decodeSession(c feed.Change) (*Session, error) {
	s := new(Session)
	if err := json.Unmarshal(c.Value, s); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if string(s.ID) != c.Key || uint64(s.Generation) != c.Version {
		return nil, fmt.Errorf("decode version %d: value is of session %s generation %d", c.Version, s.ID, s.Generation)
	}
	return s, nil
}

// Restore takes over the sessions of an earlier process: it claims their ports and lets the data plane adopt their
// records, so that what was journalled but not yet installed, is. It is called once, before any transaction, also when
// there are no sessions. A session that no longer fits the configuration, that cannot be read or that the data plane refuses
// is ended, which is logged and written to the log; the others go on. The sessions belong to the relay afterwards.
func (r *Relay) Restore(ctx context.Context, sessions []*Session) (Adoption, error) {
	if n := r.Len(); n > 0 {
		return Adoption{}, fmt.Errorf("restore: relay has %d sessions already", n)
	}
	kept := make(map[SessionID]*Session, len(sessions))
	compiled := make([]Compiled, 0, len(sessions))
	var ended []feed.Change
	for _, s := range sessions {
		if kept[s.ID] != nil {
			return Adoption{}, r.unrestore(kept, fmt.Errorf("restore: session %s stands twice", s.ID))
		}
		records, err := r.admit(s)
		if err != nil {
			r.logger.Warn("session cannot go on", "session", string(s.ID), "err", err)
			ended = append(ended, endOf(s))
			continue
		}
		kept[s.ID] = s
		compiled = append(compiled, Compiled{ID: s.ID, Generation: s.Generation, Records: records})
	}
	if err := r.tellEnds(ended); err != nil {
		return Adoption{}, r.unrestore(kept, err)
	}
	adoption, err := r.plane.Adopt(ctx, compiled)
	if err != nil {
		return Adoption{}, r.unrestore(kept, fmt.Errorf("restore: adopt records: %w", err))
	}
	ended = nil
	for _, id := range adoption.Refused {
		if s := kept[id]; s != nil {
			ended = append(ended, endOf(s))
			delete(kept, id)
			// Its parties may still send to them.
			r.release(s.pairs()...)
		}
	}
	if err := r.tellEnds(ended); err != nil {
		return Adoption{}, r.unrestore(kept, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions = kept
	return adoption, nil
}

// endOf is the change that ends a session of the journal.
func endOf(s *Session) feed.Change {
	return feed.Change{Kind: KindSession, Key: string(s.ID), Version: uint64(s.Generation) + 1}
}

// tellEnds writes the ends of sessions to the log, if there are any.
func (r *Relay) tellEnds(ended []feed.Change) error {
	if len(ended) == 0 {
		return nil
	}
	if _, err := r.log.Append(ended...); err != nil {
		return fmt.Errorf("restore: end sessions: %w", err)
	}
	return nil
}

// admit compiles a session of the journal and claims its ports; all of them or none.
func (r *Relay) admit(s *Session) ([]Record, error) {
	records, err := Compile(s)
	if err != nil {
		return nil, err
	}
	var claimed []Pair
	var refusal error
	claim := func(p Pair) bool {
		if p.RTCP != p.RTP+1 {
			return false
		}
		if refusal = r.byAddr[p.Addr].Claim(p.RTP); refusal != nil {
			return false
		}
		claimed = append(claimed, p)
		return true
	}
	if err := r.checkPlaces(s, claim); err != nil {
		r.giveBack(claimed...)
		if refusal != nil {
			err = fmt.Errorf("%w: %w", err, refusal)
		}
		return nil, err
	}
	return slices.Clip(records), nil
}

// unrestore frees what was claimed.
func (r *Relay) unrestore(kept map[SessionID]*Session, err error) error {
	for _, s := range kept {
		r.giveBack(s.pairs()...)
	}
	return err
}
