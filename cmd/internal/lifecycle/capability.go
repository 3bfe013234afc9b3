package lifecycle

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Need is a capability and what does not work without it.
type Need struct {
	Name  string // as in capabilities(7)
	Bit   int
	Other []int // capabilities that include it
	For   string
}

// NeedsXDP are the capabilities that the XDP data plane needs.
func NeedsXDP() []Need {
	return []Need{
		{"CAP_BPF", unix.CAP_BPF, []int{unix.CAP_SYS_ADMIN}, "programs and maps cannot be loaded into the kernel"},
		{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, nil, "the program cannot be attached to interfaces, and neighbours cannot be kept alive"},
	}
}

// MissingError names capabilities that the process lacks.
type MissingError struct{ Needs []Need }

func (e *MissingError) Error() string {
	var b strings.Builder
	for i, n := range e.Needs {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s is missing: %s", n.Name, n.For)
	}
	return b.String()
}

// CheckCapabilities returns *MissingError if the process lacks some of the needs.
func CheckCapabilities(needs []Need) error {
	effective, err := capabilities()
	if err != nil {
		return err
	}
	return missing(needs, effective)
}

func missing(needs []Need, effective uint64) error {
	var lacking []Need
	for _, n := range needs {
		has := effective&(1<<n.Bit) != 0
		for _, bit := range n.Other {
			has = has || effective&(1<<bit) != 0
		}
		if !has {
			lacking = append(lacking, n)
		}
	}
	if len(lacking) > 0 {
		return &MissingError{lacking}
	}
	return nil
}

// capabilities is the effective set of the process.
func capabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}
