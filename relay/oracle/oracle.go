// Package oracle is what the XDP program must do with a frame, as a pure function: same verdict, same reason, same bytes, same changes.
//
// It is written from the rules, not from the program, and favours plainness over speed.
package oracle

import "net/netip"

// Verdict is what becomes of a frame.
type Verdict int

// The verdicts, with the numbers of XDP. Punted frames are passed.
const (
	Drop     Verdict = 1
	Pass     Verdict = 2
	TX       Verdict = 3
	Redirect Verdict = 4
)

// Action is what a record does with an accepted packet.
type Action uint8

// The actions. Others make a record invalid.
const (
	Forward Action = 1
	Hold    Action = 2
	Block   Action = 3
	Punt    Action = 4
)

// Accept says from where a record accepts packets.
type Accept uint8

// The kinds of acceptance. Others accept nothing.
const (
	AcceptNone Accept = 0
	AcceptAddr Accept = 1 // from Record.Source
	AcceptOpen Accept = 2 // the slow path decides
)

// Entries of an index below FirstRecord.
const (
	Outside     uint32 = 0
	Empty       uint32 = 1
	FirstRecord uint32 = 2
)

// Record says what to do with packets that arrive at one local endpoint.
type Record struct {
	Generation          uint32
	Action              Action
	Accept              Accept
	CheckRTP, RTCP      bool
	Window              uint16
	FromPort            uint16
	Flow, Peer, NextHop uint32
	Source              netip.Addr
	To                  netip.AddrPort
}

// Flow is the written state of one local endpoint.
type Flow struct {
	Learnt              bool
	Window, Port        uint16
	Packets, Bytes      uint64
	FirstSeen, LastSeen uint64
	Punted              uint32
	PuntReason          string // empty: none yet
}

// NextHop is how to put a packet on the wire.
type NextHop struct {
	Ifindex    uint32
	DMAC, SMAC [6]byte
	MTU        uint16
	From       netip.Addr
	Valid      bool
}

// Tables are everything that a decision depends on besides the frame.
type Tables struct {
	Media        map[netip.Addr]map[uint16]uint32 // per media address the entries of its index; ports that are missing are Outside
	Records      []Record
	Flows        []Flow
	NextHops     []NextHop
	Devices      map[uint32]bool // interfaces that packets may leave by
	ForwardUntil uint64          // deadlines: in force while now is below
	OrphanAt     uint64
	AliveUntil   uint64
}

// Decision is what becomes of a frame, and why. Where a change is nil, nothing changes.
type Decision struct {
	Verdict Verdict
	Reason  string
	Bytes   uint64 // counted under the reason: the whole frame
	Frame   []byte // as it leaves, or as it came
	Egress  uint32 // for Redirect
	Flow    *FlowChange
	ToPort  *PortChange
	Event   *Learnt
}

// FlowChange is a flow's new state.
type FlowChange struct {
	Position uint32
	Flow     Flow
}

// PortChange is the new destination port of a record.
type PortChange struct {
	Position uint32
	Port     uint16
}

// Learnt is the event of an endpoint that was learnt.
type Learnt struct {
	Record, Generation uint32
	Local, Remote      netip.AddrPort
}

// Apply makes the changes of a decision.
func (t *Tables) Apply(d Decision) {
	if d.Flow != nil {
		t.Flows[d.Flow.Position] = d.Flow.Flow
	}
	if d.ToPort != nil {
		to := &t.Records[d.ToPort.Position].To
		*to = netip.AddrPortFrom(to.Addr(), d.ToPort.Port)
	}
}

// Decide decides about a frame that came in by an interface at a time of the monotonic clock in ns. It changes nothing.
func Decide(t *Tables, frame []byte, ingress uint32, now uint64) Decision {
	out := Decision{Frame: frame, Bytes: uint64(len(frame))}
	c := &judgement{Tables: t, now: now, ingress: ingress, out: &out}
	out.Reason = c.judge(frame)
	switch out.Reason {
	case "forwarded_tx":
		out.Verdict = TX
	case "forwarded_redirect":
		out.Verdict = Redirect
	case "pass_not_udp", "pass_other_address", "pass_outside_range", "pass_unreadable",
		"punt_fragment", "punt_options", "punt_ipv6", "punt_vlan", "punt_action", "punt_stun", "punt_learning", "punt_no_next_hop", "punt_mtu":
		out.Verdict = Pass
	default:
		out.Verdict = Drop
	}
	return out
}
