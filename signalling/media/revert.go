package media

import "github.com/tandem-relay/tandem/relay"

// Revert takes back an offer in a running call that was refused (RFC 3264 section 8): s describes the media again as
// before does, a clone from before that offer. Streams whose endpoint had changed get a new learning window; what the
// offer brought anew is dropped, and its ports with it. A block set by somebody else in between stays.
func Revert(s, before *relay.Session) {
	old := before.Clone()
	for i := range old.Parties {
		p := &old.Parties[i]
		now := s.Party(p.ID)
		if now == nil {
			continue
		}
		for j := range min(len(p.Streams), len(now.Streams)) {
			was, is := &p.Streams[j], &now.Streams[j]
			remote, accept := was.Remote, was.Accept
			was.Remote, was.Accept, was.Window = is.Remote, is.Accept, is.Window
			setRemote(was, remote, accept)
			if is.Mode == relay.Block {
				was.Mode = relay.Block
			}
		}
	}
	s.Parties, s.Subscriptions = old.Parties, old.Subscriptions
}
