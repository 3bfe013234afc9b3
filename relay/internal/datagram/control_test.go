package datagram

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSockaddr(t *testing.T) {
	for _, text := range []string{"192.0.2.1:20000", "[2001:db8::1]:65535", "127.0.0.1:1"} {
		want := netip.MustParseAddrPort(text)
		b := make([]byte, unix.SizeofSockaddrInet6)
		for i := range b {
			b[i] = 0xff // what an earlier packet left
		}
		n := PutSockaddr(b, want)
		if got := Sockaddr(b[:n]); got != want {
			t.Errorf("%s came back as %s", want, got)
		}
	}
	mapped := netip.AddrPortFrom(netip.MustParseAddr("::ffff:192.0.2.1"), 7)
	b := make([]byte, unix.SizeofSockaddrInet6)
	if n := PutSockaddr(b, mapped); n != unix.SizeofSockaddrInet4 || Sockaddr(b[:n]).String() != "192.0.2.1:7" {
		t.Errorf("a mapped address is written with %d octets as %s", n, Sockaddr(b[:n]))
	}
}

func TestSockaddrMalformed(t *testing.T) {
	good := make([]byte, unix.SizeofSockaddrInet6)
	n := PutSockaddr(good, netip.MustParseAddrPort("[2001:db8::1]:9"))
	for length := range n - 4 { // the scope at the end is not read
		if got := Sockaddr(good[:length]); got.IsValid() {
			t.Errorf("%d octets gave %s", length, got)
		}
	}
	good[0], good[1] = unix.AF_UNIX, 0
	if got := Sockaddr(good); got.IsValid() {
		t.Errorf("a foreign family gave %s", got)
	}
}

func TestParseTOS(t *testing.T) {
	tests := []struct {
		name, reason string
		v6           bool
		tos, want    uint8
	}{
		{"none", "a class of 0 needs no message", false, 0, 0},
		{"expedited forwarding with ECN", "DSCP and ECN travel together", false, 46<<2 | 1, 46<<2 | 1},
		{"all ones", "the whole octet counts", false, 255, 255},
		{"IPv6", "the class is an int there", true, 46<<2 | 2, 46<<2 | 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			oob := AppendTOS(nil, tt.v6, tt.tos)
			if len(oob)%unix.CmsgSpace(0) != 0 && len(oob) != unix.CmsgSpace(4) {
				t.Errorf("length %d", len(oob))
			}
			if got := Parse(oob).TOS; got != tt.want {
				t.Errorf("%s: got %#x, want %#x", tt.reason, got, tt.want)
			}
		})
	}
}

// FuzzParse: no control buffer, however broken, makes Parse panic or read beyond it.
func FuzzParse(f *testing.F) {
	f.Add(AppendTOS(nil, false, 184))
	f.Add(AppendTOS(AppendTOS(nil, true, 184), false, 1))
	f.Add([]byte{16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { Parse(b[:len(b):len(b)]) })
}
