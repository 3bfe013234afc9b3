package bpf

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
)

func TestDbg(t *testing.T) {
	spec, _ := specification(64)
	delete(spec.Programs, "tandem_steer")
	_, err := ebpf.NewCollection(spec)
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		s := fmt.Sprintf("%+v", ve)
		if len(s) > 9000 {
			s = s[len(s)-9000:]
		}
		t.Log(s)
	}
	t.Log(err)
}
