package e2e

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab/require"
)

// pcapPackets is the number of RTP packets in sipp's packaged g711a.pcap.
const pcapPackets = 236

// TestStandardCall is the call that every phone behind a home router makes: a private address in the offer, random
// ports at the NAT, a challenge, early media, then G.711 that the far side echoes.
func TestStandardCall(t *testing.T) {
	h := build(t)
	require.Tool(t, "sipp")
	d := h.start(t, phonesAndPBX)
	heard := counting(t, h.phone, "udp dport 6000")

	uas := startSipp(t, h.pbx, "uas", "-sf", scenario(t, "uas_challenge_183.xml"), "-i", pbxIP, "-p", "5060", "-mi", pbxIP,
		"-mp", "7000", "-rtp_echo", "-m", "1")
	listening(t, h.pbx, 5060)
	uac := startSipp(t, h.phone, "uac", "-sf", scenario(t, "uac_auth_pcap.xml"), "-i", phoneIP, "-p", "5062", "-mi", phoneIP,
		"-mp", "6000", "-s", "bob", "-m", "1", outsideIP+":5060")

	eventually(t, 15*time.Second, "media flows both ways", func() error {
		s, err := d.sessions()
		if err != nil {
			return err
		}
		if len(s.Sessions) != 1 {
			return fmt.Errorf("%d sessions", len(s.Sessions))
		}
		for _, party := range s.Sessions[0].Parties {
			rtp := party.Streams[0].Flows[0]
			if rtp.Packets["xdp"] < 50 || rtp.Learnt == "" {
				return fmt.Errorf("party %s: %+v", party.ID, rtp)
			}
		}
		return nil
	})
	uac.done(40 * time.Second)
	uas.done(10 * time.Second)

	if n := heard(); n != pcapPackets {
		t.Errorf("the phone heard %d of its %d echoed packets", n, pcapPackets)
	}
	s, err := d.status()
	must(t, err)
	if got := s.Forwarded["xdp"]; got < 2*pcapPackets-2 {
		t.Errorf("XDP forwarded %d packets, want at least %d: %+v", got, 2*pcapPackets-2, s)
	}
	for _, reason := range []string{"no_session", "source_mismatch", "no_destination", "malformed_rtp"} {
		if n := s.Dropped[reason]; n != 0 {
			t.Errorf("%d packets dropped as %s", n, reason)
		}
	}
	d.empty()
}

// TestManyCalls sets up calls as fast as a busy trunk does, and looks whether anything stays behind.
func TestManyCalls(t *testing.T) {
	h := build(t)
	require.Tool(t, "sipp")
	d := h.start(t, phonesAndPBX)
	calls := 600
	if os.Getenv("TANDEM_LONG") != "" {
		calls = 6000
	}
	startSipp(t, h.pbx, "uas", "-sn", "uas", "-i", pbxIP, "-p", "5060", "-mi", pbxIP, "-mp", "7000")
	listening(t, h.pbx, 5060)
	uac := startSipp(t, h.phone, "uac", "-sn", "uac", "-i", phoneIP, "-p", "5062", "-mi", phoneIP, "-mp", "6000",
		"-r", "100", "-d", "2000", "-m", strconv.Itoa(calls), outsideIP+":5060")
	uac.done(3 * time.Minute)
	d.empty()
}
