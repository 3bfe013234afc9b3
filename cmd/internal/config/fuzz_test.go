package config

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
)

// FuzzRead checks that no input panics, that what the decoder cannot read is refused, that every problem stands in the file, and
// that what is accepted keeps the promises of Config.
func FuzzRead(f *testing.F) {
	f.Add(good)
	f.Add("")
	f.Add("network = [{name = \"a\", media = [{}]}]\ntrunk = [[1]]\n")
	f.Add("a.b.c = 1\n[a.b]\nd = 'x'\n[[network.media]]\n")
	f.Add("instance = \"\"\"\nx\"\"\"\n\"\\u0000\" = 1\n")
	f.Add("\t[[ network . 'media' ]]\r\nports = 1979-05-27\n")
	host := testHost()
	f.Fuzz(func(t *testing.T, source string) {
		cfg, err := Read("f", []byte(source), host)
		if err != nil {
			var problems *Problems
			if !errors.As(err, &problems) || len(problems.List) == 0 {
				t.Fatalf("error %T without problems: %v", err, err)
			}
			lines := strings.Split(source, "\n")
			for _, p := range problems.List {
				if p.Line < 1 || p.Line > len(lines) || p.Column < 1 || p.Column > utf8.RuneCountInString(lines[p.Line-1])+1 {
					t.Fatalf("problem outside the file: %+v", p)
				}
				if p.Message == "" {
					t.Fatalf("problem without a message: %+v", p)
				}
			}
			text := err.Error()
			if text == "" {
				t.Fatal("no message")
			}
			if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }); i >= 0 {
				t.Fatalf("not printable: %q", text[i:])
			}
			return
		}
		var anything map[string]any
		if err := toml.Unmarshal([]byte(source), &anything); err != nil {
			t.Fatalf("accepted what is not TOML: %v", err)
		}
		checkPromises(t, cfg, host)
	})
}

func checkPromises(t *testing.T, cfg *Config, host Host) {
	if !ValidInstance(cfg.Instance) || len(cfg.Networks) == 0 || cfg.Flows == 0 || cfg.Orphan <= 0 {
		t.Fatalf("not valid: %+v", cfg)
	}
	var all []Media
	for _, n := range cfg.Networks {
		if !ValidInstance(n.Name) || cfg.Network(n.Name) == nil {
			t.Fatalf("network without a valid name: %+v", n)
		}
		for _, m := range n.Media {
			if !host.local(m.Address) || m.Address.IsLoopback() && cfg.Dataplane == XDP || m.Ports.First%2 != 0 || m.Ports.Last%2 != 1 || !m.Advertise.Is4() {
				t.Fatalf("media %+v", m)
			}
			for _, o := range all {
				if o.Address == m.Address && o.Ports.Overlaps(m.Ports) {
					t.Fatalf("%+v overlaps %+v", m, o)
				}
			}
			all = append(all, m)
		}
	}
	for _, tr := range cfg.Trunks {
		own := func(p netip.Prefix) bool { return p.Contains(tr.Peer.Addr()) }
		if !ValidInstance(tr.Name) || cfg.Network(tr.Network) == nil || !tr.Peer.IsValid() || !slices.ContainsFunc(tr.Sources, own) {
			t.Fatalf("trunk %+v", tr)
		}
	}
}
