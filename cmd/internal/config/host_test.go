package config

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tandem-relay/tandem/relay/ports"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestEphemeral(t *testing.T) {
	const hint = "reserve them: sysctl -w net.ipv4.ip_local_reserved_ports="
	cases := []struct {
		name     string
		reserved []ports.Range
		outside  string // ports of 203.0.113.10, a /32 that the host does not use
		inside   string // ports of 10.0.0.1, which it uses
		want     string // in the error; empty: accepted
	}{
		{"below the ephemeral ports", nil, "40000-49999", "20000-32767", ""},
		{"above the ephemeral ports", nil, "40000-49999", "61000-61999", ""},
		{"the first ephemeral port", nil, "40000-49999", "20000-32769", hint + "20000-32769 "},
		{"the last ephemeral port", nil, "40000-49999", "60998-61999", hint + "60998-61999 "},
		{"reserved as a whole", []ports.Range{{First: 40000, Last: 49999}}, "40000-49999", "40000-49999", ""},
		{"reserved in pieces, out of order", []ports.Range{{First: 45000, Last: 50000}, {First: 30000, Last: 44999}}, "40000-49999", "40000-49999", ""},
		{"reserved but for one port", []ports.Range{{First: 40000, Last: 44998}, {First: 45000, Last: 49999}}, "40000-49999", "40000-49999", hint + "40000-49999 "},
		{"reserved with others, which the command keeps", []ports.Range{{First: 8080, Last: 8080}}, "40000-49999", "40000-49999", hint + "8080,40000-49999 "},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			host := testHost()
			host.Reserved = c.reserved
			source := strings.NewReplacer(`"20000-39999"`, `"`+c.outside+`"`, `"20000-29999"`, `"`+c.inside+`"`).Replace(good)
			_, err := Read("tandem.toml", []byte(source), host)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && err == nil:
				t.Error("accepted")
			case c.want != "" && !strings.Contains(err.Error(), c.want):
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestHostAddresses(t *testing.T) {
	addr := func(prefix string, flags int) netlink.Addr {
		ip, n, err := net.ParseCIDR(prefix)
		if err != nil {
			t.Fatal(err)
		}
		return netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: n.Mask}, Flags: flags}
	}
	got := hostAddresses([]netlink.Addr{
		addr("203.0.113.5/24", unix.IFA_F_PERMANENT),
		addr("203.0.113.6/24", unix.IFA_F_PERMANENT|unix.IFA_F_SECONDARY),
		addr("203.0.113.10/32", unix.IFA_F_PERMANENT),
		addr("192.0.2.1/28", unix.IFA_F_PERMANENT),
		addr("2001:db8::1/64", unix.IFA_F_PERMANENT),
	})
	want := []HostAddress{
		{netip.MustParsePrefix("203.0.113.5/24"), true},
		{netip.MustParsePrefix("203.0.113.6/24"), false},
		{netip.MustParsePrefix("203.0.113.10/32"), false},
		{netip.MustParsePrefix("192.0.2.1/28"), true},
		{netip.MustParsePrefix("2001:db8::1/64"), false},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got[i], want[i])
		}
	}
	alone := hostAddresses([]netlink.Addr{addr("203.0.113.10/32", unix.IFA_F_PERMANENT)})
	if !alone[0].Source {
		t.Error("the only address of an interface is used by the host, whatever its length")
	}
}

func TestReadHost(t *testing.T) {
	h, err := ReadHost()
	if err != nil {
		t.Fatal(err)
	}
	lo, ok := h.iface("lo")
	if !ok || !lo.Loopback || h.Ephemeral.First == 0 || h.Ephemeral.Last <= h.Ephemeral.First {
		t.Errorf("got %+v", h)
	}
	if !h.local(netip.MustParseAddr("127.0.0.1")) || !h.local(netip.MustParseAddr("127.1.2.3")) {
		t.Error("127.0.0.0/8 is on this host")
	}
	if h.local(netip.MustParseAddr("192.0.2.254")) {
		t.Error("192.0.2.254 is not on this host")
	}
}

func TestEphemeralFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ip_local_port_range", "32768\t60999\n")
	write("ip_local_reserved_ports", "8080,20000-39999\n")
	r, reserved, err := ephemeral(dir)
	if err != nil || r != (ports.Range{First: 32768, Last: 60999}) || len(reserved) != 2 || reserved[0] != (ports.Range{First: 8080, Last: 8080}) || reserved[1] != (ports.Range{First: 20000, Last: 39999}) {
		t.Errorf("got %v %v %v", r, reserved, err)
	}
	for _, bad := range []string{"a", "1-", "1-b", "70000", "1,,2"} {
		write("ip_local_reserved_ports", bad)
		if _, _, err := ephemeral(dir); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
	write("ip_local_port_range", "nothing")
	if _, _, err := ephemeral(dir); err == nil {
		t.Error("a port range without numbers accepted")
	}
}
