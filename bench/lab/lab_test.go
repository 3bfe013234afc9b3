package lab_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
)

// patience is how long a condition may take to come true.
const patience = 5 * time.Second

func namespace(t *testing.T, l *lab.Lab, name string) *lab.Namespace {
	t.Helper()
	ns, err := l.Namespace(name)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func connect(t *testing.T, l *lab.Lab, a, b lab.End) {
	t.Helper()
	if err := l.Connect(a, b); err != nil {
		t.Fatal(err)
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// eventually polls a condition until it holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// passes reports whether a datagram gets from one namespace to an address in another within the time given. It is sent
// again and again, because the first may be lost while the neighbour is resolved.
func passes(t *testing.T, from, to *lab.Namespace, addr netip.Addr, within time.Duration) bool {
	t.Helper()
	sink, err := to.ListenUDP(netip.AddrPortFrom(addr, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	source, err := from.DialUDP(netip.AddrPort{}, sink.LocalAddr().(*net.UDPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	buf := make([]byte, 16)
	for end := time.Now().Add(within); time.Now().Before(end); {
		if _, err := source.Write([]byte("ping")); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			return false
		}
		if err := sink.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, err := sink.Read(buf); err == nil {
			return string(buf[:n]) == "ping"
		}
	}
	return false
}

func TestConnect(t *testing.T) {
	tests := []struct {
		name, why string
		from, to  string
		mtu       int
	}{
		{"ipv4", "the plain case", "192.0.2.1/24", "192.0.2.2/24", 0},
		{"ipv6", "usable at once, without duplicate address detection", "2001:db8::1/64", "2001:db8::2/64", 0},
		{"small mtu", "fragmentation tests need it", "192.0.2.1/24", "192.0.2.2/24", 576},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := require.Lab(t)
			a, b := namespace(t, l, "a"), namespace(t, l, "b")
			connect(t, l, lab.End{Namespace: a, Name: "eth0", Addrs: prefixes(test.from), MTU: test.mtu},
				lab.End{Namespace: b, Name: "eth7", Addrs: prefixes(test.to), MTU: test.mtu})
			if !passes(t, a, b, netip.MustParsePrefix(test.to).Addr(), patience) {
				t.Errorf("nothing arrived (%s)", test.why)
			}
			if want := test.mtu; want != 0 {
				if l, err := b.Handle().LinkByName("eth7"); err != nil || l.Attrs().MTU != want {
					t.Errorf("mtu: %v, %v", l, err)
				}
			}
		})
	}
}

// TestReception puts a namespace in the middle that joins its two interfaces by nothing but native XDP redirects.
func TestReception(t *testing.T) {
	tests := []struct {
		reception lab.Reception
		why       string
		arrives   bool
	}{
		{lab.XDPPass, "the default receives redirected frames", true},
		{lab.GRO, "so does GRO", true},
		{lab.Bare, "a bare veth drops them silently", false},
	}
	for _, test := range tests {
		t.Run(test.why, func(t *testing.T) {
			l := require.Lab(t)
			a, wire, b := namespace(t, l, "a"), namespace(t, l, "wire"), namespace(t, l, "b")
			connect(t, l, lab.End{Namespace: a, Name: "eth0", Addrs: prefixes("192.0.2.1/24"), Reception: test.reception},
				lab.End{Namespace: wire, Name: "left", Reception: lab.Bare})
			connect(t, l, lab.End{Namespace: b, Name: "eth0", Addrs: prefixes("192.0.2.2/24"), Reception: test.reception},
				lab.End{Namespace: wire, Name: "right", Reception: lab.Bare})
			redirect(t, wire, "left", "right")
			redirect(t, wire, "right", "left")
			within := patience
			if !test.arrives {
				within = 500 * time.Millisecond
			}
			if got := passes(t, a, b, netip.MustParseAddr("192.0.2.2"), within); got != test.arrives {
				t.Errorf("arrived: %v, want %v", got, test.arrives)
			}
		})
	}
}

func redirect(t *testing.T, ns *lab.Namespace, from, to string) {
	t.Helper()
	in, err := ns.Ifindex(from)
	if err != nil {
		t.Fatal(err)
	}
	out, err := ns.Ifindex(to)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(out)), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	if err := ns.Do(func() error {
		attached, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: in, Flags: link.XDPDriverMode})
		if err == nil {
			t.Cleanup(func() { attached.Close() })
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestChecksum looks at a frame as XDP would see it.
func TestChecksum(t *testing.T) {
	l := require.Lab(t)
	a, b := namespace(t, l, "a"), namespace(t, l, "b")
	connect(t, l, lab.End{Namespace: a, Name: "eth0", Addrs: prefixes("192.0.2.1/24")},
		lab.End{Namespace: b, Name: "eth0", Addrs: prefixes("192.0.2.2/24")})
	var fd int
	if err := b.Do(func() (err error) {
		const ip = 0x0008 // ETH_P_IP in network order
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, ip)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		t.Fatal(err)
	}
	if !passes(t, a, b, netip.MustParseAddr("192.0.2.2"), patience) {
		t.Fatal("nothing arrived")
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			t.Fatal(err)
		}
		if packet := buf[:n]; n >= 28 && packet[9] == unix.IPPROTO_UDP {
			if sum := udpSum(packet); sum != 0xffff {
				t.Errorf("UDP checksum was not filled in: sum is %#x", sum)
			}
			return
		}
	}
}

// udpSum adds up pseudo header and datagram of an IPv4 packet without options; a right one gives 0xffff.
func udpSum(packet []byte) uint32 {
	total := int(packet[2])<<8 | int(packet[3])
	sum := uint32(unix.IPPROTO_UDP) + uint32(total-20)
	for i := 12; i < total; i++ {
		if i%2 == 0 {
			sum += uint32(packet[i]) << 8
		} else {
			sum += uint32(packet[i])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum
}

func TestLinkDownAndMAC(t *testing.T) {
	l := require.Lab(t)
	a, b := namespace(t, l, "a"), namespace(t, l, "b")
	connect(t, l, lab.End{Namespace: a, Name: "eth0", Addrs: prefixes("192.0.2.1/24")},
		lab.End{Namespace: b, Name: "eth0", Addrs: prefixes("192.0.2.2/24")})
	addr := netip.MustParseAddr("192.0.2.2")
	if err := b.LinkDown("eth0"); err != nil {
		t.Fatal(err)
	}
	if passes(t, a, b, addr, 300*time.Millisecond) {
		t.Error("a link that is down carried a packet")
	}
	if err := b.LinkUp("eth0"); err != nil {
		t.Fatal(err)
	}
	if !passes(t, a, b, addr, patience) {
		t.Error("nothing arrived after the link came up")
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 7}
	if err := b.SetMAC("eth0", mac); err != nil {
		t.Fatal(err)
	}
	if got, err := b.MAC("eth0"); err != nil || got.String() != mac.String() {
		t.Errorf("MAC is %s, %v", got, err)
	}
	if passes(t, a, b, addr, 100*time.Millisecond) {
		t.Error("the old neighbour entry still reached the new hardware address")
	}
}

// TestMasquerade is the caller behind NAT of the end-to-end tests.
func TestMasquerade(t *testing.T) {
	require.Tool(t, "nft")
	l := require.Lab(t)
	phone, nat, world := namespace(t, l, "phone"), namespace(t, l, "nat"), namespace(t, l, "world")
	connect(t, l, lab.End{Namespace: phone, Name: "eth0", Addrs: prefixes("10.0.0.2/24")},
		lab.End{Namespace: nat, Name: "in", Addrs: prefixes("10.0.0.1/24")})
	connect(t, l, lab.End{Namespace: nat, Name: "out", Addrs: prefixes("192.0.2.1/24")},
		lab.End{Namespace: world, Name: "eth0", Addrs: prefixes("192.0.2.2/24")})
	if err := phone.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.0.0.1"), 0); err != nil {
		t.Fatal(err)
	}
	if err := nat.Forward(); err != nil {
		t.Fatal(err)
	}
	if err := nat.NFT(`table ip nat { chain post { type nat hook postrouting priority srcnat; oifname "out" masquerade random; }; }`); err != nil {
		t.Fatal(err)
	}
	sink, err := world.ListenUDP(netip.MustParseAddrPort("192.0.2.2:4000"))
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	source, err := phone.DialUDP(netip.AddrPort{}, netip.MustParseAddrPort("192.0.2.2:4000"))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if _, err := source.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if err := sink.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, from, err := sink.ReadFromUDPAddrPort(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	if from.Addr() != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("came from %s, want the masquerading address", from)
	}
}

func TestNFTRefused(t *testing.T) {
	require.Tool(t, "nft")
	l := require.Lab(t)
	ns := namespace(t, l, "a")
	err := ns.NFT("nonsense")
	if err == nil || !strings.Contains(err.Error(), "syntax error") {
		t.Errorf("error should carry nft's own words, is %v", err)
	}
}

func TestStart(t *testing.T) {
	l := require.Lab(t)
	a := namespace(t, l, "a")
	out, err := a.Run(exec.Command("readlink", "/proc/self/ns/net"))
	if err != nil {
		t.Fatal(err)
	}
	var inside string
	if err := a.Do(func() (err error) {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	outside, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(out); got != inside || got == outside {
		t.Errorf("child ran in %s; namespace is %s, ours is %s", got, inside, outside)
	}

	sleeper := exec.Command("sleep", "1000")
	if err := a.Start(sleeper); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := sleeper.Wait(); !errors.As(err, &exit) || exit.String() != "signal: killed" {
		t.Errorf("child ended with %v, want killed by the closed lab", err)
	}
}

// TestHost needs nothing: it is the lab of an unprivileged user.
func TestHost(t *testing.T) {
	l := lab.New()
	host := l.Host()
	conn, err := host.ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	inside, err := host.Run(exec.Command("readlink", "/proc/self/ns/net"))
	if err != nil {
		t.Fatal(err)
	}
	if own, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || own != strings.TrimSpace(inside) {
		t.Errorf("child ran in %s, we in %s, %v", inside, own, err)
	}
	sleeper := exec.Command("sleep", "1000")
	if err := host.Start(sleeper); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Wait(); err == nil {
		t.Error("child ended well, want killed by the closed lab")
	}
}

// helperVariable makes the test binary be the victim of TestKilled.
const helperVariable = "LAB_TEST_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(helperVariable) != "" {
		if err := victim(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// victim makes a lab with a child in it, tells the child's pid and namespace, and waits to be killed.
func victim() error {
	l := lab.New()
	a, err := l.Namespace("a")
	if err != nil {
		return err
	}
	b, err := l.Namespace("b")
	if err != nil {
		return err
	}
	if err := l.Connect(lab.End{Namespace: a, Name: "eth0"}, lab.End{Namespace: b, Name: "eth0"}); err != nil {
		return err
	}
	child := exec.Command("sleep", "1000")
	if err := a.Start(child); err != nil {
		return err
	}
	fmt.Println(child.Process.Pid)
	return child.Wait()
}

func TestKilled(t *testing.T) {
	require.Lab(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), helperVariable+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(line)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("victim ended well")
	}
	eventually(t, "the child of a killed lab is gone", func() bool { return dead(pid) })
}

// dead reports whether a process is gone or only waits to be reaped.
func dead(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}
