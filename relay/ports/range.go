package ports

import (
	"fmt"
	"strconv"
	"strings"
)

// Range is a range of UDP ports, both ends included.
type Range struct{ First, Last uint16 }

// ParseRange reads "20000-39999". Blanks around the numbers are allowed. The range is checked.
func ParseRange(text string) (Range, error) {
	first, last, ok := strings.Cut(text, "-")
	if !ok {
		return Range{}, fmt.Errorf("port range %q: want FIRST-LAST", text)
	}
	var r Range
	for _, part := range []struct {
		text string
		port *uint16
	}{{first, &r.First}, {last, &r.Last}} {
		n, err := strconv.ParseUint(strings.TrimSpace(part.text), 10, 16)
		if err != nil {
			return Range{}, fmt.Errorf("port range %q: %q is not a port from 1 to 65535", text, strings.TrimSpace(part.text))
		}
		*part.port = uint16(n)
	}
	return r, r.Check()
}

// Check tells what is wrong with the range: it starts at 0, runs backwards, or holds no even/odd pair.
func (r Range) Check() error {
	switch {
	case r.First == 0:
		return fmt.Errorf("port range %v starts at 0", r)
	case r.First > r.Last:
		return fmt.Errorf("port range %v runs backwards", r)
	case r.Pairs() == 0:
		return fmt.Errorf("port range %v holds no pair of an even port and the next", r)
	}
	return nil
}

// Pairs is the number of pairs of an even port and the next that lie in the range.
func (r Range) Pairs() int {
	return max(0, (int(r.Last)-(int(r.First)+int(r.First)%2)+1)/2)
}

// Contains reports whether the port lies in the range.
func (r Range) Contains(port uint16) bool { return r.First <= port && port <= r.Last }

// Overlaps reports whether the ranges have a port in common.
func (r Range) Overlaps(other Range) bool { return r.First <= other.Last && other.First <= r.Last }

// String writes the range as ParseRange reads it.
func (r Range) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

func (r Range) firstEven() uint16 { return r.First + r.First%2 }
