package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"
)

// This file alone knows how values lie in the maps: addresses and ports as bytes in network order, everything else as the host has it.

func toAddress(a netip.Addr) [16]byte {
	if !a.IsValid() {
		return [16]byte{}
	}
	return a.As16()
}

// fromAddress gives the zero Addr for sixteen zero bytes: no party has the address ::.
func fromAddress(b [16]byte) netip.Addr {
	if b == ([16]byte{}) {
		return netip.Addr{}
	}
	return netip.AddrFrom16(b).Unmap()
}

func toPort(p uint16) (b [2]byte) {
	binary.BigEndian.PutUint16(b[:], p)
	return b
}

func fromPort(b [2]byte) uint16 { return binary.BigEndian.Uint16(b[:]) }

func toRecord(r Record) relayRecord {
	return relayRecord{
		Generation: r.Generation,
		Action:     uint8(r.Action),
		Accept:     uint8(r.Accept),
		Flags:      uint8(r.Flags),
		Window:     r.Window,
		FromPort:   toPort(r.FromPort),
		Flow:       r.Flow,
		Peer:       r.Peer,
		NextHop:    r.NextHop,
		Source:     toAddress(r.Source),
		To:         toAddress(r.To.Addr()),
		ToPort:     toPort(r.To.Port()),
	}
}

func fromRecord(r relayRecord) Record {
	return Record{
		Generation: r.Generation,
		Action:     Action(r.Action),
		Accept:     Accept(r.Accept),
		Flags:      Flags(r.Flags),
		Window:     r.Window,
		FromPort:   fromPort(r.FromPort),
		Flow:       r.Flow,
		Peer:       r.Peer,
		NextHop:    r.NextHop,
		Source:     fromAddress(r.Source),
		To:         netip.AddrPortFrom(fromAddress(r.To), fromPort(r.ToPort)),
	}
}

func toNextHop(n NextHop) relayNextHop {
	out := relayNextHop{
		Dmac:    n.DMAC,
		Smac:    n.SMAC,
		Mtu:     uint16(min(n.MTU, 65535)),
		Ifindex: n.Ifindex,
		From:    toAddress(n.From),
	}
	if n.Valid {
		out.Valid = 1
	}
	return out
}

func fromNextHop(n relayNextHop) NextHop {
	return NextHop{
		Ifindex: n.Ifindex,
		DMAC:    n.Dmac,
		SMAC:    n.Smac,
		MTU:     uint32(n.Mtu),
		From:    fromAddress(n.From),
		Valid:   n.Valid != 0,
	}
}

func decodeEvent(raw []byte) (Event, error) {
	var e relayEvent
	if _, err := binary.Decode(raw, binary.NativeEndian, &e); err != nil {
		return Event{}, fmt.Errorf("decode event of %d bytes: %w", len(raw), err)
	}
	return Event{
		Kind:       EventKind(e.Kind),
		Record:     e.Record,
		Generation: e.Generation,
		Local:      netip.AddrPortFrom(fromAddress(e.Local), fromPort(e.LocalPort)),
		Remote:     netip.AddrPortFrom(fromAddress(e.Remote), fromPort(e.RemotePort)),
		Time:       e.Time,
	}, nil
}

const latchLearnt = 1 << 32

func toLatch(window, port uint16) uint64 {
	return latchLearnt | uint64(window)<<16 | uint64(port)
}

func fromLatch(l uint64) (learnt bool, window, port uint16) {
	return l&latchLearnt != 0, uint16(l >> 16), uint16(l)
}

// latchedIn reports whether the latch was learnt in the given window.
func latchedIn(l uint64, window uint16) bool { return l>>16 == toLatch(window, 0)>>16 }

// words gives the two leading words of a next hop, each of which the program reads at once.
func words(n *relayNextHop) (first, second *uint64) {
	return (*uint64)(unsafe.Pointer(&n.Dmac)), (*uint64)(unsafe.Pointer(&n.Smac))
}

// portField is a port of a mapped record as the program reads it: at once. The value is in the host's order of its bytes.
func portField(b *[2]byte) *uint16 { return (*uint16)(unsafe.Pointer(b)) }

func portValue(p uint16) uint16 {
	b := toPort(p)
	return binary.NativeEndian.Uint16(b[:])
}

// metaABI reads the version, which stands first in every layout.
func metaABI(raw []byte) uint32 { return binary.NativeEndian.Uint32(raw) }

func metaFrom(raw []byte, m *relayMeta) bool {
	if len(raw) != int(unsafe.Sizeof(*m)) {
		return false
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(m)), len(raw)), raw)
	return true
}

// addressWord is an IPv4 address as a packet holds it, read as a word.
func addressWord(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

// indexEntries looks at an index's pairs as entries. The even port's stands in the lower half, which comes first in the byte order of the
// machines that the object is made for.
func indexEntries(pairs []uint64) *[65536]uint32 {
	return (*[65536]uint32)(unsafe.Slice((*uint32)(unsafe.Pointer(&pairs[0])), 2*len(pairs)))
}
