package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab"
	"github.com/tandem-relay/tandem/bench/lab/require"
)

const rate = 8000 // samples per second

// tone returns 16-bit samples of a sine.
func tone(hz float64, seconds int) []int16 {
	samples := make([]int16, rate*seconds)
	for i := range samples {
		samples[i] = int16(12000 * math.Sin(2*math.Pi*hz*float64(i)/rate))
	}
	return samples
}

// wav is a mono 16-bit PCM file.
func wav(samples []int16) []byte {
	var b bytes.Buffer
	b.WriteString("RIFF")
	write := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&b, binary.LittleEndian, v) // a bytes.Buffer takes everything
		}
	}
	write(uint32(36 + 2*len(samples)))
	b.WriteString("WAVEfmt ")
	write(uint32(16), uint16(1), uint16(1), uint32(rate), uint32(2*rate), uint16(2), uint16(16))
	b.WriteString("data")
	write(uint32(2*len(samples)), samples)
	return b.Bytes()
}

// purity is the share of the recording's energy at a frequency (Goertzel), from 0 to 1, over its second half, when
// both sides surely talk.
func purity(t *testing.T, file string, hz float64) float64 {
	t.Helper()
	raw, err := os.ReadFile(file)
	must(t, err)
	if len(raw) < 44+2*rate {
		t.Fatalf("%s is only %d bytes long", file, len(raw))
	}
	samples := make([]int16, (len(raw)-44)/2)
	must(t, binary.Read(bytes.NewReader(raw[44:44+2*len(samples)]), binary.LittleEndian, samples))
	samples = samples[len(samples)/2:]
	// Short windows, because a jitter buffer that skips a packet shifts the phase.
	const window = rate / 10
	k := 2 * math.Cos(2*math.Pi*hz/rate)
	var at, total float64
	for ; len(samples) >= window; samples = samples[window:] {
		var s1, s2 float64
		for _, x := range samples[:window] {
			s1, s2 = float64(x)+k*s1-s2, s1
			total += float64(x) * float64(x)
		}
		at += 2 * (s1*s1 + s2*s2 - k*s1*s2) / window
	}
	if total == 0 {
		return 0
	}
	return at / total
}

// baresip is a phone with a tone as microphone; what it hears is recorded below its directory.
func baresip(t *testing.T, ns *lab.Namespace, user, ip string, hz float64, args ...string) (dir string, cmd *exec.Cmd, out *buffer) {
	t.Helper()
	require.Tool(t, "baresip")
	dir = t.TempDir()
	config := fmt.Sprintf(`module_path /usr/lib/baresip/modules
sip_listen %[1]s:5060
net_interface %[1]s
audio_source aufile,%[2]s/tone.wav
audio_player aubridge,nil
audio_alert aubridge,nil
audio_srate 8000-8000
audio_channels 1
rtp_ports 16000-16200
jitter_buffer_delay 1-5
rtp_stats yes
snd_path %[2]s
module g711.so
module aufile.so
module aubridge.so
module sndfile.so
module_app account.so
module_app menu.so
module_tmp uuid.so
`, ip, dir)
	for name, content := range map[string][]byte{
		"config":   []byte(config),
		"accounts": fmt.Appendf(nil, "<sip:%s@%s:5060>;regint=0;answermode=auto;audio_codecs=PCMA\n", user, ip),
		"contacts": nil,
		"tone.wav": wav(tone(hz, 60)),
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	cmd = exec.Command("baresip", append([]string{"-f", dir}, args...)...)
	out = &buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	must(t, ns.Start(cmd))
	return dir, cmd, out
}

// recording is the file of what a phone heard.
func recording(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "dump-*-dec.wav"))
	must(t, err)
	if len(files) != 1 {
		t.Fatalf("%d recordings in %s", len(files), dir)
	}
	return files[0]
}

// TestTones lets two phones call each other; each must hear the other's tone, and not its own.
func TestTones(t *testing.T) {
	h := build(t)
	d := h.start(t, phonesAndPBX)
	calleeDir, callee, calleeOut := baresip(t, h.pbx, "bob", pbxIP, 1000)
	listening(t, h.pbx, 5060)
	callerDir, caller, callerOut := baresip(t, h.phone, "alice", phoneIP, 440, "-e", "/dial sip:bob@"+outsideIP, "-t", "9")

	eventually(t, 15*time.Second, "XDP carries both directions", func() error {
		s, err := d.sessions()
		if err != nil {
			return err
		}
		if len(s.Sessions) != 1 {
			return fmt.Errorf("%d sessions; caller: %s", len(s.Sessions), tail(callerOut.String(), 500))
		}
		for _, party := range s.Sessions[0].Parties {
			if rtp := party.Streams[0].Flows[0]; rtp.Packets["xdp"] < 100 {
				return fmt.Errorf("party %s: %+v", party.ID, rtp)
			}
		}
		return nil
	})
	if err := caller.Wait(); err != nil {
		t.Logf("caller: %v", err)
	}
	d.empty() // the caller's BYE went through
	must(t, callee.Process.Signal(os.Interrupt))
	_ = callee.Wait() // its exit status after an interrupt says nothing

	for _, c := range []struct {
		who, dir  string
		far, near float64
		out       *buffer
	}{
		{"caller", callerDir, 1000, 440, callerOut},
		{"callee", calleeDir, 440, 1000, calleeOut},
	} {
		file := recording(t, c.dir)
		far, near := purity(t, file, c.far), purity(t, file, c.near)
		if far < 0.9 || near > 0.05 {
			t.Errorf("%s heard %.0f %% of %v Hz and %.0f %% of its own %v Hz\n%s", c.who, 100*far, c.far, 100*near, c.near,
				tail(c.out.String(), 1500))
		}
	}
	s, err := d.status()
	must(t, err)
	if s.Forwarded["slow"] > 4 {
		t.Errorf("%d packets took the slow path: %v", s.Forwarded["slow"], s.Punted)
	}
}
