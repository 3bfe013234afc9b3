package config

import (
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/relay/ports"
)

// testHost has an outside interface whose second address is a /32 of its own, and one towards the inside.
func testHost() Host {
	prefix := netip.MustParsePrefix
	return Host{
		Interfaces: []Interface{
			{Name: "lo", Loopback: true, Addresses: []HostAddress{{Prefix: prefix("127.0.0.1/8"), Source: true}, {Prefix: prefix("::1/128")}}},
			{Name: "eth0", Addresses: []HostAddress{{Prefix: prefix("203.0.113.5/24"), Source: true}, {Prefix: prefix("203.0.113.10/32")}}},
			{Name: "eth1", Addresses: []HostAddress{{Prefix: prefix("10.0.0.1/24"), Source: true}}},
		},
		Ephemeral: ports.Range{First: 32768, Last: 60999},
	}
}

const good = `instance = "edge"
dataplane = "xdp"

[api]
socket = "/run/tandem/edge/api.sock"

[limits]
flows = 65_536

[timers]
orphan = "5m"
quarantine = "1s"

[[network]]
name = "outside"
interfaces = ["eth0"]
sip = ["udp:203.0.113.10:5060"]
advertise = "198.51.100.7"

  [[network.media]]
  address = "203.0.113.10"
  ports = "20000-39999"

[[network]]
name = "inside"
interfaces = ["eth1"]
sip = ["udp:10.0.0.1:5060", "udp:10.0.0.1:5062"]
trust = true
nat = "off"
mode = "generic"

  [[network.media]]
  address = "10.0.0.1"
  ports = "20000-29999"
  advertise = "10.0.0.99"

[[trunk]]
name = "carrier"
network = "outside"
peer = "203.0.113.20:5060"
sources = ["203.0.113.20", "203.0.113.64/28"]
route = "pbx"
media_source = ["203.0.113.128/25"]

[[trunk]]
name = "pbx"
network = "inside"
peer = "10.0.0.20:5060"
route = "carrier"
`

func TestReadGood(t *testing.T) {
	got, err := Read("tandem.toml", []byte(good), testHost())
	if err != nil {
		t.Fatal(err)
	}
	ap, addr, prefix := netip.MustParseAddrPort, netip.MustParseAddr, netip.MustParsePrefix
	want := &Config{
		File: "tandem.toml", Instance: "edge", Dataplane: XDP,
		RuntimeDir: RuntimeBase() + "/edge", Socket: "/run/tandem/edge/api.sock",
		Flows: 65536, Orphan: 5 * time.Minute, Quarantine: time.Second,
		Networks: []Network{
			{
				Name: "outside", Interfaces: []string{"eth0"}, NAT: "auto", Mode: "native",
				Listeners: []Listener{{Addr: ap("203.0.113.10:5060"), Advertise: ap("198.51.100.7:5060")}},
				Media:     []Media{{Address: addr("203.0.113.10"), Ports: ports.Range{First: 20000, Last: 39999}, Advertise: addr("198.51.100.7")}},
			},
			{
				Name: "inside", Interfaces: []string{"eth1"}, Trust: true, NAT: "off", Mode: "generic",
				Listeners: []Listener{
					{Addr: ap("10.0.0.1:5060"), Advertise: ap("10.0.0.1:5060")},
					{Addr: ap("10.0.0.1:5062"), Advertise: ap("10.0.0.1:5062")},
				},
				Media: []Media{{Address: addr("10.0.0.1"), Ports: ports.Range{First: 20000, Last: 29999}, Advertise: addr("10.0.0.99")}},
			},
		},
		Trunks: []Trunk{
			{
				Name: "carrier", Network: "outside", Peer: ap("203.0.113.20:5060"), Route: "pbx",
				Sources:     []netip.Prefix{prefix("203.0.113.20/32"), prefix("203.0.113.64/28")},
				MediaSource: "networks", MediaNetworks: []netip.Prefix{prefix("203.0.113.128/25")},
			},
			{
				Name: "pbx", Network: "inside", Peer: ap("10.0.0.20:5060"), Route: "carrier",
				Sources: []netip.Prefix{prefix("10.0.0.20/32")}, MediaSource: "auto",
			},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestReadDefaults(t *testing.T) {
	t.Setenv("TANDEM_RUNTIME_DIR", "/somewhere")
	got, err := Read("tandem.toml", []byte(`
[[network]]
name = "one"
interfaces = ["eth0"]
sip = ["udp:203.0.113.10:5060"]
[[network.media]]
address = "203.0.113.10"
ports = "20000-20001"
`), testHost())
	if err != nil {
		t.Fatal(err)
	}
	if got.Instance != "default" || got.Dataplane != XDP || got.Socket != "/somewhere/default/api.sock" || got.Flows != 262144 ||
		got.Orphan != 10*time.Minute || got.Quarantine != 2*time.Second || got.Networks[0].NAT != "auto" || got.Networks[0].Mode != "native" {
		t.Errorf("got %+v", got)
	}
}

// Each case changes the good configuration in one place.
func TestReadRefuses(t *testing.T) {
	cases := []struct {
		name     string
		old, new string
		want     string
	}{
		{
			"unknown key at the top level", `instance = "edge"`, `instanze = "edge"`,
			`tandem.toml:1:1: unknown key "instanze" at the top level
  1 | instanze = "edge"
    | ^^^^^^^^
  hint: did you mean "instance"?`,
		},
		{
			"unknown key that is like no other", `nat = "off"`, `colour = "red"`,
			`tandem.toml:29:1: unknown key "colour" in [[network]]
  29 | colour = "red"
     | ^^^^^^
  hint: known here: name, interfaces, advertise, sip, trust, nat, mode, media`,
		},
		{
			"unknown key in an inner table, two letters swapped", `ports = "20000-39999"`, `prots = "20000-39999"`,
			`tandem.toml:22:3: unknown key "prots" in [[network.media]]
  22 |   prots = "20000-39999"
     |   ^^^^^
  hint: did you mean "ports"?`,
		},
		{
			"unknown table", "[timers]\n", "[timer]\n",
			`tandem.toml:10:2: unknown key "timer" at the top level
  10 | [timer]
     |  ^^^^^
  hint: did you mean "timers"?`,
		},
		{
			"a number for text", `instance = "edge"`, `instance = 7`,
			`tandem.toml:1:12: instance must be a string, not an integer
  1 | instance = 7
    |            ^
  hint: put it in quotes, as in instance = "7"`,
		},
		{
			"text for a list", `interfaces = ["eth1"]`, `interfaces = "eth1"`,
			`tandem.toml:26:14: interfaces must be a list, not a string
  26 | interfaces = "eth1"
     |              ^^^^^^
  hint: put it in brackets, as in interfaces = ["eth1"]`,
		},
		{
			"a number in a list of text", `interfaces = ["eth1"]`, `interfaces = ["eth1", 2]`,
			`tandem.toml:26:23: each element of interfaces must be a string, not an integer
  26 | interfaces = ["eth1", 2]
     |                       ^
  hint: put it in quotes, as in "2"`,
		},
		{
			"a list in a list", `interfaces = ["eth1"]`, `interfaces = [["eth1"]]`,
			`tandem.toml:26:14: each element of interfaces must be a string, not a list
  26 | interfaces = [["eth1"]]
     |              ^^^^^^^^^^
  hint: one pair of brackets is enough`,
		},
		{
			"text for a boolean", `trust = true`, `trust = "yes"`,
			`tandem.toml:28:9: trust must be a boolean, not a string
  28 | trust = "yes"
     |         ^^^^^
  hint: write trust = true or trust = false, without quotes`,
		},
		{
			"text for a number", `flows = 65_536`, `flows = "65536"`,
			`tandem.toml:8:9: flows must be an integer, not a string
  8 | flows = "65536"
    |         ^^^^^^^
  hint: write the number without quotes`,
		},
		{
			"a number out of range", `flows = 65_536`, `flows = 12`,
			`tandem.toml:8:9: flows = 12 is out of range
  8 | flows = 12
    |         ^^
  hint: allowed: 1024 to 16777216`,
		},
		{
			"one bracket for a network", "[[network]]\nname = \"outside\"", "[network]\nname = \"outside\"",
			`tandem.toml:24:3: key network already exists as a table, but should be an array table
  24 | [[network]]
     |   ^
  hint: there may be several: write each with two brackets, as [[network]]`,
		},
		{
			"a duration without a unit", `orphan = "5m"`, `orphan = "300"`,
			`tandem.toml:11:10: orphan = "300" is not a duration
  11 | orphan = "300"
     |          ^^^^^
  hint: a number with a unit, as in "500ms", "2s", "10m" or "1h30m"`,
		},
		{
			"a number for a duration", `orphan = "5m"`, `orphan = 300`,
			`tandem.toml:11:10: orphan must be a string, not an integer
  11 | orphan = 300
     |          ^^^
  hint: put it in quotes, as in orphan = "300"`,
		},
		{
			"a duration out of range", `quarantine = "1s"`, `quarantine = "-1s"`,
			`tandem.toml:12:14: quarantine = "-1s" is out of range
  12 | quarantine = "-1s"
     |              ^^^^^
  hint: allowed: 0s to 10m0s`,
		},
		{
			"a word that is none of the allowed", `dataplane = "xdp"`, `dataplane = "xpd"`,
			`tandem.toml:2:13: dataplane = "xpd" is not known
  2 | dataplane = "xpd"
    |             ^^^^^
  hint: did you mean "xdp"? allowed: "xdp" or "userspace"`,
		},
		{
			"an instance that would leave its directory", `instance = "edge"`, `instance = "../edge"`,
			`tandem.toml:1:12: instance = "../edge" cannot name an instance
  1 | instance = "../edge"
    |            ^^^^^^^^^
  hint: 1 to 32 lower-case letters, digits, '-' and '_'`,
		},
		{
			"a relative socket", `socket = "/run/tandem/edge/api.sock"`, `socket = "api.sock"`,
			`tandem.toml:5:10: socket = "api.sock" is not an absolute path
  5 | socket = "api.sock"
    |          ^^^^^^^^^^
  hint: as in "/run/tandem/default/api.sock"`,
		},
		{
			"an interface that does not exist", `interfaces = ["eth0"]`, `interfaces = ["eht0"]`,
			`tandem.toml:16:15: interface "eht0" does not exist
  16 | interfaces = ["eht0"]
     |               ^^^^^^
  hint: did you mean "eth0"? this host has lo, eth0, eth1`,
		},
		{
			"loopback with XDP", `interfaces = ["eth0"]`, `interfaces = ["lo"]`,
			`tandem.toml:16:15: interface "lo" has no XDP
  16 | interfaces = ["lo"]
     |               ^^^^
  hint: calls over loopback need dataplane = "userspace"`,
		},
		{
			"no interface for XDP", `interfaces = ["eth0"]` + "\n", "",
			`tandem.toml:14:3: [[network]] needs the key "interfaces"
  14 | [[network]]
     |   ^^^^^^^
  hint: the data plane "xdp" attaches to them, as in interfaces = ["eth0"]`,
		},
		{
			"one interface in two modes", `interfaces = ["eth1"]`, `interfaces = ["eth1", "eth0"]`,
			`tandem.toml:26:23: interface "eth0" has mode "generic" here and mode "native" in network "outside"
  26 | interfaces = ["eth1", "eth0"]
     |                       ^^^^^^
  hint: an interface has one mode: write the same in both networks`,
		},
		{
			"a media address that is not here", `address = "203.0.113.10"`, `address = "203.0.113.11"`,
			`tandem.toml:21:13: media address 203.0.113.11 is not on this host
  21 |   address = "203.0.113.11"
     |             ^^^^^^^^^^^^^^
  hint: this host has 127.0.0.1 (lo), 203.0.113.5 (eth0), 203.0.113.10 (eth0), 10.0.0.1 (eth1)`,
		},
		{
			"a media address by name", `address = "203.0.113.10"`, `address = "media.example.net"`,
			`tandem.toml:21:13: address = "media.example.net" is not an IP address
  21 |   address = "media.example.net"
     |             ^^^^^^^^^^^^^^^^^^^
  hint: DNS names are not supported yet: write the address`,
		},
		{
			"a media address of IPv6", `address = "203.0.113.10"`, `address = "2001:db8::10"`,
			`tandem.toml:21:13: address = "2001:db8::10" is not an IPv4 address
  21 |   address = "2001:db8::10"
     |             ^^^^^^^^^^^^^^
  hint: IPv6 is not supported yet`,
		},
		{
			"the first media port is odd", `ports = "20000-39999"`, `ports = "20001-39999"`,
			`tandem.toml:22:11: ports = "20001-39999": the first port is odd
  22 |   ports = "20001-39999"
     |           ^^^^^^^^^^^^^
  hint: begin with 20002: RTP takes the even port of a pair`,
		},
		{
			"the last media port is even", `ports = "20000-39999"`, `ports = "20000-40000"`,
			`tandem.toml:22:11: ports = "20000-40000": the last port is even
  22 |   ports = "20000-40000"
     |           ^^^^^^^^^^^^^
  hint: end with 40001: RTCP takes the odd port of a pair`,
		},
		{
			"a range the wrong way round", `ports = "20000-39999"`, `ports = "39999-20000"`,
			`tandem.toml:22:11: ports = "39999-20000": the range ends before it begins
  22 |   ports = "39999-20000"
     |           ^^^^^^^^^^^^^
  hint: the smaller port stands first: ports = "20000-39999"`,
		},
		{
			"a range beyond the last port", `ports = "20000-39999"`, `ports = "20000-70001"`,
			`tandem.toml:22:11: ports = "20000-70001": ports end at 65535
  22 |   ports = "20000-70001"
     |           ^^^^^^^^^^^^^
  hint: end with 65535 at most`,
		},
		{
			"two ranges overlap on one address, across networks", "  address = \"10.0.0.1\"", "  address = \"203.0.113.10\"",
			`tandem.toml:34:11: media range 20000-29999 of 203.0.113.10 overlaps 20000-39999 of network "outside" in line 22
  34 |   ports = "20000-29999"
     |           ^^^^^^^^^^^^^
  hint: give each range ports of its own, or another address`,
		},
		{
			"a SIP listener in a media range", `"udp:10.0.0.1:5062"`, `"udp:10.0.0.1:20006"`,
			`tandem.toml:27:29: SIP listener 10.0.0.1:20006 lies in the media range 20000-29999 of line 34
  27 | sip = ["udp:10.0.0.1:5060", "udp:10.0.0.1:20006"]
     |                             ^^^^^^^^^^^^^^^^^^^^
  hint: take another port, or begin the range behind it`,
		},
		{
			"a media range in the ephemeral ports of an address that the host uses itself", `ports = "20000-29999"`, `ports = "40000-49999"`,
			`tandem.toml:34:11: media range 40000-49999 meets the kernel's ephemeral ports 32768-60999, and the host itself uses 10.0.0.1, an address of its own on eth1, for connections
  34 |   ports = "40000-49999"
     |           ^^^^^^^^^^^^^
  hint: reserve them: sysctl -w net.ipv4.ip_local_reserved_ports=40000-49999 (and keep it in /etc/sysctl.d), or use an address that the host does not use itself`,
		},
		{
			"a SIP listener given twice", `"udp:10.0.0.1:5062"`, `"udp:10.0.0.1:5060"`,
			`tandem.toml:27:29: SIP listener 10.0.0.1:5060 is given twice, first in line 27
  27 | sip = ["udp:10.0.0.1:5060", "udp:10.0.0.1:5060"]
     |                             ^^^^^^^^^^^^^^^^^^^
  hint: leave one of the two out, or give it another port`,
		},
		{
			"a SIP listener on every address", `"udp:10.0.0.1:5062"`, `"udp:0.0.0.0:5062"`,
			`tandem.toml:27:29: SIP listener "udp:0.0.0.0:5062" is not one address
  27 | sip = ["udp:10.0.0.1:5060", "udp:0.0.0.0:5062"]
     |                             ^^^^^^^^^^^^^^^^^^
  hint: name the address itself: peers are told it`,
		},
		{
			"a SIP listener that is not here", `"udp:10.0.0.1:5062"`, `"udp:10.0.0.2:5062"`,
			`tandem.toml:27:29: SIP listener "udp:10.0.0.2:5062": the address is not on this host
  27 | sip = ["udp:10.0.0.1:5060", "udp:10.0.0.2:5062"]
     |                             ^^^^^^^^^^^^^^^^^^^
  hint: this host has 127.0.0.1 (lo), 203.0.113.5 (eth0), 203.0.113.10 (eth0), 10.0.0.1 (eth1)`,
		},
		{
			"a SIP listener without a transport", `"udp:10.0.0.1:5062"`, `"10.0.0.1:5062"`,
			`tandem.toml:27:29: SIP listener "10.0.0.1:5062" has no transport
  27 | sip = ["udp:10.0.0.1:5060", "10.0.0.1:5062"]
     |                             ^^^^^^^^^^^^^^^
  hint: name the transport: "udp:10.0.0.1:5062"`,
		},
		{
			"a SIP listener by TCP", `"udp:10.0.0.1:5062"`, `"tcp:10.0.0.1:5062"`,
			`tandem.toml:27:29: SIP listener "tcp:10.0.0.1:5062": transport "tcp" cannot be used
  27 | sip = ["udp:10.0.0.1:5060", "tcp:10.0.0.1:5062"]
     |                             ^^^^^^^^^^^^^^^^^^^
  hint: only udp is supported yet`,
		},
		{
			"a SIP listener without a port", `"udp:10.0.0.1:5062"`, `"udp:10.0.0.1"`,
			`tandem.toml:27:29: SIP listener "udp:10.0.0.1" has no port
  27 | sip = ["udp:10.0.0.1:5060", "udp:10.0.0.1"]
     |                             ^^^^^^^^^^^^^^
  hint: write "udp:10.0.0.1:5060"`,
		},
		{
			"a network defined twice", `name = "inside"`, `name = "outside"`,
			`tandem.toml:25:8: network "outside" is defined twice, first in line 15
  25 | name = "outside"
     |        ^^^^^^^^^
  hint: give one of them another name, or put what they hold into one

tandem.toml:47:11: network = "inside": there is no such network
  47 | network = "inside"
     |           ^^^^^^^^
  hint: did you mean "outside"?`,
		},
		{
			"a trunk defined twice", `name = "pbx"`, `name = "carrier"`,
			`tandem.toml:42:9: route = "pbx": there is no such trunk
  42 | route = "pbx"
     |         ^^^^^
  hint: defined: carrier

tandem.toml:46:8: trunk "carrier" is defined twice, first in line 38
  46 | name = "carrier"
     |        ^^^^^^^^^
  hint: give one of them another name

tandem.toml:49:9: trunk "carrier" sends its calls back to where they come from
  49 | route = "carrier"
     |         ^^^^^^^^^
  hint: name another trunk, or leave the key out to refuse its calls`,
		},
		{
			"a trunk in no network", `network = "inside"`, `network = "insid"`,
			`tandem.toml:47:11: network = "insid": there is no such network
  47 | network = "insid"
     |           ^^^^^^^
  hint: did you mean "inside"?`,
		},
		{
			"a trunk whose network has no listener", `sip = ["udp:203.0.113.10:5060"]` + "\n", "",
			`tandem.toml:38:11: network "outside" has no SIP listener for the trunk "carrier"
  38 | network = "outside"
     |           ^^^^^^^^^
  hint: give it one, as in sip = ["udp:203.0.113.10:5060"]`,
		},
		{
			"a route to nowhere", `route = "carrier"`, `route = "carier"`,
			`tandem.toml:49:9: route = "carier": there is no such trunk
  49 | route = "carier"
     |         ^^^^^^^^
  hint: did you mean "carrier"?`,
		},
		{
			"a route back to the caller", `route = "carrier"`, `route = "pbx"`,
			`tandem.toml:49:9: trunk "pbx" sends its calls back to where they come from
  49 | route = "pbx"
     |         ^^^^^
  hint: name another trunk, or leave the key out to refuse its calls`,
		},
		{
			"a peer by name", `peer = "10.0.0.20:5060"`, `peer = "pbx.example.net:5060"`,
			`tandem.toml:48:8: peer "pbx.example.net:5060" is not an address with a port
  48 | peer = "pbx.example.net:5060"
     |        ^^^^^^^^^^^^^^^^^^^^^^
  hint: DNS names are not supported yet: write the address`,
		},
		{
			"a peer without a port", `peer = "10.0.0.20:5060"`, `peer = "10.0.0.20"`,
			`tandem.toml:48:8: peer "10.0.0.20" has no port
  48 | peer = "10.0.0.20"
     |        ^^^^^^^^^^^
  hint: write "10.0.0.20:5060"`,
		},
		{
			"a peer that is Tandem itself", `peer = "10.0.0.20:5060"`, `peer = "10.0.0.1:5062"`,
			`tandem.toml:48:8: peer 10.0.0.1:5062 is a SIP listener of Tandem itself
  48 | peer = "10.0.0.1:5062"
     |        ^^^^^^^^^^^^^^^
  hint: the peer is the other side: a phone system, a carrier`,
		},
		{
			"sources of two trunks of one network overlap", `network = "inside"` + "\n" + `peer = "10.0.0.20:5060"`, `network = "outside"` + "\n" + `peer = "203.0.113.70:5060"`,
			`tandem.toml:48:8: source 203.0.113.70/32 of trunk "pbx" overlaps 203.0.113.64/28 of trunk "carrier" in line 41
  48 | peer = "203.0.113.70:5060"
     |        ^^^^^^^^^^^^^^^^^^^
  hint: a message must belong to one trunk, and what comes from a peer's own address belongs to that peer's: narrow the sources of the other`,
		},
		{
			"a source with host bits", `"203.0.113.64/28"`, `"203.0.113.70/28"`,
			`tandem.toml:41:28: sources: "203.0.113.70/28" has bits set behind its prefix
  41 | sources = ["203.0.113.20", "203.0.113.70/28"]
     |                            ^^^^^^^^^^^^^^^^^
  hint: write "203.0.113.64/28" for the network or "203.0.113.70" for the address`,
		},
		{
			"no sources at all", `sources = ["203.0.113.20", "203.0.113.64/28"]`, `sources = []`,
			`tandem.toml:41:11: sources is empty: no message would belong to the trunk
  41 | sources = []
     |           ^^
  hint: leave the key out: the peer's address is the default`,
		},
		{
			"a media source that is none", `media_source = ["203.0.113.128/25"]`, `media_source = "signaling"`,
			`tandem.toml:43:16: media_source = "signaling" is not known
  43 | media_source = "signaling"
     |                ^^^^^^^^^^^
  hint: did you mean "signalling"? allowed: "auto", "sdp", "signalling" or "any"`,
		},
		{
			"a key given twice", `dataplane = "xdp"`, `instance = "two"`,
			`tandem.toml:2:1: key instance is already defined
  2 | instance = "two"
    | ^
  hint: a key stands once in its table: leave one of the two out`,
		},
		{
			"text without quotes", `instance = "edge"`, `instance = edge`,
			`tandem.toml:1:12: unexpected character U+0065 'e' at start of value
  1 | instance = edge
    |            ^
  hint: text, addresses and durations stand in quotes, as in name = "outside"`,
		},
		{
			"a column is a character, not a byte", `nat = "off"`, `"größe" = 1`,
			`tandem.toml:29:1: unknown key "größe" in [[network]]
  29 | "größe" = 1
     | ^^^^^^^
  hint: known here: name, interfaces, advertise, sip, trust, nat, mode, media`,
		},
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
			if got := err.Error(); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func TestReadEmpty(t *testing.T) {
	_, err := Read("tandem.toml", nil, testHost())
	want := `tandem.toml:1:1: no network is defined
  hint: begin with a [[network]]: name, interfaces, sip, and a [[network.media]] with address and ports`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestLoadRefusesWhatIsNoFile(t *testing.T) {
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := Load(t.TempDir() + "/none.toml"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a missing file: %v", err)
	}
	large := t.TempDir() + "/large.toml"
	if err := os.WriteFile(large, make([]byte, maxSource+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(large); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a large file: %v", err)
	}
}
