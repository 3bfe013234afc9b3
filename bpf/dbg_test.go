package bpf

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/cilium/ebpf"
)

func TestDbg(t *testing.T) {
	spec, _ := specification(64)
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats | ebpf.LogLevelInstruction, LogSizeStart: 1 << 28}})
	var ve *ebpf.VerifierError
	s := ""
	if errors.As(err, &ve) {
		for _, l := range ve.Log {
			s += l + "\n"
		}
	} else if c != nil {
		s = c.Programs["tandem_relay"].VerifierLog
	}
	os.WriteFile("/tmp/verlog.txt", []byte(s), 0o644)
	fmt.Println(err)
}
