package bpf

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// TestConstants ties Go's numbers to the program's.
func TestConstants(t *testing.T) {
	for _, c := range []struct {
		name  string
		go_   uint64
		inBPF uint64
	}{
		{"layout version", abiVersion, uint64(relayAbiABI_VERSION)},
		{"index: outside", uint64(IndexOutside), uint64(relayIndexValueINDEX_OUTSIDE)},
		{"index: empty", uint64(IndexEmpty), uint64(relayIndexValueINDEX_EMPTY)},
		{"index: first record", FirstRecord, uint64(relayIndexValueINDEX_FIRST)},
		{"action: forward", uint64(ActionForward), uint64(relayActionACTION_FORWARD)},
		{"action: hold", uint64(ActionHold), uint64(relayActionACTION_HOLD)},
		{"action: block", uint64(ActionBlock), uint64(relayActionACTION_BLOCK)},
		{"action: punt", uint64(ActionPunt), uint64(relayActionACTION_PUNT)},
		{"accept: none", uint64(AcceptNone), uint64(relayAcceptKindACCEPT_NONE)},
		{"accept: address", uint64(AcceptAddr), uint64(relayAcceptKindACCEPT_ADDR)},
		{"accept: open", uint64(AcceptOpen), uint64(relayAcceptKindACCEPT_OPEN)},
		{"flag: check RTP", uint64(FlagCheckRTP), uint64(relayRecordFlagRECORD_CHECK_RTP)},
		{"flag: RTCP", uint64(FlagRTCP), uint64(relayRecordFlagRECORD_RTCP)},
		{"flag: capture", uint64(FlagCapture), uint64(relayRecordFlagRECORD_CAPTURE)},
		{"flag: pinned", uint64(FlagPinned), uint64(relayRecordFlagRECORD_PINNED)},
		{"event: learnt", uint64(EventLearnt), uint64(relayEventKindEVENT_LEARNT)},
		{"reasons", uint64(NumReasons), uint64(relayReasonREASON_COUNT)},
	} {
		if c.go_ != c.inBPF {
			t.Errorf("%s: %d in Go, %d in the program", c.name, c.go_, c.inBPF)
		}
	}
}

// TestReasons ties the labels and verdicts that people see to the program's reasons, number by number.
func TestReasons(t *testing.T) {
	spec, err := loadRelay()
	if err != nil {
		t.Fatal(err)
	}
	var reasons, exits *btf.Enum
	if err := spec.Types.TypeByName("reason", &reasons); err != nil {
		t.Fatal(err)
	}
	if err := spec.Types.TypeByName("exit", &exits); err != nil {
		t.Fatal(err)
	}
	verdicts := map[string]uint64{}
	for _, v := range exits.Values {
		verdicts[strings.TrimPrefix(v.Name, "EXIT_")] = v.Value
	}
	seen := map[string]bool{}
	for _, v := range reasons.Values {
		name := strings.TrimPrefix(v.Name, "REASON_")
		if name == "COUNT" {
			continue
		}
		r := Reason(v.Value)
		if got, want := r.String(), strings.ToLower(name); got != want {
			t.Errorf("reason %d is %q in Go, %q in the program", v.Value, got, want)
		}
		if seen[r.String()] {
			t.Errorf("%s twice", r)
		}
		seen[r.String()] = true
		if r == ReasonNone {
			continue
		}
		if r.Help() == "" {
			t.Errorf("%s has no help", r)
		}
		exit, ok := verdicts[name]
		if !ok || exit&0xff != v.Value {
			t.Errorf("%s: no exit, or that of another reason: %d", r, exit)
		}
		if want := map[uint64]string{1: VerdictDrop, 2: VerdictPass, 3: VerdictForward, 4: VerdictForward, 5: VerdictPunt}[exit>>8]; r.Verdict() != want {
			t.Errorf("%s: verdict %q in Go, %q in the program", r, r.Verdict(), want)
		}
	}
	if got := NumReasons.String(); got != "reason_28" || NumReasons.Verdict() != "" {
		t.Errorf("an unknown reason is called %q", got)
	}
}

// TestEveryMapIsPinned: one that is forgotten would be empty after a restart.
func TestEveryMapIsPinned(t *testing.T) {
	spec, err := specification(64)
	if err != nil {
		t.Fatal(err)
	}
	pinned := (&Plane{}).maps()
	for name := range spec.Maps {
		if _, ok := pinned[name]; !ok {
			t.Errorf("map %s is not pinned", name)
		}
	}
	if len(pinned) != len(spec.Maps) {
		t.Errorf("%d maps are pinned, the object has %d", len(pinned), len(spec.Maps))
	}
}
