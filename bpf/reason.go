package bpf

import "fmt"

// Reason is why a frame left the program the way it did. The numbers stand in pinned maps; new ones are appended.
type Reason uint8

// The reasons.
const (
	ReasonNone Reason = iota
	ReasonForwardedTX
	ReasonForwardedRedirect
	ReasonPassNotUDP
	ReasonPassOtherAddress
	ReasonPassOutsideRange
	ReasonPassUnreadable
	ReasonPuntFragment
	ReasonPuntOptions
	ReasonPuntIPv6
	ReasonPuntVLAN
	ReasonPuntAction
	ReasonPuntSTUN
	ReasonPuntLearning
	ReasonPuntNoNextHop
	ReasonPuntMTU
	ReasonNoSession
	ReasonInvalidRecord
	ReasonNoRight
	ReasonOrphaned
	ReasonBlocked
	ReasonMalformed
	ReasonMalformedRTP
	ReasonSourceMismatch
	ReasonHeld
	ReasonNoDestination
	ReasonTTLExpired
	ReasonNoDaemon
	// NumReasons is one more than the largest reason.
	NumReasons
)

// Verdicts of reasons.
const (
	VerdictForward = "forward"
	VerdictPass    = "pass"
	VerdictPunt    = "punt"
	VerdictDrop    = "drop"
)

type reasonText struct{ name, verdict, help string }

func (r Reason) text() reasonText {
	texts := [NumReasons]reasonText{
		ReasonNone:              {"none", "", "no reason"},
		ReasonForwardedTX:       {"forwarded_tx", VerdictForward, "sent back out of the interface it came in by"},
		ReasonForwardedRedirect: {"forwarded_redirect", VerdictForward, "sent out of another interface"},
		ReasonPassNotUDP:        {"pass_not_udp", VerdictPass, "not UDP over IP: left to the kernel"},
		ReasonPassOtherAddress:  {"pass_other_address", VerdictPass, "UDP, but not to a media address: left to the kernel"},
		ReasonPassOutsideRange:  {"pass_outside_range", VerdictPass, "to a media address, but outside its port ranges: left to the kernel"},
		ReasonPassUnreadable:    {"pass_unreadable", VerdictPass, "headers cut short or of an unknown version: left to the kernel"},
		ReasonPuntFragment:      {"punt_fragment", VerdictPunt, "IP fragment: the kernel reassembles, the slow path relays"},
		ReasonPuntOptions:       {"punt_options", VerdictPunt, "IP options: relayed by the slow path"},
		ReasonPuntIPv6:          {"punt_ipv6", VerdictPunt, "IPv6 on one side: relayed by the slow path"},
		ReasonPuntVLAN:          {"punt_vlan", VerdictPunt, "VLAN tag: relayed by the slow path"},
		ReasonPuntAction:        {"punt_action", VerdictPunt, "the session asks for the slow path"},
		ReasonPuntSTUN:          {"punt_stun", VerdictPunt, "STUN from the party's address: relayed by the slow path"},
		ReasonPuntLearning:      {"punt_learning", VerdictPunt, "the slow path decides whether this source is accepted"},
		ReasonPuntNoNextHop:     {"punt_no_next_hop", VerdictPunt, "no usable route, neighbour or egress yet: relayed by the slow path"},
		ReasonPuntMTU:           {"punt_mtu", VerdictPunt, "larger than the egress MTU: the slow path fragments"},
		ReasonNoSession:         {"no_session", VerdictDrop, "in the media range, but no session has this port"},
		ReasonInvalidRecord:     {"invalid_record", VerdictDrop, "the session's record is inconsistent: report this"},
		ReasonNoRight:           {"no_right", VerdictDrop, "this box has no right to forward now"},
		ReasonOrphaned:          {"orphaned", VerdictDrop, "the daemon has been away for longer than the orphan time"},
		ReasonBlocked:           {"blocked", VerdictDrop, "the stream is blocked"},
		ReasonMalformed:         {"malformed", VerdictDrop, "IP or UDP lengths contradict each other"},
		ReasonMalformedRTP:      {"malformed_rtp", VerdictDrop, "neither RTP nor RTCP on a stream that carries only these"},
		ReasonSourceMismatch:    {"source_mismatch", VerdictDrop, "not from the party's address and port"},
		ReasonHeld:              {"held", VerdictDrop, "the stream is on hold"},
		ReasonNoDestination:     {"no_destination", VerdictDrop, "nobody to send to: the other side's address is not known yet"},
		ReasonTTLExpired:        {"ttl_expired", VerdictDrop, "TTL used up: a forwarding loop?"},
		ReasonNoDaemon:          {"no_daemon", VerdictDrop, "for the slow path, but the daemon is not alive"},
	}
	if r < NumReasons {
		return texts[r]
	}
	return reasonText{fmt.Sprintf("reason_%d", uint8(r)), "", "unknown to this build"}
}

// String is the reason's stable name.
func (r Reason) String() string { return r.text().name }

// Verdict is what became of the frame: "forward", "pass", "punt" or "drop".
func (r Reason) Verdict() string { return r.text().verdict }

// Help is one line for the operator.
func (r Reason) Help() string { return r.text().help }

// ReasonCount is how often a reason occurred since the maps were made.
type ReasonCount struct {
	Reason  Reason
	Packets uint64
	Bytes   uint64 // whole frames
}

// Counters reads the counts of all reasons, in the order of their numbers, zero ones included.
func (p *Plane) Counters() ([]ReasonCount, error) {
	out := make([]ReasonCount, 0, NumReasons-1)
	for r := ReasonNone + 1; r < NumReasons; r++ {
		var perCPU []relayReasonCount
		if err := p.objects.Reasons.Lookup(uint32(r), &perCPU); err != nil {
			return nil, fmt.Errorf("read counter %s: %w", r, err)
		}
		c := ReasonCount{Reason: r}
		for _, v := range perCPU {
			c.Packets += v.Packets
			c.Bytes += v.Bytes
		}
		out = append(out, c)
	}
	return out, nil
}
