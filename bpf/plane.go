// Package bpf is the fast path: the XDP and sk_lookup programs, their loading, pinning and upgrade, and typed access to their maps.
package bpf

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

const (
	// DefaultRoot is where the pins of all instances live.
	DefaultRoot = "/sys/fs/bpf/tandem"
	// DefaultRecords is the capacity of the record pool and of the flow pool.
	DefaultRecords = 262144

	abiVersion = 1
)

// Errors that callers tell apart.
var (
	// ErrLayout: the pinned maps were made by a build with another layout.
	ErrLayout = errors.New("pinned maps have another layout")
	// ErrIncomplete: pins of the instance are missing, so that it cannot be adopted.
	ErrIncomplete = errors.New("pins are incomplete")
	// ErrElsewhere: the instance is attached in another network namespace.
	ErrElsewhere = errors.New("instance belongs to another network namespace")
	// ErrNoMedia: the address was not opened by OpenMedia.
	ErrNoMedia = errors.New("not a media address")
)

// Options say what to open.
type Options struct {
	// Instance names the instance, 1-48 letters, digits, '-' and '_', not starting with '_'. Empty means "default".
	Instance string
	// Root is the directory of all instances, on a BPF file system. Empty means DefaultRoot.
	Root string
	// Records is the capacity of the record pool and of the flow pool, at least 16. 0 means DefaultRecords.
	// Maps that are adopted keep theirs.
	Records uint32
	Logger  *slog.Logger
}

// Plane is one instance's programs and maps, open. Methods may be called concurrently unless they say otherwise; methods that write
// a slot of a pool must not be called concurrently for the same slot. After Close or Release no method may be called.
type Plane struct {
	dir     string
	root    string
	log     *slog.Logger
	inner   *ebpf.MapSpec
	objects relayObjects

	records  *table[relayRecord]
	flows    *table[relayFlow]
	nextHops *table[relayNextHop]
	role     *table[relayRole]
	daemon   *table[relayDaemon]

	mu    sync.RWMutex // guards what follows
	media map[netip.Addr]*index
	links map[string]link.Link // by name of the interface
	modes map[string]Mode
	steer link.Link
}

var instanceName = regexp.MustCompile(`^[A-Za-z0-9-][A-Za-z0-9_-]{0,47}$`)

func (o Options) normalize() (Options, error) {
	if o.Instance == "" {
		o.Instance = "default"
	}
	if !instanceName.MatchString(o.Instance) {
		return o, fmt.Errorf("instance name %q: want 1-48 letters, digits, '-' and '_', not starting with '_'", o.Instance)
	}
	if o.Root == "" {
		o.Root = DefaultRoot
	}
	if o.Records == 0 {
		o.Records = DefaultRecords
	}
	if o.Records < 16 {
		return o, fmt.Errorf("record capacity %d: want at least 16", o.Records)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Open makes the instance's maps and programs, or adopts the pinned ones of an earlier process and reports true. Pinned maps must have
// the layout of this build (ErrLayout, ErrIncomplete). If the program differs from the pinned one, it is swapped atomically under the
// links that exist. Open is all or nothing, and excludes other processes that open, release or clean up under the same root.
func Open(o Options) (p *Plane, adopted bool, err error) {
	o, err = o.normalize()
	if err != nil {
		return nil, false, err
	}
	unlock, err := lockRoot(o.Root)
	if err != nil {
		return nil, false, err
	}
	defer unlock()

	p = &Plane{
		dir:   filepath.Join(o.Root, o.Instance),
		root:  o.Root,
		log:   o.Logger.With("instance", o.Instance),
		media: map[netip.Addr]*index{},
		links: map[string]link.Link{},
		modes: map[string]Mode{},
	}
	defer func() {
		if err != nil {
			_ = p.Close()
			p = nil
		}
	}()
	exists, err := isDir(p.dir)
	if err != nil {
		return p, false, err
	}
	if exists {
		err = p.adopt(o)
		if !errors.Is(err, errForsaken) {
			return p, err == nil, err
		}
		p.log.Warn("the instance's network namespace is gone; starting afresh")
		if err = removePins(p.dir); err != nil {
			return p, false, err
		}
		_ = p.closeObjects()
	}
	return p, false, p.create(o)
}

// Close closes everything and leaves the instance forwarding.
func (p *Plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for addr, x := range p.media {
		errs = append(errs, x.close())
		delete(p.media, addr)
	}
	for name, l := range p.links {
		errs = append(errs, l.Close())
		delete(p.links, name)
	}
	if p.steer != nil {
		errs = append(errs, p.steer.Close())
		p.steer = nil
	}
	return errors.Join(append(errs, p.closeObjects())...)
}

// Release detaches the instance from every interface and removes everything of it from the kernel.
func (p *Plane) Release() error {
	return errors.Join(Cleanup(p.root, filepath.Base(p.dir)), p.Close())
}

// Cleanup does what Release does, by the pins alone. Empty arguments mean the defaults. What does not exist is no error.
func Cleanup(root, instance string) error {
	o, err := Options{Root: root, Instance: instance}.normalize()
	if err != nil {
		return err
	}
	if exists, err := isDir(o.Root); err != nil || !exists {
		return err
	}
	unlock, err := lockRoot(o.Root)
	if err != nil {
		return err
	}
	defer unlock()
	return errors.Join(
		removePins(filepath.Join(o.Root, temporary(o.Instance))),
		removePins(filepath.Join(o.Root, o.Instance)),
	)
}

// Instances lists the instances that have pins under root; an empty root means DefaultRoot.
func Instances(root string) ([]string, error) {
	if root == "" {
		root = DefaultRoot
	}
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && instanceName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (p *Plane) closeObjects() error {
	err := errors.Join(p.records.close(), p.flows.close(), p.nextHops.close(), p.role.close(), p.daemon.close(), p.objects.Close())
	p.records, p.flows, p.nextHops, p.role, p.daemon, p.objects = nil, nil, nil, nil, nil, relayObjects{}
	return err
}
