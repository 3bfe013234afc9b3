package ports

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestParseRange(t *testing.T) {
	tests := []struct {
		name, text string
		want       Range
		ok         bool
		why        string
	}{
		{"plain", "20000-39999", Range{20000, 39999}, true, "the usual form"},
		{"blanks", " 20000 - 20001 ", Range{20000, 20001}, true, "people write blanks"},
		{"odd start", "20001-20003", Range{20001, 20003}, true, "20002 and 20003 are a pair"},
		{"top", "65534-65535", Range{65534, 65535}, true, "the last pair there is"},
		{"one port", "20000-20000", Range{}, false, "no room for RTCP"},
		{"split pair", "20001-20002", Range{}, false, "both halves belong to other pairs"},
		{"last port alone", "65535-65535", Range{}, false, "the even port would be 65536"},
		{"backwards", "30000-20000", Range{}, false, "first is above last"},
		{"zero", "0-100", Range{}, false, "port 0 cannot be sent to"},
		{"too large", "20000-65536", Range{}, false, "not a port"},
		{"no dash", "20000", Range{}, false, "not a range"},
		{"sign", "-1-5", Range{}, false, "the first number is missing"},
		{"word", "a-b", Range{}, false, "not numbers"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseRange(tt.text)
			if (err == nil) != tt.ok || tt.ok && got != tt.want {
				t.Errorf("ParseRange(%q) = %v, %v; want %v, ok %v: %s", tt.text, got, err, tt.want, tt.ok, tt.why)
			}
			if err == nil {
				if again, err := ParseRange(got.String()); err != nil || again != got {
					t.Errorf("String %q reads back as %v, %v", got, again, err)
				}
			}
		})
	}
}

// Pairs and a pool's ports are counted out one by one, at every alignment and at both ends of the port space.
func TestRangePairs(t *testing.T) {
	for _, from := range []int{1, 2, 3, 20000, 20001, 65530, 65531} {
		for length := range 12 {
			last := from + length
			if last > 65535 {
				break
			}
			r := Range{uint16(from), uint16(last)}
			var want []uint16
			for port := from; port < last; port++ {
				if port%2 == 0 {
					want = append(want, uint16(port))
				}
			}
			if r.Pairs() != len(want) {
				t.Errorf("%v holds %d pairs, want %d", r, r.Pairs(), len(want))
			}
			if len(want) == 0 {
				continue
			}
			p, err := New(0, r)
			if err != nil {
				t.Fatal(err)
			}
			if got := all(t, p); !slices.Equal(got, want) {
				t.Errorf("pool of %v deals %v, want %v", r, got, want)
			}
		}
	}
}

// all takes every pair and returns them sorted.
func all(t *testing.T, p *Pool) []uint16 {
	t.Helper()
	var got []uint16
	for {
		port, err := p.Allocate(time.Time{})
		if errors.Is(err, ErrExhausted) {
			slices.Sort(got)
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, port)
	}
}

func TestNewRefuses(t *testing.T) {
	tests := []struct {
		name       string
		quarantine time.Duration
		ranges     []Range
	}{
		{"nothing", 0, nil},
		{"negative quarantine", -1, []Range{{20000, 20001}}},
		{"backwards", 0, []Range{{20001, 20000}}},
		{"overlap", 0, []Range{{20000, 20009}, {30000, 30009}, {20009, 20020}}},
		{"twice", 0, []Range{{20000, 20009}, {20000, 20009}}},
		{"inside", 0, []Range{{20000, 20009}, {20002, 20005}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := New(tt.quarantine, tt.ranges...); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// model is a pool as one would write it without thought for speed.
type model struct {
	free, used map[uint16]bool
	waiting    map[uint16]time.Time
}

func (m *model) advance(now time.Time) {
	for port, until := range m.waiting {
		if !until.After(now) {
			delete(m.waiting, port)
			m.free[port] = true
		}
	}
}

// Random operations agree with the model, and no pair is handed out twice or before its time.
func TestPoolAgainstModel(t *testing.T) {
	const quarantine = 2 * time.Second
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		ranges := []Range{{101, 101 + uint16(2+rnd.IntN(60))}, {400, 401 + uint16(rnd.IntN(30))}, {65500, 65535}}
		p, err := New(quarantine, ranges...)
		if err != nil {
			t.Fatal(err)
		}
		m := &model{free: map[uint16]bool{}, used: map[uint16]bool{}, waiting: map[uint16]time.Time{}}
		for _, r := range ranges {
			for port := int(r.First); port < int(r.Last); port++ {
				if port%2 == 0 {
					m.free[uint16(port)] = true
				}
			}
		}
		now := time.Unix(1000, 0)
		for range 3000 {
			now = now.Add(time.Duration(rnd.IntN(60)) * time.Millisecond)
			m.advance(now)
			step(t, rnd, p, m, now, quarantine)
		}
	}
}

func step(t *testing.T, rnd *rand.Rand, p *Pool, m *model, now time.Time, quarantine time.Duration) {
	t.Helper()
	some := uint16(rnd.IntN(1 << 16)) // mostly outside
	if known := slices.Sorted(maps.Keys(m.used)); rnd.IntN(4) > 0 && len(known) > 0 {
		some = known[rnd.IntN(len(known))]
	} else if known := slices.Sorted(maps.Keys(m.free)); rnd.IntN(2) > 0 && len(known) > 0 {
		some = known[rnd.IntN(len(known))]
	} else if known := slices.Sorted(maps.Keys(m.waiting)); rnd.IntN(2) > 0 && len(known) > 0 {
		some = known[rnd.IntN(len(known))]
	}
	_, waits := m.waiting[some]
	inside := m.free[some] || m.used[some] || waits
	givenBack := func(err error) error {
		switch {
		case !inside:
			return ErrOutside
		case !m.used[some]:
			return ErrFree
		}
		delete(m.used, some)
		return nil
	}
	var err, want error
	switch op := rnd.IntN(10); op {
	case 0, 1, 2, 3:
		var port uint16
		if port, err = p.Allocate(now); err == nil {
			if !m.free[port] {
				t.Fatalf("allocated %d, which is not free", port)
			}
			delete(m.free, port)
			m.used[port] = true
		} else if len(m.free) == 0 {
			want = ErrExhausted
		}
	case 4, 5, 6:
		err = p.Release(some, now)
		if want = givenBack(err); want == nil {
			m.waiting[some] = now.Add(quarantine)
		}
	case 7:
		err = p.Return(some)
		if want = givenBack(err); want == nil {
			m.free[some] = true
		}
	case 8:
		p.Status(now) // Claim knows no time: what is due must be free before
		err = p.Claim(some)
		switch {
		case !inside:
			want = ErrOutside
		case !m.free[some]:
			want = ErrTaken
		default:
			delete(m.free, some)
			m.used[some] = true
		}
	case 9:
		got := p.Status(now)
		sum := Status{
			Total: len(m.free) + len(m.used) + len(m.waiting), Free: len(m.free), Used: len(m.used), Quarantined: len(m.waiting),
		}
		if got != sum {
			t.Fatalf("status %+v, want %+v", got, sum)
		}
	}
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Fatalf("port %d: error %v, want %v", some, err, want)
	}
}

func TestQuarantine(t *testing.T) {
	start := time.Unix(1000, 0)
	tests := []struct {
		name       string
		quarantine time.Duration
		after      time.Duration
		free       bool
	}{
		{"just before", 2 * time.Second, 2*time.Second - 1, false},
		{"on time", 2 * time.Second, 2 * time.Second, true},
		{"none", 0, 0, true},
		{"clock set back", 2 * time.Second, -time.Hour, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(tt.quarantine, Range{20000, 20001})
			if err != nil {
				t.Fatal(err)
			}
			port, err := p.Allocate(start)
			if err != nil || port != 20000 {
				t.Fatal(port, err)
			}
			if err := p.Release(port, start); err != nil {
				t.Fatal(err)
			}
			if _, err = p.Allocate(start.Add(tt.after)); (err == nil) != tt.free {
				t.Errorf("after %v: %v, want free %v", tt.after, err, tt.free)
			}
		})
	}
}

// An attacker who saw some ports must not guess the next ones: neither rising nor the same in two pools.
func TestOrderIsRandom(t *testing.T) {
	deal := func() []uint16 {
		p, err := New(0, Range{20000, 21999})
		if err != nil {
			t.Fatal(err)
		}
		var got []uint16
		for range 1000 {
			port, err := p.Allocate(time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, port)
		}
		return got
	}
	a, b := deal(), deal()
	if slices.Equal(a, b) {
		t.Error("two pools deal in the same order")
	}
	rising := 0
	for i := range a[1:] {
		if a[i+1] > a[i] {
			rising++
		}
	}
	if rising < 400 || rising > 600 {
		t.Errorf("%d of 999 steps rise, want about half", rising)
	}
}

func TestConcurrentUse(t *testing.T) {
	p, err := New(0, Range{20000, 20199})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	owned := map[uint16]bool{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				port, err := p.Allocate(time.Time{})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if owned[port] {
					t.Errorf("%d was handed out twice", port)
				}
				owned[port] = true
				mu.Unlock()
				mu.Lock()
				delete(owned, port)
				mu.Unlock()
				if err := p.Release(port, time.Time{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestNoGarbage(t *testing.T) {
	p, err := New(time.Second, Range{1, 65535})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	cycle := func() {
		now = now.Add(time.Millisecond)
		port, err := p.Allocate(now)
		if err == nil {
			err = p.Release(port, now)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 3000 {
		cycle()
	}
	if n := testing.AllocsPerRun(1000, cycle); n != 0 {
		t.Errorf("%v allocations per call, want none", n)
	}
	if n := len(p.waiting.ring); n > 2048 {
		t.Errorf("quarantine of 1,000 pairs takes %d slots", n)
	}
}

func BenchmarkAllocateRelease(b *testing.B) {
	p, err := New(time.Second, Range{1, 65535})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Unix(1000, 0)
	for b.Loop() {
		now = now.Add(100 * time.Microsecond)
		port, err := p.Allocate(now)
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Release(port, now); err != nil {
			b.Fatal(err)
		}
	}
}
