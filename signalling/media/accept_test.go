package media

import (
	"net/netip"
	"testing"

	"github.com/tandem-relay/tandem/relay"
)

// TestAccept: from where media may come, and where it may go before anything was learnt, by policy and network.
func TestAccept(t *testing.T) {
	const none = ""
	for _, c := range []struct {
		name, network, policy string
		sdp, from             string
		accept                relay.AcceptSet
		rtp                   string // none: nothing is sent before something was learnt
	}{
		// auto, an outside network
		{"public, from the same address", "outside", "auto", "198.51.100.20", "198.51.100.20", only("198.51.100.20"), "198.51.100.20:4000"},
		{"public, media elsewhere: a carrier", "outside", "auto", "198.51.100.99", "198.51.100.20", only("198.51.100.99"), "198.51.100.99:4000"},
		{"RFC 1918: a phone behind NAT", "outside", "auto", "192.168.1.5", "198.51.100.20", only("198.51.100.20"), none},
		{"CGNAT", "outside", "auto", "100.64.1.5", "198.51.100.20", only("198.51.100.20"), none},
		{"link-local", "outside", "auto", "169.254.1.5", "198.51.100.20", only("198.51.100.20"), none},
		{"loopback", "outside", "auto", "127.0.0.1", "198.51.100.20", only("198.51.100.20"), none},
		{"reserved", "outside", "auto", "240.0.0.1", "198.51.100.20", only("198.51.100.20"), none},
		{"this network", "outside", "auto", "0.0.0.9", "198.51.100.20", only("198.51.100.20"), none},
		{"unspecified: held from the start", "outside", "auto", "0.0.0.0", "198.51.100.20", only("198.51.100.20"), none},
		{"private, and so is the signalling", "outside", "auto", "192.168.1.5", "192.168.1.5", only("192.168.1.5"), "192.168.1.5:4000"},
		// auto, networks where private addresses are at home
		{"PBX", "inside", "auto", "10.0.0.5", "10.0.0.5", only("10.0.0.5"), "10.0.0.5:4000"},
		{"PBX with a media server: believed in a trusted network", "inside", "auto", "10.0.0.6", "10.0.0.5", only("10.0.0.6"), "10.0.0.6:4000"},
		{"the same in one that is not trusted: sent to, heard from the signalling address", "lab", "auto", "10.0.0.6", "10.0.0.5", only("10.0.0.5"), "10.0.0.6:4000"},
		{"private beyond the routes of a trusted network", "inside", "auto", "192.168.1.5", "10.0.0.5", only("10.0.0.5"), none},
		{"public beyond the routes of the network", "inside", "auto", "198.51.100.20", "10.0.0.5", only("10.0.0.5"), none},
		{"loopback, and so is the signalling", "inside", "auto", "127.0.0.2", "127.0.0.1", only("127.0.0.2"), "127.0.0.2:4000"},
		{"loopback of another host, believed by nobody", "inside", "auto", "127.0.0.1", "10.0.0.5", only("10.0.0.5"), none},
		{"unspecified, though a route covers it", "inside", "auto", "0.0.0.0", "10.0.0.5", only("10.0.0.5"), none},
		// the other policies
		{"sdp, public", "outside", "sdp", "198.51.100.99", "198.51.100.20", only("198.51.100.99"), "198.51.100.99:4000"},
		{"sdp, private: heard from there, but no packet would arrive there", "outside", "sdp", "192.168.1.5", "198.51.100.20", only("192.168.1.5"), none},
		{"sdp, private, and so is the signalling", "outside", "sdp", "192.168.1.5", "192.168.1.5", only("192.168.1.5"), "192.168.1.5:4000"},
		{"sdp, private, and so is the signalling, IPv4-mapped", "outside", "sdp", "192.168.1.5", "::ffff:192.168.1.5", only("192.168.1.5"), "192.168.1.5:4000"},
		{"sdp, loopback of another host", "outside", "sdp", "127.0.0.1", "198.51.100.20", only("127.0.0.1"), none},
		{"sdp, unspecified", "outside", "sdp", "0.0.0.0", "198.51.100.20", relay.AcceptSet{}, none},
		{"signalling, public", "outside", "signalling", "198.51.100.99", "198.51.100.20", only("198.51.100.20"), "198.51.100.99:4000"},
		{"signalling, private", "outside", "signalling", "192.168.1.5", "198.51.100.20", only("198.51.100.20"), none},
		{"signalling, IPv4-mapped", "outside", "signalling", "192.168.1.5", "::ffff:198.51.100.20", only("198.51.100.20"), none},
		{"any, public", "outside", "any", "198.51.100.99", "198.51.100.20", relay.AcceptSet{Any: true}, "198.51.100.99:4000"},
		{"any, private", "outside", "any", "192.168.1.5", "198.51.100.20", relay.AcceptSet{Any: true}, none},
		{"networks", "outside", "192.0.2.0/24", "198.51.100.99", "198.51.100.20", relay.AcceptSet{Nets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, "198.51.100.99:4000"},
		{"networks, private and in them", "outside", "192.168.0.0/16", "192.168.1.5", "198.51.100.20", relay.AcceptSet{Nets: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}}, none},
		{"networks, private and in them, and so is the signalling", "outside", "192.168.0.0/16", "192.168.1.5", "192.168.1.5", relay.AcceptSet{Nets: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}}, "192.168.1.5:4000"},
		{"networks, private and not in them", "outside", "192.168.0.0/24", "192.168.1.5", "198.51.100.20", relay.AcceptSet{Nets: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/24")}}, none},
		// a spiral: the description names a media address of ours
		{"ours, public", "outside", "auto", "203.0.113.10", "198.51.100.20", only("203.0.113.10"), "203.0.113.10:4000"},
		{"ours, private, in a network without trust", "lab", "auto", "10.0.0.1", "10.0.0.5", only("10.0.0.1"), "10.0.0.1:4000"},
		{"ours, with signalling", "inside", "signalling", "10.0.0.1", "10.0.0.5", only("10.0.0.1"), "10.0.0.1:4000"},
		{"ours, private, with any", "outside", "any", "10.0.0.1", "198.51.100.20", relay.AcceptSet{Any: true}, "10.0.0.1:4000"},
		{"ours, by the address that we advertise", "outside", "auto", "198.51.100.7", "198.51.100.20", only("10.7.0.1"), "10.7.0.1:4000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			policy, err := ParsePolicy(c.policy)
			if err != nil {
				t.Fatal(err)
			}
			k := newCall(t)
			k.ports.(*fakePorts).addrs["lab"] = []netip.Addr{addr("10.0.0.2")}
			k.a.Network, k.a.From, k.a.Source = c.network, addr(c.from), policy
			k.b.Network, k.b.From = "outside", addr("198.51.100.30")
			k.offer(k.a, k.b, audio(c.sdp, "4000"))
			s := k.stream("a", 0)
			if !equalSets(s.Accept, c.accept) {
				t.Errorf("accepts %+v, want %+v", s.Accept, c.accept)
			}
			want := relay.Remote{Signalled: netip.AddrPortFrom(addr(c.sdp), 4000)}
			if c.rtp != none {
				want.RTP = addrPort(c.rtp)
				want.RTCP = netip.AddrPortFrom(want.RTP.Addr(), 4001)
			}
			if s.Remote != want {
				t.Errorf("remote %+v, want %+v", s.Remote, want)
			}
		})
	}
}

func TestSpecial(t *testing.T) {
	for _, s := range []string{"10.1.2.3", "172.31.0.1", "192.168.0.1", "100.127.0.1", "169.254.0.1", "127.0.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1",
		"255.255.255.255", "250.0.0.1", "::", "::1", "fe80::1", "fd00::1", "ff02::1", "::ffff:10.0.0.1"} {
		if !Special(addr(s)) {
			t.Errorf("%s is not special", s)
		}
	}
	for _, s := range []string{"192.0.2.1", "198.51.100.1", "203.0.113.1", "8.8.8.8", "100.63.0.1", "100.128.0.1", "172.32.0.1", "2001:db8::1", "::ffff:192.0.2.1"} {
		if Special(addr(s)) {
			t.Errorf("%s is special", s)
		}
	}
	if !Special(netip.Addr{}) {
		t.Error("no address is not special")
	}
}

func TestRTCPAddress(t *testing.T) {
	for _, c := range []struct {
		name, attribute, policy string
		rtcp                    string
		accept                  relay.AcceptSet
	}{
		{"none: the next port", "a=x", "auto", "198.51.100.20:4001", only("198.51.100.20")},
		{"a port", "a=rtcp:4100", "auto", "198.51.100.20:4100", only("198.51.100.20")},
		{"one port for both", "a=rtcp:4000", "auto", "198.51.100.20:4000", only("198.51.100.20")},
		{"another address", "a=rtcp:4100 IN IP4 198.51.100.21", "auto", "198.51.100.21:4100", only("198.51.100.20", "198.51.100.21")},
		{"another address, signalling", "a=rtcp:4100 IN IP4 198.51.100.21", "signalling", "198.51.100.21:4100", only("198.51.100.20")},
		{"a private one", "a=rtcp:4100 IN IP4 192.168.1.5", "any", "", relay.AcceptSet{Any: true}},
		{"of another family", "a=rtcp:4100 IN IP6 2001:db8::1", "auto", "", only("198.51.100.20")},
		{"a name", "a=rtcp:4100 IN IP4 rtcp.example.com", "auto", "", only("198.51.100.20")},
		{"a group", "a=rtcp:4100 IN IP4 224.2.1.1", "auto", "", only("198.51.100.20")},
		{"port 0", "a=rtcp:0", "auto", "", only("198.51.100.20")},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newCall(t)
			k.a.Source, _ = ParsePolicy(c.policy)
			k.offer(k.a, k.b, audio("198.51.100.20", "4000", c.attribute))
			s := k.stream("a", 0)
			var want netip.AddrPort
			if c.rtcp != "" {
				want = addrPort(c.rtcp)
			}
			if s.Remote.RTCP != want || !equalSets(s.Accept, c.accept) {
				t.Errorf("RTCP %v from %v, want %v from %v", s.Remote.RTCP, s.Accept, want, c.accept)
			}
		})
	}
	k := newCall(t)
	k.offer(k.a, k.b, audio("198.51.100.20", "65535"))
	if s := k.stream("a", 0); s.Remote.RTCP.IsValid() {
		t.Errorf("RTCP %v behind the last port", s.Remote.RTCP)
	}
}
