// Package config reads tandem.toml strictly into plain valid types, and says of everything wrong where it stands and what to do.
package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tandem-relay/tandem/relay/ports"
)

// DefaultFile is where the configuration stands unless told otherwise.
const DefaultFile = "/etc/tandem/tandem.toml"

// The data planes.
const (
	XDP       = "xdp"
	Userspace = "userspace"
)

// Config is a valid configuration: every name in it is valid and defined, every address is on this host, nothing overlaps.
type Config struct {
	File string
	// Instance names pins, lock and sockets; lower-case letters, digits, '-' and '_'.
	Instance string
	// Dataplane is XDP or Userspace.
	Dataplane string
	// RuntimeDir holds lock, socket and journal of the instance; Socket is the control API's.
	RuntimeDir string
	Socket     string
	// Flows is the capacity of the record pool: one for each local port in use.
	Flows uint32
	// Orphan is how long flows outlive the daemon; Quarantine how long a released port stays unused.
	Orphan, Quarantine time.Duration
	Networks           []Network
	Trunks             []Trunk
}

// Network is one realm: interfaces, addresses and who may be met there.
type Network struct {
	Name       string
	Interfaces []string
	// Listeners are the SIP listeners, by UDP.
	Listeners []Listener
	Media     []Media
	// Trust says that identities given by peers of this network are believed.
	Trust bool
	// NAT is "auto", "on" or "off": whether answers go to the address from which a request came.
	NAT string
	// Mode is the XDP mode of its interfaces: "native" or "generic".
	Mode string
}

// Listener is one SIP listener. Advertise is what peers are told, and equals Addr unless the host is behind 1:1 NAT.
type Listener struct {
	Addr, Advertise netip.AddrPort
}

// Media is a media address with its ports. Advertise is what session descriptions say, and equals Address unless the host is
// behind 1:1 NAT.
type Media struct {
	Address   netip.Addr
	Ports     ports.Range
	Advertise netip.Addr
}

// Trunk is one peer, or one group of phones, of a network.
type Trunk struct {
	Name    string
	Network string
	// Peer is where calls to this trunk are sent.
	Peer netip.AddrPort
	// Sources are the networks whose messages belong to this trunk. The peer's own address is always among them: its answers come
	// from there.
	Sources []netip.Prefix
	// Route is the trunk to which its calls go; empty: calls from this trunk are refused.
	Route string
	// MediaSource is "auto", "sdp", "signalling", "any", or "networks" together with MediaNetworks.
	MediaSource   string
	MediaNetworks []netip.Prefix
}

// Network returns the network with that name, or nil.
func (c *Config) Network(name string) *Network {
	for i := range c.Networks {
		if c.Networks[i].Name == name {
			return &c.Networks[i]
		}
	}
	return nil
}

// Load reads and checks the file against this host as it is now, in the current network namespace. A configuration with
// problems gives *Problems.
func Load(file string) (*Config, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxSource {
		return nil, fmt.Errorf("read configuration: %s is not a regular file of at most %d bytes", file, maxSource)
	}
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	host, err := ReadHost()
	if err != nil {
		return nil, fmt.Errorf("look at this host: %w", err)
	}
	return Read(file, source, host)
}

// Read checks a configuration against a host. The name of the file only stands in messages.
func Read(file string, source []byte, host Host) (*Config, error) {
	r := newReport(source)
	root, problem := parse(source)
	if problem != nil {
		return nil, &Problems{File: file, Source: source, List: []Problem{*problem}}
	}
	l := &loader{section: &section{report: r, table: root}, host: host}
	cfg := l.config()
	cfg.File = file
	if err := r.err(file); err != nil {
		return nil, err
	}
	return cfg, nil
}

// RuntimeBase is the directory in which every instance has its own: TANDEM_RUNTIME_DIR, /run/tandem for root,
// and a private directory of the user otherwise.
func RuntimeBase() string {
	if dir := os.Getenv("TANDEM_RUNTIME_DIR"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/run/tandem"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "tandem")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("tandem-%d", os.Getuid()))
}

// nameRule says what ValidInstance wants.
const nameRule = "1 to 32 lower-case letters, digits, '-' and '_'"

// ValidInstance reports whether the name can be an instance's. Names of networks and trunks follow the same rule.
func ValidInstance(name string) bool {
	return name != "" && len(name) <= 32 && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) && name[0] != '-'
}
