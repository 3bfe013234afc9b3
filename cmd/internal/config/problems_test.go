package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// Like TestReadRefuses, with the first line of the error only.
func TestReadRefusesMore(t *testing.T) {
	long := "/run/" + strings.Repeat("x", 110)
	cases := []struct{ name, old, new, want string }{
		{"a socket path too long for the kernel", `"/run/tandem/edge/api.sock"`, `"` + long + `"`, "tandem.toml:5:10: socket is too long for a unix socket"},
		{"a transport that does not exist", `"udp:10.0.0.1:5062"`, `"upd:10.0.0.1:5062"`, `tandem.toml:27:29: SIP listener "upd:10.0.0.1:5062": transport "upd" is not known`},
		{"a listener on port 0", `"udp:10.0.0.1:5062"`, `"udp:10.0.0.1:0"`, `tandem.toml:27:29: SIP listener "udp:10.0.0.1:0" has port 0`},
		{"a peer with a transport", `peer = "10.0.0.20:5060"`, `peer = "udp:10.0.0.20:5060"`, `tandem.toml:48:8: peer "udp:10.0.0.20:5060" is not an address with a port`},
		{"a peer of IPv6", `peer = "10.0.0.20:5060"`, `peer = "[2001:db8::1]:5060"`, `tandem.toml:48:8: peer "[2001:db8::1]:5060" is not an IPv4 address`},
		{"a peer that is empty", `peer = "10.0.0.20:5060"`, `peer = ""`, `tandem.toml:48:8: peer is empty`},
		{"a source that is none", `"203.0.113.64/28"`, `"203.0.113.64/33"`, `tandem.toml:41:28: sources: "203.0.113.64/33" is not a network`},
		{"a source of IPv6", `"203.0.113.64/28"`, `"2001:db8::/32"`, `tandem.toml:41:28: sources: "2001:db8::/32" is not an IPv4 network`},
		{"a source by name", `"203.0.113.64/28"`, `"sip.example.net"`, `tandem.toml:41:28: sources: "sip.example.net" is not a network`},
		{"an empty route", `route = "carrier"`, `route = ""`, `tandem.toml:49:9: route is empty`},
		{"no media source", `media_source = ["203.0.113.128/25"]`, `media_source = []`, `tandem.toml:43:16: media_source is empty: no media would be accepted`},
		{"a media source that is no network", `media_source = ["203.0.113.128/25"]`, `media_source = ["sdp"]`, `tandem.toml:43:17: media_source: "sdp" is not a network`},
		{"an advertised address by name", `advertise = "198.51.100.7"`, `advertise = "edge.example.net"`, `tandem.toml:18:13: advertise = "edge.example.net" is not an IP address`},
		{"an advertised address of nobody", `advertise = "198.51.100.7"`, `advertise = "0.0.0.0"`, `tandem.toml:18:13: advertise = "0.0.0.0" is not one address`},
		{"an instance of capital letters", `instance = "edge"`, `instance = "Edge"`, `tandem.toml:1:12: instance = "Edge" cannot name an instance`},
		{"a byte order mark", `instance = "edge"`, "\xef\xbb\xbf", `tandem.toml:1:1: the file begins with a byte order mark`},
		{"a date", `instance = "edge"`, `instance = 2026-11-23`, `tandem.toml:1:12: instance must be a string, not a date or time`},
		{"a fraction", `flows = 65_536`, `flows = 1e6`, `tandem.toml:8:9: flows must be an integer, not a number with a fraction`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if strings.Count(good, c.old) != 1 {
				t.Fatalf("%q stands %d times in the good configuration", c.old, strings.Count(good, c.old))
			}
			_, err := Read("tandem.toml", []byte(strings.Replace(good, c.old, c.new, 1)), testHost())
			if err == nil {
				t.Fatal("accepted")
			}
			if first, _, _ := strings.Cut(err.Error(), "\n"); first != c.want {
				t.Errorf("got:\n%v\nwant:\n%s", err, c.want)
			}
		})
	}
}

func TestManyProblems(t *testing.T) {
	var source strings.Builder
	for i := range maxProblems + 50 {
		fmt.Fprintf(&source, "key%d = 1\n", i)
	}
	_, err := Read("tandem.toml", []byte(source.String()), testHost())
	if err == nil || strings.Count(err.Error(), ": unknown key") != maxProblems-1 || !strings.HasSuffix(err.Error(), "\ntandem.toml: and 51 more problems") {
		t.Errorf("got %v", err)
	}
}

func TestExcerpt(t *testing.T) {
	cases := []struct{ name, source, want string }{
		{"tabs stay under tabs", "\tkey\t= 1\n", "tandem.toml:1:2: unknown key \"key\" at the top level\n  1 | \tkey\t= 1\n    | \t^^^\n"},
		{"what a terminal would obey is not shown", "key = \"\\u001b\" # \u009b31m\n", "\n  1 | key = \"\\u001b\" # \ufffd31m\n"},
		{"a long line is cut", strings.Repeat("x", 400) + " = 1\n", "\n  1 | " + strings.Repeat("x", 160) + "\n    | " + strings.Repeat("^", 160) + "\n"},
		{"a long line is cut around the place", `instance = "` + strings.Repeat("x", 400) + "\"; key = 1\n", "\n  1 | " + strings.Repeat("x", 79) + "\"; key = 1\n    | " + strings.Repeat(" ", 80) + "^"},
		{"lines may end the way of Windows", "key = 1\r\n", "\n  1 | key = 1\n    | ^^^\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := Read("tandem.toml", []byte(c.source), testHost())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got:\n%v\nwant:\n%s", err, c.want)
			}
		})
	}
}

// Each case is a network of its own, with what is between its listeners and its media.
func TestReadMediaOfOneNetwork(t *testing.T) {
	const head = "[[network]]\nname = \"one\"\ninterfaces = [\"eth0\"]\n"
	media := func(ports, more string) string {
		return "[[network.media]]\naddress = \"203.0.113.10\"\nports = \"" + ports + "\"\n" + more
	}
	const sip = "sip = [\"udp:203.0.113.10:5060\"]\n"
	cases := []struct{ name, source, want string }{
		{"two ranges of one address", head + sip + media("20000-20999", "") + media("22000-22999", ""), ""},
		{"advertised in two ways", head + sip + media("20000-20999", "advertise = \"198.51.100.7\"\n") + media("22000-22999", ""),
			"tandem.toml:10:11: media address 203.0.113.10 is advertised as 203.0.113.10 here and as 198.51.100.7 in line 6"},
		{"one address in two networks", head + sip + media("20000-20999", "") + strings.Replace(head, "one", "two", 1) + media("22000-22999", ""),
			"tandem.toml:12:11: media address 203.0.113.10 belongs to network \"one\" already, in line 6"},
		{"no listener at all", head + media("20000-20999", ""), "tandem.toml:1:3: no network has a SIP listener: nobody could call"},
		{"an empty list of listeners", head + "sip = []\n" + media("20000-20999", ""), "tandem.toml:1:3: no network has a SIP listener: nobody could call"},
		{"no media", head + sip, "tandem.toml:1:3: [[network]] needs the key \"media\""},
		{"no name", strings.Replace(head, "name = \"one\"", "", 1) + sip + media("20000-20999", ""), "tandem.toml:1:3: [[network]] needs the key \"name\""},
		{"an empty name", strings.Replace(head, "one", "", 1) + sip + media("20000-20999", ""), "tandem.toml:2:8: name is empty"},
		{"no interfaces", strings.Replace(head, "\"eth0\"", "", 1) + sip + media("20000-20999", ""), "tandem.toml:3:14: interfaces is empty"},
		{"an interface twice", strings.Replace(head, "\"eth0\"", "\"eth0\", \"eth0\"", 1) + sip + media("20000-20999", ""), "tandem.toml:3:23: interface \"eth0\" is given twice"},
		{"a port below 1024", head + sip + media("20-999", ""), "tandem.toml:7:9: ports = \"20-999\": media ports begin at 1024"},
		{"one port", head + sip + media("20000", ""), "tandem.toml:7:9: ports = \"20000\": not a range of ports"},
		{"multicast", head + sip + strings.Replace(media("20000-20999", ""), "203.0.113.10", "224.0.0.5", 1), "tandem.toml:6:11: address = \"224.0.0.5\" is not the address of one host"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := Read("tandem.toml", []byte(c.source), testHost())
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("accepted")
			}
			if first, _, _ := strings.Cut(err.Error(), "\n"); first != c.want || strings.Count(err.Error(), "tandem.toml:") != 1 {
				t.Errorf("got:\n%v\nwant:\n%s", err, c.want)
			}
		})
	}
}

func TestReadReportsAllProblems(t *testing.T) {
	source := strings.NewReplacer(`dataplane = "xdp"`, `dataplain = 1`, `trust = true`, `trust = 1`, `"eth1"`, `"eth9"`,
		`peer = "10.0.0.20:5060"`, `peer = "pbx:5060"`).Replace(good)
	_, err := Read("tandem.toml", []byte(source), testHost())
	var lines []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if strings.HasPrefix(line, "tandem.toml:") {
			lines = append(lines, line)
		}
	}
	want := []string{
		`tandem.toml:2:1: unknown key "dataplain" at the top level`,
		`tandem.toml:26:15: interface "eth9" does not exist`,
		`tandem.toml:28:9: trust must be a boolean, not an integer`,
		`tandem.toml:48:8: peer "pbx:5060" is not an address with a port`,
	}
	if !reflect.DeepEqual(lines, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}
