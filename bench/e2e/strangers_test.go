package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
)

// command is one of our programs with the runtime directory of a test.
func command(t testing.TB, name, runtime string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program(t, name), args...)
	cmd.Env = append(os.Environ(), "TANDEM_RUNTIME_DIR="+runtime)
	return cmd
}

const offer = "v=0\r\no=- 1 1 IN IP4 198.51.100.20\r\ns=-\r\nc=IN IP4 198.51.100.20\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n"

// invite is a complete INVITE from the nat box. The port 5090 stands for the one that it is sent from.
func invite(id, user string) string {
	return fmt.Sprintf("INVITE sip:%s@198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.20:5090;rport;branch=z9hG4bK%s\r\n"+
		"From: <sip:a@example.org>;tag=%s\r\nTo: <sip:%s@example.org>\r\nCall-ID: %s\r\nCSeq: 1 INVITE\r\n"+
		"Contact: <sip:a@198.51.100.20:5090>\r\nMax-Forwards: 70\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s",
		user, id, id, user, id, len(offer), offer)
}

// request is an in-dialog request of a call that does not exist.
func request(method, id string) string {
	return fmt.Sprintf("%s sip:nobody@198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.20:5090;rport;branch=z9hG4bK%s\r\n"+
		"From: <sip:a@example.org>;tag=1\r\nTo: <sip:b@example.org>;tag=2\r\nCall-ID: %s\r\nCSeq: 7 %s\r\nMax-Forwards: 70\r\n"+
		"Content-Length: 0\r\n\r\n", method, id, id, method)
}

// expect sends one message from a fresh port of ip and waits for an answer that begins with want; an empty want expects
// silence for half a second.
func (h *house) expect(t *testing.T, ns *lab.Namespace, ip, message, want string) {
	t.Helper()
	conn, err := ns.ListenUDP(netip.AddrPortFrom(netip.MustParseAddr(ip), 0))
	must(t, err)
	defer conn.Close()
	own := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	message = strings.ReplaceAll(message, ":5090", fmt.Sprintf(":%d", own.Port()))
	_, err = conn.WriteToUDPAddrPort([]byte(message), netip.MustParseAddrPort(outsideIP+":5060"))
	must(t, err)
	limit := 5 * time.Second
	if want == "" {
		limit = 500 * time.Millisecond
	}
	must(t, conn.SetReadDeadline(time.Now().Add(limit)))
	buf := make([]byte, 65536)
	for {
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		first, _, _ := strings.Cut(string(buf[:n]), "\r\n")
		switch {
		case err != nil && want == "":
			return
		case err != nil:
			t.Errorf("no answer %q to %q: %v", want, strings.SplitN(message, "\r\n", 2)[0], err)
			return
		case want == "":
			t.Errorf("answered %q to %q", first, strings.SplitN(message, "\r\n", 2)[0])
			return
		case strings.HasPrefix(first, want):
			return
		case strings.HasPrefix(first, "SIP/2.0 100 "):
		default:
			t.Errorf("answered %q instead of %q to %q", first, want, strings.SplitN(message, "\r\n", 2)[0])
			return
		}
	}
}

// TestBadInput throws at a daemon with a call in progress what the edge of a network sees, and then looks whether the
// call noticed.
func TestBadInput(t *testing.T) {
	h := build(t)
	require.Tool(t, "sipp")
	d := h.start(t, phonesAndPBX+`
[[trunk]]
name = "dead-end"
network = "outside"
peer = "203.0.113.77:5060"
sources = ["203.0.113.77/32"]
`)
	must(t, h.stranger.AddAddr("eth0", netip.MustParsePrefix("203.0.113.77/24")))
	heard := counting(t, h.phone, "udp dport 6000")
	uas := startSipp(t, h.pbx, "uas", "-sf", scenario(t, "uas_challenge_183.xml"), "-i", pbxIP, "-p", "5060", "-mi", pbxIP,
		"-mp", "7000", "-rtp_echo", "-m", "1")
	listening(t, h.pbx, 5060)
	uac := startSipp(t, h.phone, "uac", "-sf", scenario(t, "uac_auth_pcap.xml"), "-i", phoneIP, "-p", "5062", "-mi", phoneIP,
		"-mp", "6000", "-s", "bob", "-m", "1", outsideIP+":5060")
	eventually(t, 15*time.Second, "a call is up", func() error {
		if n := heard(); n < 20 {
			return fmt.Errorf("%d packets heard", n)
		}
		return nil
	})
	s, err := d.sessions()
	must(t, err)
	var media []netip.AddrPort
	for _, party := range s.Sessions[0].Parties {
		for _, flow := range party.Streams[0].Flows {
			if local := netip.MustParseAddrPort(flow.Local); local.Addr() == netip.MustParseAddr(outsideIP) {
				media = append(media, local)
			}
		}
	}

	// Signalling from outside any trunk: silence, whatever it says.
	for _, message := range []string{invite("stranger", "bob"), request("BYE", "stranger"), "OPTIONS", "\x00\xff\x00"} {
		h.expect(t, h.stranger, "203.0.113.66", message, "")
	}
	// From a trunk: the proper answer.
	h.expect(t, h.stranger, "203.0.113.77", strings.ReplaceAll(invite("no-route", "x"), "SIP/2.0/UDP 198.51.100.20", "SIP/2.0/UDP 203.0.113.77"), "SIP/2.0 404 ")
	h.expect(t, h.nat, natIP, request("BYE", "unknown"), "SIP/2.0 481 ")
	h.expect(t, h.nat, natIP, request("ACK", "unknown"), "")
	h.expect(t, h.nat, natIP, strings.Replace(invite("no-hops", "x"), "Max-Forwards: 70", "Max-Forwards: 0", 1), "SIP/2.0 483 ")
	h.expect(t, h.nat, natIP, strings.Replace(invite("no-callid", "x"), "Call-ID: ", "X-Call: ", 1), "SIP/2.0 400 ")
	h.expect(t, h.nat, natIP, strings.Replace(invite("bad-sdp", "x"), "m=audio 4000", "m=audio zero", 1), "SIP/2.0 400 ")
	h.expect(t, h.nat, natIP, strings.Repeat("INVITE ", 5000), "")
	h.expect(t, h.nat, natIP, "\r\n\r\n", "")

	// Media: strangers on the ports of the call, the call's own ports from elsewhere, ports of no call, broken packets.
	rtp := append([]byte{0x80, 8, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4}, make([]byte, 160)...)
	conn, err := h.stranger.ListenUDP(netip.MustParseAddrPort("203.0.113.66:4000"))
	must(t, err)
	defer conn.Close()
	for range 50 {
		for _, to := range append(media, netip.MustParseAddrPort(outsideIP+":31998")) {
			for _, packet := range [][]byte{rtp, rtp[:4], {}, {0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}} {
				_, err := conn.WriteToUDPAddrPort(packet, to)
				must(t, err)
			}
		}
	}
	status, err := d.status()
	must(t, err)
	for _, reason := range []string{"no_session", "source_mismatch"} {
		if status.Dropped[reason] < 50 {
			t.Errorf("%d packets dropped as %s, want at least 50: %v", status.Dropped[reason], reason, status.Dropped)
		}
	}

	uac.done(40 * time.Second)
	uas.done(10 * time.Second)
	if n := heard(); n != pcapPackets {
		t.Errorf("the phone heard %d packets, its own %d echoed ones were due", n, pcapPackets)
	}
	d.empty()
}

// reply is a response to a request, with the header lines that a response copies.
func reply(request, status string) string {
	head, _, _ := strings.Cut(request, "\r\n\r\n")
	answer := "SIP/2.0 " + status + "\r\n"
	for line := range strings.SplitSeq(head, "\r\n") {
		name, _, _ := strings.Cut(line, ":")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "to", "t":
			answer += line + ";tag=busy\r\n"
		case "via", "v", "from", "f", "call-id", "i", "cseq":
			answer += line + "\r\n"
		}
	}
	return answer + "Content-Length: 0\r\n\r\n"
}

// TestFullPortPool answers 503 while no port is left, and takes calls again when the others have ended.
func TestFullPortPool(t *testing.T) {
	h := build(t)
	instance := newInstance()
	d := start(t, h.tandem, instance, strings.ReplaceAll(h.configuration(instance, phonesAndPBX), `"20000-31999"`, `"20000-20003"`))
	pbx, err := h.pbx.ListenUDP(netip.MustParseAddrPort(pbxIP + ":5060"))
	must(t, err)
	defer pbx.Close()

	h.expect(t, h.nat, natIP, invite("one", "x"), "SIP/2.0 100 ")
	h.expect(t, h.nat, natIP, invite("two", "x"), "SIP/2.0 100 ")
	h.expect(t, h.nat, natIP, invite("three", "x"), "SIP/2.0 503 ")

	// The far side is busy: both calls end, and their ports come back.
	must(t, pbx.SetDeadline(time.Now().Add(10*time.Second)))
	buf := make([]byte, 65536)
	for busy := map[string]bool{}; len(busy) < 2; {
		n, from, err := pbx.ReadFromUDPAddrPort(buf)
		must(t, err)
		message := string(buf[:n])
		if !strings.HasPrefix(message, "INVITE ") {
			continue
		}
		for _, id := range []string{"one", "two"} {
			if strings.Contains(message, "Call-ID: "+id) {
				busy[id] = true
			}
		}
		_, err = pbx.WriteToUDPAddrPort([]byte(reply(message, "486 Busy Here")), from)
		must(t, err)
	}
	d.empty()
	eventually(t, 10*time.Second, "the quarantine is over", func() error {
		s, err := d.status()
		if err != nil {
			return err
		}
		for _, p := range s.Ports {
			if p.Quarantined != 0 {
				return fmt.Errorf("%d pairs of %s in quarantine", p.Quarantined, p.Address)
			}
		}
		return nil
	})
	h.expect(t, h.nat, natIP, invite("four", "x"), "SIP/2.0 100 ")
}

// TestFirewall puts a default-drop firewall before the daemon's own sockets. XDP does not see it; what is punted
// needs a rule, and the daemon says which.
func TestFirewall(t *testing.T) {
	h := build(t)
	must(t, h.tandem.NFT(`
table inet filter {
	chain input {
		type filter hook input priority 0; policy drop;
		iif lo accept
		udp dport 5060 accept
	}
}`))
	d := h.start(t, phonesAndPBX)
	s, err := d.status()
	must(t, err)
	said := strings.Join(s.Dataplane.Warnings, "\n")
	if !strings.Contains(said, "nft add rule inet filter input") || !strings.Contains(said, outsideIP) {
		t.Errorf("no warning that names the missing rule: %q", said)
	}
	if out, err := d.tandem("status"); err != nil || !strings.Contains(out, "nft add rule") {
		t.Errorf("tandem status does not show it: %v\n%s", err, out)
	}

	// The rules as named let the slow path work.
	for _, rule := range regexp.MustCompile(`nft (add rule inet filter input [^\n;]*accept)`).FindAllStringSubmatch(said, -1) {
		must(t, h.tandem.NFT(rule[1]+"\n"))
	}
	d.signal(syscall.SIGTERM)
	d.launch()
	if s, err = d.status(); err != nil || len(s.Dataplane.Warnings) != 0 {
		t.Errorf("with the rules: %v: %q", err, s.Dataplane.Warnings)
	}
}
