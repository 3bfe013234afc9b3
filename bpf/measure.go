package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// MeasureMax is the largest number of sessions that Measure takes.
const MeasureMax = 1 << 20

const (
	measureRepeat = 1 << 19
	measureRounds = 9
	measurePorts  = 60000 // sessions per media address
	measureFirst  = 4096  // port
	// The test run comes in by the loopback interface; a device of another number makes the program redirect.
	measureDevice = 1 << 20
)

// Measure runs the program by test runs over packets of random sessions and returns its time per packet, above that of the harness that
// makes the packets, and the harness's own, both in ns, the best of several rounds. Every packet is forwarded by a redirect.
// Drivers, and cache misses that come with real frames, are not in it. It needs no pins and disturbs nothing.
func Measure(sessions int) (nsPerPacket, baselineNs float64, err error) {
	if sessions < 1 || sessions > MeasureMax {
		return 0, 0, fmt.Errorf("measure %d sessions: want 1 to %d", sessions, MeasureMax)
	}
	m, err := newMeasurement(uint32(sessions))
	if err == nil {
		defer m.close()
		nsPerPacket, baselineNs, err = m.run()
	}
	if err != nil {
		return 0, 0, fmt.Errorf("measure %d sessions: %w", sessions, err)
	}
	return nsPerPacket, baselineNs, nil
}

// measurement is the program with tables of its own, nothing of which is pinned or attached.
type measurement struct {
	collection *ebpf.Collection
	indices    []*index
	sessions   uint32
}

func newMeasurement(sessions uint32) (*measurement, error) {
	spec, err := loadMeasure()
	if err != nil {
		return nil, err
	}
	delete(spec.Maps, ".bss")
	clear(spec.Variables)
	delete(spec.Programs, relayProgTandemRelay)
	delete(spec.Programs, relayProgTandemSteer)
	spec.Maps[relayMapRecords].MaxEntries = sessions + FirstRecord
	spec.Maps[relayMapFlows].MaxEntries = sessions + FirstRecord
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	m := &measurement{collection: c, sessions: sessions}
	if err := errors.Join(m.fillTables(), m.fillMedia(spec.Maps[relayMapMedia].InnerMap), m.fillHarness()); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *measurement) close() {
	for _, x := range m.indices {
		_ = x.close()
	}
	m.collection.Close()
}

// The addresses are those of documentation and benchmarking (RFC 5737, RFC 2544).
func measureSource() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, 10}) }
func measureMedia() netip.Addr  { return netip.AddrFrom4([4]byte{198, 18, 0, 1}) }

func (m *measurement) fillTables() error {
	records, err := mapTable[relayRecord](m.collection.Maps[relayMapRecords])
	if err != nil {
		return err
	}
	defer func() { _ = records.close() }()
	flows, err := mapTable[relayFlow](m.collection.Maps[relayMapFlows])
	if err != nil {
		return err
	}
	defer func() { _ = flows.close() }()
	for i := range m.sessions {
		position := i + FirstRecord
		records.slots[position] = toRecord(Record{
			Action: ActionForward, Accept: AcceptAddr, Flags: FlagCheckRTP, Window: 1, FromPort: 20000,
			Flow: position, Peer: position, NextHop: 1 + i%8, Source: measureSource(),
			To: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, 20}), 30000),
		})
		flows.slots[position].Latch = toLatch(1, 40000)
	}
	hops, err := mapTable[relayNextHop](m.collection.Maps[relayMapNextHops])
	if err != nil {
		return err
	}
	defer func() { _ = hops.close() }()
	for i := 1; i <= 8; i++ {
		hops.slots[i] = toNextHop(NextHop{Ifindex: measureDevice, MTU: 1500, From: measureMedia(), Valid: true})
	}
	c := m.collection.Maps
	return errors.Join(
		c[relayMapDevices].Put(uint32(measureDevice), uint32(1)),
		c[relayMapRole].Put(uint32(0), &relayRole{ForwardUntil: Never}),
		c[relayMapDaemon].Put(uint32(0), &relayDaemon{OrphanAt: Never, AliveUntil: Never}),
	)
}

func (m *measurement) fillMedia(inner *ebpf.MapSpec) error {
	addr := measureMedia()
	for first := uint32(0); first < m.sessions; first += measurePorts {
		object, err := ebpf.NewMap(inner)
		if err != nil {
			return fmt.Errorf("make index: %w", err)
		}
		x, err := newIndex(object)
		if err != nil {
			return err
		}
		m.indices = append(m.indices, x)
		for i := range min(measurePorts, m.sessions-first) {
			x.entries()[measureFirst+i] = first + i + FirstRecord
		}
		if err := m.collection.Maps[relayMapMedia].Put(toAddress(addr), object); err != nil {
			return fmt.Errorf("publish index: %w", err)
		}
		addr = addr.Next()
	}
	return nil
}

// fillHarness says to the harness what packets to make, in the order of its struct.
func (m *measurement) fillHarness() error {
	values := [6]uint32{m.sessions, addressWord(measureMedia()), measureFirst, measurePorts, addressWord(measureSource()), 40000}
	if err := m.collection.Maps["harness"].Put(uint32(0), &values); err != nil {
		return fmt.Errorf("set harness: %w", err)
	}
	return nil
}

func (m *measurement) run() (nsPerPacket, baselineNs float64, err error) {
	packet := measurePacket()
	// The first touch of every page and session is not what is measured.
	if _, _, err := m.collection.Programs["measure_relay"].Benchmark(packet, measureRepeat, nil); err != nil {
		return 0, 0, err
	}
	before, err := m.forwarded()
	if err != nil {
		return 0, 0, err
	}
	best := map[string]float64{}
	for range measureRounds {
		for _, name := range []string{"measure_baseline", "measure_relay"} {
			_, took, err := m.collection.Programs[name].Benchmark(packet, measureRepeat, nil)
			if err != nil {
				return 0, 0, err
			}
			if ns := float64(took.Nanoseconds()); best[name] == 0 || ns < best[name] {
				best[name] = ns
			}
		}
	}
	after, err := m.forwarded()
	if err != nil {
		return 0, 0, err
	}
	if after-before < measureRounds*measureRepeat {
		return 0, 0, fmt.Errorf("only %d of %d packets were forwarded", after-before, measureRounds*measureRepeat)
	}
	return best["measure_relay"] - best["measure_baseline"], best["measure_baseline"], nil
}

func (m *measurement) forwarded() (n uint64, err error) {
	var perCPU []relayReasonCount
	if err := m.collection.Maps[relayMapReasons].Lookup(uint32(ReasonForwardedRedirect), &perCPU); err != nil {
		return 0, fmt.Errorf("read counters: %w", err)
	}
	for _, c := range perCPU {
		n += c.Packets
	}
	return n, nil
}

// measurePacket is G.711 of 20 ms; the harness fills in addresses and ports.
func measurePacket() []byte {
	const payload = 12 + 160
	p := make([]byte, 14+20+8+payload)
	copy(p[12:], []byte{0x08, 0x00, 0x45, 0xb8, 0, 20 + 8 + payload})
	p[14+6] = 0x40
	p[14+9] = 17
	p[14+20+5] = 8 + payload
	p[14+20+8] = 0x80
	return p
}
