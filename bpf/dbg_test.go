package bpf

import (
	"os/exec"
	"testing"

	"github.com/tandem-relay/tandem/bench/lab"
)

func TestDbg(t *testing.T) {
	for _, r := range []lab.Reception{lab.GRO, lab.XDPPass, lab.Bare} {
		tandem, peer := cable(t, r)
		index, _ := tandem.Ifindex("eth0")
		mac, _ := tandem.MAC("eth0")
		tandem.Do(func() error { t.Log(ProveEgress(uint32(index), mac)); return nil })
		for _, ns := range []*lab.Namespace{tandem, peer} {
			o, _ := ns.Run(exec.Command("ip", "-s", "-s", "link", "show", "eth0"))
			t.Log(o)
			o, _ = ns.Run(exec.Command("sh", "-c", "cat /proc/net/dev; cat /proc/net/softnet_stat"))
			t.Log(o)
		}
	}
}
