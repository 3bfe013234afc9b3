package config

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// Each case changes the good configuration in one place and gets exactly one problem: its message in part, and its hint.
func TestHints(t *testing.T) {
	long := strings.Repeat("x", 5000)
	cases := []struct{ name, old, new, want, hint string }{
		{"a key twice is not about quotes", `orphan = "5m"`, "orphan = 1\norphan = 2", "is already defined", "a key stands once in its table: leave one of the two out"},
		{"binary data is not about quotes", `trust = true`, "trust = \x00\xfe", "unexpected character", "the line holds characters that are no text: remove them, and save the file as UTF-8"},
		{"a control character in a comment is not about quotes", `trust = true`, "trust = 1 # \x01", "control characters", "the line holds characters that are no text: remove them, and save the file as UTF-8"},
		{"a file that is not UTF-8", `trust = true`, "trust = gr\xf6n", "unexpected character", "the line holds characters that are no text: remove them, and save the file as UTF-8"},
		{"a comment of another language", `trust = true`, "; trust", "invalid character at start of key", "comments begin with #"},
		{"one pair of brackets too few", "[[trunk]]\nname = \"carrier\"", "[trunk]\nname = \"carrier\"", "already exists as a table", "there may be several: write each with two brackets, as [[trunk]]"},
		{"one pair of brackets too few, for the second", "[[trunk]]\nname = \"pbx\"", "[trunk]\nname = \"pbx\"", "already exists as an array", "there may be several: write each with two brackets, as [[trunk]]"},
		{"one pair of brackets too few, for the only one", "  [[network.media]]\n  address = \"203", "  [network.media]\n  address = \"203", "media must be a list of tables", "there may be several: write it with two brackets, as [[network.media]]"},
		{"a header twice", "[timers]\n", "[api]\n", "table api already exists", "a table stands once: put all its keys below one header"},
		{"a header that does not end", "[timers]\n", "[timers\n", "to close", "a header ends with as many brackets as it begins with, as in [[network]]"},
		{"text that does not end", `nat = "off"`, `nat = "off`, "cannot have new lines", "text ends on its line with the quotation mark with which it begins: one is missing here"},
		{"text in single quotes that does not end", `nat = "off"`, `nat = 'off`, "cannot have new lines", "text ends on its line with the quotation mark with which it begins: one is missing here"},
		{"text of many lines that does not end", `nat = "off"`, `nat = """off`, "not terminated", "text that begins with three quotation marks ends with three"},
		{"a typographer's quotation marks", `nat = "off"`, "nat = \u201coff\u201d", "unexpected character", `use the plain quotation mark "`},
		{"a duration without quotes", `orphan = "5m"`, "orphan = 5m", "must be quoted", quoteHint},
		{"an address without quotes", `peer = "10.0.0.20:5060"`, "peer = 10.0.0.20:5060", "expected newline", quoteHint},
		{"text without quotes in a list", `["eth1"]`, `[eth1]`, "unexpected character", quoteHint},
		{"a boolean in capitals", `trust = true`, `trust = True`, "unexpected character", "write true or false in lower-case letters"},
		{"no value", `trust = true`, `trust =`, "unexpected character", `a value is missing, as in name = "outside"`},
		{"no equals sign", `trust = true`, `trust`, "after key", `a key has a value, as in name = "outside"`},
		{"a range the wrong way round", `"20000-39999"`, `"39998-20001"`, "ends before it begins", `the smaller port stands first: ports = "20001-39998"`},
		{"a range of one port", `"20000-39999"`, `"20000-20000"`, "one pair", `RTP and RTCP take a port each, as in ports = "20000-39999"`},
		{"a range beyond the last port", `"20000-39999"`, `"20000-65536"`, "ports end", "end with 65535 at most"},
		{"a peer's port beyond the last", `"10.0.0.20:5060"`, `"10.0.0.20:65536"`, "has no valid port", "ports end at 65535"},
		{"a listener's port beyond the last", `"udp:10.0.0.1:5062"`, `"udp:10.0.0.1:65536"`, "has no valid port", "ports end at 65535"},
		{"a multicast address", `"10.0.0.20:5060"`, `"224.0.0.1:5060"`, "not the address of one host", "multicast and broadcast reach many: write the address of one host"},
		{"a listener twice", `"udp:10.0.0.1:5062"`, `"udp:10.0.0.1:5060"`, "is given twice", "leave one of the two out, or give it another port"},
		{"a media address of loopback", `address = "203.0.113.10"`, `address = "127.0.0.1"`, "media address 127.0.0.1 is of loopback", `calls over loopback need dataplane = "userspace"`},
		{"interfaces misspelt", `interfaces = ["eth1"]`, `interfacs = ["eth1"]`, `unknown key "interfacs"`, `did you mean "interfaces"?`},
		{"the listeners misspelt", `sip = ["udp:203`, `sp = ["udp:203`, `unknown key "sp"`, `did you mean "sip"?`},
		{"a network's name misspelt", `name = "inside"`, `nam = "inside"`, `unknown key "nam"`, `did you mean "name"?`},
		{"a trunk's name misspelt", `name = "pbx"`, `nmae = "pbx"`, `unknown key "nmae"`, `did you mean "name"?`},
		{"a network's name that a terminal would obey", `name = "inside"`, `name = "\u001b[31m"`, `name = "\x1b[31m" cannot be a name`, nameRule},
		{"a trunk's name that a terminal would obey", `name = "pbx"`, `name = "a\u009b31m"`, `name = "a\u009b31m" cannot be a name`, nameRule},
		{"a network's name in capitals", `name = "inside"`, `name = "Inside"`, `name = "Inside" cannot be a name`, nameRule},
		{"a network's name longer than any", `name = "inside"`, `name = "` + long + `"`, `name = "` + long[:maxQuoted] + `..." cannot be a name`, nameRule},
		{"a key longer than any", `trust = true`, long + " = 1", `unknown key "` + long[:maxQuoted] + `..." in`, "known here: name, interfaces, advertise, sip, trust, nat, mode, media"},
		{"a key that a terminal would obey", `trust = true`, "\"\\u001b[2J\" = 1\n\"\\u001b[2J\" = 2", "key \ufffd[2J is already defined", "a key stands once in its table: leave one of the two out"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if strings.Count(good, c.old) != 1 {
				t.Fatalf("%q stands %d times in the good configuration", c.old, strings.Count(good, c.old))
			}
			_, err := Read("tandem.toml", []byte(strings.Replace(good, c.old, c.new, 1)), testHost())
			var problems *Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v, want problems", err)
			}
			list := problems.List
			if len(list) != 1 || !strings.Contains(list[0].Message, c.want) || list[0].Hint != c.hint {
				t.Errorf("got:\n%v\nwant one problem with %q and the hint %q", err, c.want, c.hint)
			}
		})
	}
}

// A file whose only network is misspelt has no other problem, neither of the network nor of its trunks.
func TestNetworkMisspelt(t *testing.T) {
	_, err := Read("tandem.toml", []byte("[[netwrok]]\nname = \"a\"\n[[trunk]]\nname = \"t\"\nnetwork = \"a\"\npeer = \"10.0.0.20:5060\"\n"), testHost())
	var problems *Problems
	if !errors.As(err, &problems) || len(problems.List) != 1 || !strings.Contains(err.Error(), `did you mean "network"?`) {
		t.Errorf("got:\n%v", err)
	}
}

// The peer's own address belongs to its trunk, whatever else is listed, and so to no other.
func TestPeerIsSource(t *testing.T) {
	const listed = `sources = ["203.0.113.20", "203.0.113.64/28"]`
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	cases := []struct {
		name, sources string
		want          []netip.Prefix
	}{
		{"left out of the list", `sources = ["203.0.113.64/28"]`, prefixes("203.0.113.64/28", "203.0.113.20/32")},
		{"in a listed network", `sources = ["203.0.113.16/28"]`, prefixes("203.0.113.16/28")},
		{"no list", "", prefixes("203.0.113.20/32")},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := Read("tandem.toml", []byte(strings.Replace(good, listed, c.sources, 1)), testHost())
			if err != nil {
				t.Fatal(err)
			}
			if got := cfg.Trunks[0].Sources; !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	// The second trunk lists what holds the first one's peer, which the first one's list leaves out.
	source := strings.NewReplacer(listed, `sources = ["203.0.113.64/28"]`,
		"network = \"inside\"\npeer = \"10.0.0.20:5060\"", "network = \"outside\"\npeer = \"203.0.113.40:5060\"\nsources = [\"203.0.113.0/26\"]").Replace(good)
	_, err := Read("tandem.toml", []byte(source), testHost())
	if err == nil || !strings.Contains(err.Error(), `source 203.0.113.0/26 of trunk "pbx" overlaps 203.0.113.20/32 of trunk "carrier" in line 40`) ||
		!strings.Contains(err.Error(), "what comes from a peer's own address belongs to that peer's") {
		t.Errorf("got %v", err)
	}
}

// A media address of loopback is good where sockets carry the packets.
func TestLoopbackUserspace(t *testing.T) {
	source := strings.NewReplacer(`dataplane = "xdp"`, `dataplane = "userspace"`, "  address = \"203.0.113.10\"", "  address = \"127.0.0.9\"").Replace(good)
	if _, err := Read("tandem.toml", []byte(source), testHost()); err != nil {
		t.Error(err)
	}
}

// A file's name is the operator's, but what it holds must not reach a terminal either.
func TestFileNamePrintable(t *testing.T) {
	_, err := Read("\x1b[2J.toml", []byte("x = 1\n"), testHost())
	if err == nil || strings.Contains(err.Error(), "\x1b") || !strings.HasPrefix(err.Error(), "\ufffd[2J.toml:1:1: ") {
		t.Errorf("got %q", err)
	}
}
