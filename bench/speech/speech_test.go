package speech

import "testing"

func TestVoices(t *testing.T) {
	for name, voice := range map[string]Voice{"caller": Caller(), "callee": Callee()} {
		if len(voice.audio) != voice.Frames()*FrameSize || voice.Frames() < 250 {
			t.Errorf("%s: %d bytes are no whole frames or less than 5 s", name, len(voice.audio))
		}
		n := uint64(voice.Frames())
		if voice.Frame(n+3) != voice.Frame(3) || voice.Frame(2*n-1) != voice.Frame(n-1) {
			t.Errorf("%s: the loop does not close", name)
		}
	}
	if Caller().Frame(100) == Callee().Frame(100) {
		t.Error("both directions carry the same audio: a mix-up could not be seen")
	}
}
