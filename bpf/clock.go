package bpf

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now reads the clock on which deadlines and times of packets stand: CLOCK_MONOTONIC in ns.
func Now() uint64 {
	var ts unix.Timespec
	// It cannot fail for this clock.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return uint64(ts.Nano())
}

// Deadline is the time d from now.
func Deadline(d time.Duration) uint64 { return Now() + uint64(d) }

// Time turns a time of the monotonic clock into wall-clock time. 0 gives the zero Time.
func Time(monotonic uint64) time.Time {
	if monotonic == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(monotonic) - time.Duration(Now()))
}
