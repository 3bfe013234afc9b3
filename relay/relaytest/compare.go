package relaytest

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tandem-relay/tandem/relay"
)

// Compare plays one random story in several worlds at once and requires that all of them show the same after each step:
// who received what from where with which DSCP and ECN, why packets were dropped, and what was learnt and counted. The seed
// makes the story; steps is its length. Sides and hosts must be the same in all worlds, addresses need not.
func Compare(t *testing.T, seed uint64, steps int, worlds ...World) {
	t.Helper()
	tales := make([]*tale, len(worlds))
	for i, world := range worlds {
		tales[i] = newTale(t, world, fmt.Sprintf("compare-%d", seed))
		defer tales[i].stage.end()
	}
	random := rand.New(rand.NewPCG(seed, 1))
	var story []string
	for range steps {
		step := nextStep(random)
		story = append(story, step.String())
		for _, tale := range tales {
			tale.take(step)
		}
		if !tales[0].stage.eventually(func() bool {
			if slices.ContainsFunc(tales, func(tale *tale) bool { return !tale.settled() }) {
				return false
			}
			first := tales[0].show()
			return !slices.ContainsFunc(tales[1:], func(other *tale) bool { return other.show() != first })
		}) {
			for _, tale := range tales {
				t.Errorf("%s shows:\n%s", tale.stage.world.Plane().Name(), tale.show())
			}
			t.Fatalf("seed %d: the planes differ, or a packet is missing, after:\n%s", seed, strings.Join(story[max(0, len(story)-12):], "\n"))
		}
	}
}

// The cast of a tale: on each side two local endpoints and, at every host, two parties.
const (
	taleLocals  = 4
	taleParties = 4 * Hosts
)

// tale is a random story as one world shows it.
type tale struct {
	stage    *Stage
	locals   [taleLocals]netip.AddrPort
	parties  [taleParties]*Party
	received []string // sorted
	sent     int
	dropped  map[string]uint64 // before the story
	ended    int               // packets that records carried which are gone
	told     map[netip.AddrPort]netip.AddrPort
}

// sideOf returns the side of local endpoint or party i of n.
func sideOf(i, n int) string {
	if i < n/2 {
		return Outside
	}
	return Inside
}

func newTale(t *testing.T, world World, name string) *tale {
	s := newStage(t, world, name, LastPort-31)
	tale := &tale{stage: s, dropped: s.reasons(), told: make(map[netip.AddrPort]netip.AddrPort)}
	for i := range tale.locals {
		tale.locals[i] = s.Local(sideOf(i, taleLocals), i%2*2)
	}
	for i := range tale.parties {
		tale.parties[i] = s.Party(sideOf(i, taleParties), i%(taleParties/2)/2)
	}
	return tale
}

// step is one move: new records, or a packet.
type step struct {
	records []recordPlan
	packet  *packetPlan
}

// recordPlan is a record without addresses. Indexes are those of the cast.
type recordPlan struct {
	local     int
	component relay.Component
	action    relay.Action
	check     bool
	window    uint16
	any       bool
	hosts     []int
	outputs   [][2]int // local endpoint, party or -1
}

// packetPlan is a packet without addresses.
type packetPlan struct {
	party, local int
	tos          uint8
	payload      []byte
}

func (s step) String() string {
	if s.packet != nil {
		return fmt.Sprintf("party %d sends to local %d: TOS %#x, %d octets % x", s.packet.party, s.packet.local, s.packet.tos,
			len(s.packet.payload), s.packet.payload[:min(8, len(s.packet.payload))])
	}
	return fmt.Sprintf("records %+v", s.records)
}

func nextStep(r *rand.Rand) step {
	if r.IntN(8) == 0 {
		var s step
		for i := range taleLocals {
			if r.IntN(10) > 0 {
				s.records = append(s.records, nextRecord(r, i))
			}
		}
		return s
	}
	p := &packetPlan{local: r.IntN(taleLocals), tos: uint8(r.Uint32()), payload: nextPayload(r)}
	// From the right side: the other one has no route.
	p.party = r.IntN(taleParties / 2)
	if sideOf(p.local, taleLocals) == Inside {
		p.party += taleParties / 2
	}
	return step{packet: p}
}

func nextRecord(r *rand.Rand, local int) recordPlan {
	plan := recordPlan{
		local: local, component: relay.Component(r.IntN(2)), check: r.IntN(3) > 0, window: uint16(r.IntN(3)),
		action: relay.Forward, any: r.IntN(5) == 0,
	}
	if r.IntN(3) == 0 {
		plan.action = relay.Action(1 + r.IntN(int(relay.Punt)))
	}
	for host := range Hosts {
		if r.IntN(2) == 0 {
			plan.hosts = append(plan.hosts, host)
		}
	}
	for range []int{1, 1, 1, 1, 0, 2, 3}[r.IntN(7)] {
		from := (local + 1 + r.IntN(taleLocals-1)) % taleLocals // an echo is no relaying
		to := -1
		if r.IntN(4) > 0 {
			to = r.IntN(taleParties / 2)
			if sideOf(from, taleLocals) == Inside {
				to += taleParties / 2
			}
		}
		plan.outputs = append(plan.outputs, [2]int{from, to})
	}
	return plan
}

func nextPayload(r *rand.Rand) []byte {
	switch r.IntN(8) {
	case 0:
		return RTCP()
	case 1:
		return STUN()
	case 2:
		b := RTP(uint16(r.Uint32()), 20)[:r.IntN(33)]
		if len(b) > 0 && r.IntN(2) == 0 {
			b[r.IntN(min(2, len(b)))] = byte(r.Uint32())
		}
		return b
	case 3:
		return RTP(uint16(r.Uint32()), 1400+r.IntN(3000))
	}
	return RTP(uint16(r.Uint32()), r.IntN(1400))
}

// take carries a step out. A packet to a local endpoint without a record is left out: what becomes of it differs.
func (t *tale) take(s step) {
	if s.packet != nil {
		at := t.locals[s.packet.local]
		if slices.ContainsFunc(t.stage.records, func(r relay.Record) bool { return r.Local == at }) {
			t.parties[s.packet.party].Send(at, s.packet.tos, s.packet.payload)
			t.sent++
		}
		return
	}
	for _, f := range t.flows() {
		if !slices.ContainsFunc(s.records, func(plan recordPlan) bool { return t.locals[plan.local] == f.Local }) {
			t.ended += int(sum(f.Packets))
		}
	}
	var records []relay.Record
	for _, plan := range s.records {
		records = append(records, t.record(plan))
	}
	t.stage.Apply(records...)
	for _, f := range t.flows() {
		if !f.Learnt.IsValid() {
			delete(t.told, f.Local)
		}
	}
}

func (t *tale) record(plan recordPlan) relay.Record {
	side := sideOf(plan.local, taleLocals)
	r := relay.Record{
		Local: t.locals[plan.local], Network: side, Component: plan.component, Action: plan.action, CheckRTP: plan.check,
		Window: plan.window, Accept: relay.AcceptSet{Any: plan.any},
	}
	for _, host := range plan.hosts {
		index := 2 * host
		if side == Inside {
			index += taleParties / 2
		}
		r.Accept.Nets = append(r.Accept.Nets, From(t.parties[index].Addr.Addr()).Nets...)
	}
	for _, o := range plan.outputs {
		out := relay.Output{From: t.locals[o[0]], Network: sideOf(o[0], taleLocals)}
		if o[1] >= 0 {
			out.To = t.parties[o[1]].Addr
		}
		r.Outputs = append(r.Outputs, out)
	}
	return r
}

// settled reports whether every packet of the story has been forwarded and received, or dropped, and what was learnt
// was told: until then a plane may still be about to use it.
func (t *tale) settled() bool {
	t.listen()
	forwarded, dropped := t.ends()
	ended := forwarded
	for _, n := range dropped {
		ended += int(n)
	}
	return ended == t.sent && len(t.received) >= forwarded && !slices.ContainsFunc(t.flows(), func(f relay.Flow) bool {
		return f.Learnt.IsValid() && t.told[f.Local] != f.Learnt
	})
}

// listen takes what has arrived: packets and events.
func (t *tale) listen() {
	for i, p := range t.parties {
		for got, ok := p.poll(); ok; got, ok = p.poll() {
			line := fmt.Sprintf("  party %d got from local %d: TOS %#x, %d octets, crc %08x\n",
				i, slices.Index(t.locals[:], got.Remote), got.TOS, len(got.Payload), crc32.ChecksumIEEE(got.Payload))
			at, _ := slices.BinarySearch(t.received, line)
			t.received = slices.Insert(t.received, at, line)
		}
	}
	for {
		select {
		case e := <-t.stage.world.Plane().Events():
			if e.Session == t.stage.session {
				t.told[e.Local] = e.Remote
			}
		default:
			return
		}
	}
}

func (t *tale) flows() []relay.Flow { return t.stage.world.Plane().Flows(t.stage.session) }

// ends counts the packets that were forwarded and, by reason, those that were dropped. A packet that is both malformed and
// from a wrong port is counted under either; which of them depends on its path.
func (t *tale) ends() (forwarded int, dropped map[string]uint64) {
	dropped = t.stage.reasons()
	for name := range dropped {
		if dropped[name] -= t.dropped[name]; dropped[name] == 0 {
			delete(dropped, name)
		}
	}
	dropped["refused"] = dropped["malformed_rtp"] + dropped["source_mismatch"]
	delete(dropped, "malformed_rtp")
	delete(dropped, "source_mismatch")
	forwarded = t.ended
	for _, f := range t.flows() {
		forwarded += int(sum(f.Packets))
	}
	return forwarded, dropped
}

// show tells all that can be seen so far.
func (t *tale) show() string {
	forwarded, dropped := t.ends()
	var b strings.Builder
	fmt.Fprintf(&b, "%d sent, %d forwarded, dropped %v\n", t.sent, forwarded, dropped)
	flows := t.flows()
	slices.SortFunc(flows, func(a, b relay.Flow) int { return a.Local.Compare(b.Local) })
	for _, f := range flows {
		learnt := slices.IndexFunc(t.parties[:], func(p *Party) bool { return p.Addr == f.Learnt })
		fmt.Fprintf(&b, "  local %d component %d action %d: learnt party %d, %d packets, %d octets, alive %t\n",
			slices.Index(t.locals[:], f.Local), f.Component, f.Action, learnt, sum(f.Packets), sum(f.Bytes), !f.LastSeen.IsZero())
	}
	return b.String() + strings.Join(t.received, "")
}
