package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab/require"
)

// TestSpiral sends one call through a PBX that returns it: Call-ID, tags and CSeq enter twice, and are two calls here.
func TestSpiral(t *testing.T) {
	h := build(t)
	require.Tool(t, "kamailio")
	d := h.start(t, `
[[trunk]]
name = "phones"
network = "outside"
peer = "198.51.100.20:5060"
sources = ["198.51.100.0/24"]
route = "pbx"

[[trunk]]
name = "pbx"
network = "inside"
peer = "10.9.0.2:5060"
route = "desk"

[[trunk]]
name = "desk"
network = "outside"
peer = "203.0.113.66:5060"
route = "pbx"
`)
	heard := counting(t, h.phone, "udp dport 6000")
	kamailio := exec.Command("kamailio", "-DD", "-E", "-f", scenario(t, "kamailio_spiral.cfg"), "-m", "32", "-M", "4",
		"-Y", t.TempDir(), "-w", t.TempDir())
	kamailio.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log := &buffer{}
	kamailio.Stdout, kamailio.Stderr = log, log
	must(t, h.pbx.Start(kamailio))
	t.Cleanup(func() {
		_ = syscall.Kill(-kamailio.Process.Pid, syscall.SIGKILL)
		_ = kamailio.Wait()
		if t.Failed() {
			t.Logf("kamailio said:\n%s", tail(log.String(), 2000))
		}
	})
	listening(t, h.pbx, 5060)
	uas := startSipp(t, h.stranger, "uas", "-sf", scenario(t, "uas_challenge_183.xml"), "-i", "203.0.113.66", "-p", "5060",
		"-mi", "203.0.113.66", "-mp", "7000", "-rtp_echo", "-m", "1")
	listening(t, h.stranger, 5060)
	uac := startSipp(t, h.phone, "uac", "-sf", scenario(t, "uac_auth_pcap.xml"), "-i", phoneIP, "-p", "5062", "-mi", phoneIP,
		"-mp", "6000", "-s", "bob", "-m", "1", outsideIP+":5060")

	eventually(t, 15*time.Second, "both passes of the call carry media", func() error {
		s, err := d.sessions()
		if err != nil {
			return err
		}
		if len(s.Sessions) != 2 {
			return fmt.Errorf("%d sessions", len(s.Sessions))
		}
		ids := map[string]int{}
		for _, session := range s.Sessions {
			if session.Call == nil {
				return errors.New("a session without a call")
			}
			for _, id := range session.Call.CallIDs {
				ids[id]++
			}
			for _, party := range session.Parties {
				if rtp := party.Streams[0].Flows[0]; rtp.Packets["xdp"]+rtp.Packets["slow"] < 20 {
					return fmt.Errorf("party %s: %+v", party.ID, rtp)
				}
			}
		}
		if len(ids) != 1 {
			return fmt.Errorf("the two calls have %d Call-IDs, want the same one: %v", len(ids), ids)
		}
		return nil
	})
	uac.done(40 * time.Second)
	uas.done(10 * time.Second)
	if n := heard(); n != pcapPackets {
		t.Errorf("the phone heard %d of its %d echoed packets", n, pcapPackets)
	}
	d.empty()
}
