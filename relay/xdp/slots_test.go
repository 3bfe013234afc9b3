package xdp

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandem-relay/tandem/relay"
	"github.com/tandem-relay/tandem/relay/relaytest"
)

// TestSlots: a slot comes back after the grace period, not before, and never twice.
func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(2, 6, map[uint32]bool{3: true}, time.Now)
		var taken []uint32
		for {
			i, ok := s.take()
			if !ok {
				break
			}
			taken = append(taken, i)
		}
		if len(taken) != 3 || taken[0] != 2 || taken[1] != 4 || taken[2] != 5 {
			t.Fatalf("took %v, want 2, 4, 5", taken)
		}
		s.retire(4)
		time.Sleep(grace / 2)
		s.retire(2)
		time.Sleep(grace/2 - 1)
		if n := s.available(); n != 0 {
			t.Errorf("%d slots within the grace period", n)
		}
		time.Sleep(time.Nanosecond)
		if i, ok := s.take(); !ok || i != 4 {
			t.Errorf("took %d, %v, want 4", i, ok)
		}
		if i, ok := s.take(); ok {
			t.Errorf("took %d too early", i)
		}
		time.Sleep(grace)
		if i, ok := s.take(); !ok || i != 2 || s.available() != 0 {
			t.Errorf("took %d, %v, want 2", i, ok)
		}
		for range 1000 {
			i, ok := s.take()
			if ok {
				t.Fatalf("took %d twice", i)
			}
			s.retire(2)
			time.Sleep(grace)
			if i, ok = s.take(); !ok || i != 2 {
				t.Fatalf("took %d, %v", i, ok)
			}
		}
		if len(s.retired) > 4 {
			t.Errorf("%d retired slots are kept", len(s.retired))
		}
		s.giveBack(2)
		if s.available() != 1 {
			t.Error("a slot that was given back is not available")
		}
		if s := newSlots(0, 3, nil, time.Now); s.available() != 3 {
			t.Errorf("%d of 3 slots", s.available())
		}
	})
}

// TestClassify: the slow path judges payloads as the program does.
func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		name      string
		payload   []byte
		stun      bool
		rtp, rtcp bool // passes on a stream of that component with the RTP check
	}{
		{"RTP", relaytest.RTP(1, 160), false, true, true},
		{"RTP without payload", relaytest.RTP(1, 0), false, true, true},
		{"RTP cut in its header", relaytest.RTP(1, 0)[:11], false, false, true},
		{"RTCP", relaytest.RTCP(), false, true, true},
		{"RTCP cut in its header", relaytest.RTCP()[:7], false, false, false},
		{"STUN", relaytest.STUN(), true, false, false},
		{"STUN cut in its header", relaytest.STUN()[:19], false, false, false},
		{"STUN without cookie", make([]byte, 20), false, false, false},
		{"DTLS", append([]byte{22}, make([]byte, 40)...), false, false, false},
		{"empty", nil, false, false, false},
	} {
		k := classify(tt.payload)
		if (k == payloadSTUN) != tt.stun || k.isRTP(relay.RTP) != tt.rtp || k.isRTP(relay.RTCP) != tt.rtcp {
			t.Errorf("%s: kind %d, RTP %v, RTCP %v", tt.name, k, k.isRTP(relay.RTP), k.isRTP(relay.RTCP))
		}
	}
}
