package bpf

import (
	"net/netip"
	"sync/atomic"
)

// Action is what a record does with an accepted packet.
type Action uint8

// The actions.
const (
	ActionForward Action = 1
	ActionHold    Action = 2
	ActionBlock   Action = 3
	ActionPunt    Action = 4
)

// Accept says from where a record accepts packets.
type Accept uint8

// The kinds of acceptance.
const (
	AcceptNone Accept = 0 // from nowhere
	AcceptAddr Accept = 1 // from Record.Source, any port until one was learnt
	AcceptOpen Accept = 2 // the daemon decides: packets are punted
)

// Flags of a record.
type Flags uint8

// The flags.
const (
	FlagCheckRTP Flags = 1 << 0 // drop what is neither RTP nor RTCP
	FlagRTCP     Flags = 1 << 1 // the port of RTCP
	FlagCapture  Flags = 1 << 2 // reserved
	FlagPinned   Flags = 1 << 3 // reserved
)

// FirstRecord is the first position in the record pool that a record may have. In the pool of next hops and for Record.Peer, 0 means none.
const FirstRecord = 2

// Record is an entry of the record pool: what to do with packets that arrive at one local endpoint.
type Record struct {
	Generation uint32
	Action     Action
	Accept     Accept
	Flags      Flags
	Window     uint16 // learning window; a latch counts only in its own
	FromPort   uint16 // our source port on the way out
	Flow       uint32 // position in the flow pool
	Peer       uint32 // position of the record that sends to the party behind this endpoint; 0: none
	NextHop    uint32 // position in the pool of next hops; 0: none, packets are punted
	Source     netip.Addr
	// To is the destination. While its port is 0 packets are dropped; learning at the peer may set the port.
	To netip.AddrPort
}

// FlowState is what the program writes for one local endpoint.
type FlowState struct {
	Learnt     bool   // Port was learnt, in Window
	Window     uint16 // of the latch
	Port       uint16
	Packets    uint64 // forwarded by the program
	Bytes      uint64 // their UDP payload
	FirstSeen  uint64 // CLOCK_MONOTONIC, ns, to the resolution of the coarse clock; 0: never
	LastSeen   uint64
	Punted     uint32 // packets given to the slow path
	PuntReason Reason // of the latest of them
}

// NextHop is how to put a packet on the wire.
type NextHop struct {
	Ifindex uint32
	DMAC    [6]byte
	SMAC    [6]byte
	MTU     uint32 // largest IP packet, bytes
	From    netip.Addr
	Valid   bool // false: packets are punted
}

// Role holds the rights of the box: deadlines on CLOCK_MONOTONIC in ns, Never for no end.
type Role struct {
	ForwardUntil uint64
	OwnUntil     uint64
	Epoch        uint64
	State        uint32
}

// States of a Role.
const (
	StateStandalone uint32 = 1
	StateActive     uint32 = 2
	StateBackup     uint32 = 3
)

// Never is a deadline that does not come.
const Never = ^uint64(0)

// Capacity tells the sizes of the record pool (and of the flow pool) and of the pool of next hops.
func (p *Plane) Capacity() (records, nextHops uint32) {
	return uint32(len(p.records.slots)), uint32(len(p.nextHops.slots))
}

// WriteRecord writes the whole record at a position that no index entry points to.
func (p *Plane) WriteRecord(i uint32, r Record) { p.records.slots[i] = toRecord(r) }

// ReadRecord reads the record at a position.
func (p *Plane) ReadRecord(i uint32) Record { return fromRecord(p.records.slots[i]) }

// SetToPort replaces the destination port of a record in use, at once. The program does the same when it learns.
func (p *Plane) SetToPort(i uint32, port uint16) {
	// Two bytes that are aligned are stored in one piece on every architecture.
	*portField(&p.records.slots[i].ToPort) = portValue(port)
}

// Flow reads the state of a flow. Counters may be one packet apart.
func (p *Plane) Flow(i uint32) FlowState {
	f := &p.flows.slots[i]
	s := FlowState{
		Packets:    atomic.LoadUint64(&f.Packets),
		Bytes:      atomic.LoadUint64(&f.Bytes),
		FirstSeen:  atomic.LoadUint64(&f.FirstSeen),
		LastSeen:   atomic.LoadUint64(&f.LastSeen),
		Punted:     atomic.LoadUint32(&f.Punted),
		PuntReason: Reason(f.PuntReason),
	}
	s.Learnt, s.Window, s.Port = fromLatch(atomic.LoadUint64(&f.Latch))
	return s
}

// ClearFlow empties a flow that no record in use points to.
func (p *Plane) ClearFlow(i uint32) { p.flows.slots[i] = relayFlow{} }

// Latch learns the port in the window unless one was learnt in it before. It reports whether it did.
// The program does the same by compare-and-set.
func (p *Plane) Latch(i uint32, window, port uint16) bool {
	latch := &p.flows.slots[i].Latch
	for {
		old := atomic.LoadUint64(latch)
		if latchedIn(old, window) {
			return false
		}
		if atomic.CompareAndSwapUint64(latch, old, toLatch(window, port)) {
			return true
		}
	}
}

// SetLatch sets the learnt port whatever was learnt before.
func (p *Plane) SetLatch(i uint32, window, port uint16) {
	atomic.StoreUint64(&p.flows.slots[i].Latch, toLatch(window, port))
}

// WriteNextHop writes a next hop that records may be using. Position 0 means none and must not be written. MACs, MTU and validity change
// at once each; while interface or source address change, packets are punted.
func (p *Plane) WriteNextHop(i uint32, n NextHop) {
	slot, next := &p.nextHops.slots[i], toNextHop(n)
	first, second := words(slot)
	nextFirst, nextSecond := words(&next)
	if slot.Ifindex != next.Ifindex || slot.From != next.From {
		atomic.StoreUint64(first, 0)
	}
	slot.Vlan, slot.From = next.Vlan, next.From
	atomic.StoreUint32(&slot.Ifindex, next.Ifindex)
	atomic.StoreUint64(second, *nextSecond)
	atomic.StoreUint64(first, *nextFirst)
}

// ReadNextHop reads a next hop.
func (p *Plane) ReadNextHop(i uint32) NextHop { return fromNextHop(p.nextHops.slots[i]) }

// SetRole writes the rights. Deadlines are replaced at once each.
func (p *Plane) SetRole(r Role) {
	slot := &p.role.slots[0]
	atomic.StoreUint64(&slot.Epoch, r.Epoch)
	atomic.StoreUint32(&slot.State, r.State)
	atomic.StoreUint64(&slot.OwnUntil, r.OwnUntil)
	atomic.StoreUint64(&slot.ForwardUntil, r.ForwardUntil)
}

// Role reads the rights.
func (p *Plane) Role() Role {
	slot := &p.role.slots[0]
	return Role{
		ForwardUntil: atomic.LoadUint64(&slot.ForwardUntil),
		OwnUntil:     atomic.LoadUint64(&slot.OwnUntil),
		Epoch:        atomic.LoadUint64(&slot.Epoch),
		State:        atomic.LoadUint32(&slot.State),
	}
}

// SetDaemon writes the daemon's signs of life: when flows end without it, and until when something may be punted to it.
func (p *Plane) SetDaemon(orphanAt, aliveUntil uint64) {
	slot := &p.daemon.slots[0]
	atomic.StoreUint64(&slot.OrphanAt, orphanAt)
	atomic.StoreUint64(&slot.AliveUntil, aliveUntil)
}
