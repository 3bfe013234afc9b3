package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
)

const (
	measureRepeat = 1 << 20
	measureRounds = 7
	measurePorts  = 60000 // sessions per media address
	measureFirst  = 4096  // port
	measureMedia  = 256

	// MeasureMax is the largest number of sessions that Measure takes.
	MeasureMax = 1 << 20
)

// Measure runs the program by test runs over packets of random sessions and returns its time per packet, above that of the harness that
// makes the packets, and the harness's own, both in ns and the best of several rounds. Every packet is forwarded by a redirect.
// Drivers and the cache misses that come with real frames are not in it. It needs no pins and disturbs nothing.
func Measure(sessions int) (nsPerPacket, baselineNs float64, err error) {
	if sessions < 1 || sessions > MeasureMax {
		return 0, 0, fmt.Errorf("measure %d sessions: want 1 to %d", sessions, MeasureMax)
	}
	m, err := newMeasurement(uint32(sessions))
	if err != nil {
		return 0, 0, fmt.Errorf("measure %d sessions: %w", sessions, err)
	}
	defer m.close()
	relay, baseline, err := m.run()
	if err != nil {
		return 0, 0, fmt.Errorf("measure %d sessions: %w", sessions, err)
	}
	return float64(relay - baseline), float64(baseline), nil
}

type measurement struct {
	objects  measureObjects
	sessions uint32
	closers  []func() error
}

func (m *measurement) close() {
	for _, c := range m.closers {
		_ = c()
	}
	_ = m.objects.Close()
}

func newMeasurement(sessions uint32) (m *measurement, err error) {
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
	spec.Maps[relayMapMedia].MaxEntries = measureMedia
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	defer c.Close()
	m = &measurement{sessions: sessions}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if err := c.Assign(&m.objects.measureMaps); err != nil {
		return m, err
	}
	o := &m.objects
	o.MeasureBaseline, o.MeasureRelay = c.DetachProgram("measure_baseline"), c.DetachProgram("measure_relay")
	return m, errors.Join(m.fillTables(), m.fillMedia(spec.Maps[relayMapMedia].InnerMap))
}

var _ = time.Second
