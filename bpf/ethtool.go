package bpf

import (
	"bytes"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	ethtoolStrings     = 0x1b
	ethtoolStats       = 0x1d
	ethtoolSetStats    = 1 // the set of strings that names statistics
	ethtoolStringSize  = 32
	ethtoolStatsHeader = 8
	ethtoolNamesHeader = 12
)

// driverXDPSent sums up the driver's own counters of frames that it sent for XDP; 0 where it has none.
func driverXDPSent(device string) uint64 {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer func() { _ = unix.Close(fd) }()
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, device)
	if err != nil || info.N_stats == 0 || info.N_stats > 1<<16 {
		return 0
	}
	n := info.N_stats
	// Both requests start with words: command, then set and count, or count alone. The driver may fill more than was asked for
	// if queues were added just now, so leave room.
	names := make([]uint32, (ethtoolNamesHeader+2*int(n)*ethtoolStringSize)/4)
	names[0], names[1], names[2] = ethtoolStrings, ethtoolSetStats, n
	values := make([]uint64, 1+2*n)
	header := (*[2]uint32)(unsafe.Pointer(&values[0]))
	header[0], header[1] = ethtoolStats, n
	if !ethtool(fd, device, unsafe.Pointer(&names[0])) || !ethtool(fd, device, unsafe.Pointer(&values[0])) {
		return 0
	}
	text := unsafe.Slice((*byte)(unsafe.Pointer(&names[0])), 4*len(names))[ethtoolNamesHeader:]
	var sum uint64
	for i := range min(int(n), int(names[2]), int(header[1])) {
		name := text[i*ethtoolStringSize : (i+1)*ethtoolStringSize]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		if countsXDPSent(string(name)) {
			sum += values[ethtoolStatsHeader/8+i]
		}
	}
	return sum
}

// ethtool runs a request that starts at data.
func ethtool(fd int, device string, data unsafe.Pointer) bool {
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		pad  [16]byte
	}
	if len(device) >= len(request.name) {
		return false
	}
	copy(request.name[:], device)
	request.data = data
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	return errno == 0
}

// countsXDPSent recognizes a driver's own counter of frames that it sent for XDP. Some drivers leave these out of the totals.
func countsXDPSent(name string) bool {
	name = strings.ToLower(name)
	if !strings.Contains(name, "xdp") || (!strings.Contains(name, "xmit") && !strings.Contains(name, "tx")) {
		return false
	}
	for _, other := range []string{"err", "drop", "full", "cqe", "nops", "inlnw", "mpwqe", "byte", "rx"} {
		if strings.Contains(name, other) {
			return false
		}
	}
	return true
}
