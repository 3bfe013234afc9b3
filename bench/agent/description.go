package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Describe returns a session description (RFC 8866) of one G.711 μ-law stream, received and sent at the address.
func Describe(media netip.AddrPort) []byte {
	family := "IP4"
	if media.Addr().Is6() {
		family = "IP6"
	}
	return fmt.Appendf(nil, "v=0\r\no=bench 1 1 IN %[1]s %[2]s\r\ns=call\r\nc=IN %[1]s %[2]s\r\nt=0 0\r\n"+
		"m=audio %[3]d RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\na=sendrecv\r\n", family, media.Addr(), media.Port())
}

// Media returns where a session description wants its first m= line's media.
func Media(description []byte) (netip.AddrPort, error) {
	var host, port string
	for line := range strings.SplitSeq(string(description), "\n") {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "m=") && port != "":
			return endpoint(host, port) // the second m= line
		case strings.HasPrefix(line, "m=") && len(fields) > 1:
			port = fields[1]
		case strings.HasPrefix(line, "c=") && len(fields) == 3:
			host = fields[2]
		}
	}
	if port == "" {
		return netip.AddrPort{}, errors.New("session description without m= line")
	}
	return endpoint(host, port)
}

func endpoint(host, port string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("c= line: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("m= line: %w", err)
	}
	return netip.AddrPortFrom(addr, uint16(n)), nil
}
