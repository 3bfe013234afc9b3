package bpf

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
)

// ErrEgress: what is redirected to an interface does not come out of it.
var ErrEgress = errors.New("redirected frames do not leave")

const (
	// liveFrames makes a test run send what the program decides (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18).
	liveFrames = 1 << 1

	proofFrames   = 64
	proofBaseline = 20 * time.Millisecond
	proofPatience = time.Second
	proofPoll     = 2 * time.Millisecond
)

// xdpContext is the part of a program's context that a test run may set (struct xdp_md).
type xdpContext struct {
	Data, DataEnd, DataMeta, IngressIfindex, RxQueueIndex, EgressIfindex uint32
}

// InjectPass makes the kernel receive a frame n times as if it had come in by the interface and the program had passed it.
// The interface must be in the current network namespace.
func InjectPass(ifindex uint32, frame []byte, n int) error {
	objects, err := openProbe()
	if err != nil {
		return err
	}
	defer func() { _ = objects.Close() }()
	// One by one: a frame that is recycled within one run would come back as the kernel left it.
	for range n {
		_, err := objects.ProbePass.Run(&ebpf.RunOptions{
			Data:    frame,
			Context: &xdpContext{DataEnd: uint32(len(frame)), IngressIfindex: ifindex},
			Repeat:  1,
			Flags:   liveFrames,
		})
		if err != nil {
			return fmt.Errorf("inject frame at interface %d: %w", ifindex, err)
		}
	}
	return nil
}

// ProveEgress redirects a few frames to the interface and waits for its counters to show that they left (ErrEgress, with the reason as far
// as it can be seen). The frames go from the interface's own hardware address to mac; the EtherType is that of local experiments
// (IEEE 802, 88B5), which nobody answers. Take the interface's own address for mac where neighbours should not see them.
// The interface must be up and in the current network namespace. It may take a second.
func ProveEgress(ifindex uint32, mac net.HardwareAddr) error {
	dev, err := netlink.LinkByIndex(int(ifindex))
	if err != nil {
		return fmt.Errorf("prove egress of interface %d: %w", ifindex, err)
	}
	name := dev.Attrs().Name
	if err := proveEgress(dev, mac); err != nil {
		return fmt.Errorf("prove egress of %s: %w", name, err)
	}
	return nil
}

func proveEgress(dev netlink.Link, mac net.HardwareAddr) error {
	ifindex := dev.Attrs().Index
	if dev.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("%w: the interface is down", ErrEgress)
	}
	objects, err := openProbe()
	if err != nil {
		return err
	}
	defer func() { _ = objects.Close() }()
	if err := objects.Egress.Put(uint32(0), uint32(ifindex)); err != nil {
		return fmt.Errorf("%w: the driver cannot send for XDP: %w", ErrEgress, err)
	}

	// Other traffic raises the counters too: send so many frames that they stand out.
	rate, err := backgroundRate(ifindex)
	if err != nil {
		return err
	}
	n := proofFrames + int(rate*proofBaseline.Seconds()*10)
	before, err := readSent(ifindex)
	if err != nil {
		return err
	}
	if _, err := objects.ProbeEgress.Run(&ebpf.RunOptions{
		Data:   proofFrame(dev.Attrs().HardwareAddr, mac),
		Repeat: uint32(n),
		Flags:  liveFrames,
	}); err != nil {
		return fmt.Errorf("send test frames: %w", err)
	}
	start := time.Now()
	for {
		now, err := readSent(ifindex)
		if err != nil {
			return err
		}
		elapsed := time.Since(start)
		// Half of the frames is proof enough; twice the other traffic is what it may have grown to.
		if float64(now.packets-before.packets) > float64(n)/2+2*rate*elapsed.Seconds() || now.xdp-before.xdp >= uint64(n)/2 {
			return nil
		}
		if elapsed > proofPatience {
			return fmt.Errorf("%w: %d sent, %d seen by its counters%s", ErrEgress, n, now.packets-before.packets, egressHint(dev))
		}
		time.Sleep(proofPoll)
	}
}

func egressHint(dev netlink.Link) string {
	if dev.Attrs().OperState != netlink.OperUp && dev.Attrs().OperState != netlink.OperUnknown {
		return fmt.Sprintf("; its link is %s: connect the cable, or bring the peer of a veth up", dev.Attrs().OperState)
	}
	if dev.Type() == "veth" {
		return "; the peer of a veth needs a native XDP program or GRO (in the peer's namespace: ethtool -K PEER gro on, then this end down and up again)"
	}
	return "; its driver does not send for XDP, or has too few queues"
}

func proofFrame(src, dst net.HardwareAddr) []byte {
	frame := make([]byte, 60)
	copy(frame[0:6], dst)
	copy(frame[6:12], src)
	copy(frame[12:], []byte{0x88, 0xb5})
	copy(frame[14:], "tandem egress test")
	return frame
}

// sent is what an interface says it sent: in all, and for XDP as far as its driver counts that by itself.
type sent struct{ packets, xdp uint64 }

func readSent(ifindex int) (sent, error) {
	dev, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return sent{}, fmt.Errorf("read counters: %w", err)
	}
	var s sent
	if st := dev.Attrs().Statistics; st != nil {
		s.packets = st.TxPackets
	}
	s.xdp = driverXDPSent(dev.Attrs().Name)
	return s, nil
}

func backgroundRate(ifindex int) (perSecond float64, err error) {
	before, err := readSent(ifindex)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	time.Sleep(proofBaseline)
	after, err := readSent(ifindex)
	if err != nil {
		return 0, err
	}
	return float64(after.packets-before.packets) / time.Since(start).Seconds(), nil
}

func openProbe() (*probeObjects, error) {
	o := &probeObjects{}
	if err := loadProbeObjects(o, nil); err != nil {
		return nil, fmt.Errorf("load probe programs: %w", err)
	}
	return o, nil
}
