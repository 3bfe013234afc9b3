package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/tandem-relay/tandem/relay/ports"
)

// The examples are good configurations on the host that they are written for.
func TestExamples(t *testing.T) {
	address := func(prefix string, source bool) HostAddress {
		return HostAddress{Prefix: netip.MustParsePrefix(prefix), Source: source}
	}
	host := Host{
		Interfaces: []Interface{
			{Name: "lo", Loopback: true, Addresses: []HostAddress{address("127.0.0.1/8", true)}},
			{Name: "eth0", Addresses: []HostAddress{address("203.0.113.10/24", true), address("203.0.113.11/32", false)}},
			{Name: "eth1", Addresses: []HostAddress{address("10.0.0.1/24", true)}},
		},
		Ephemeral: ports.Range{First: 32768, Last: 60999},
	}
	files, err := filepath.Glob("../../../scripts/examples/*.toml")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := Read(file, source, host)
			if err != nil {
				t.Fatal(err)
			}
			if len(cfg.Networks) == 0 || len(cfg.Trunks) == 0 {
				t.Errorf("nothing would run: %+v", cfg)
			}
		})
	}
}
