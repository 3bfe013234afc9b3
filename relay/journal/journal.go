// Package journal keeps the state of the feed in a file, so that the next process of the same boot goes on where the
// last one ended, however it ended.
package journal

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/relay/feed"
)

// Errors of a journal.
var (
	// ErrLocked: another process, or another Journal of this one, has the directory open.
	ErrLocked = errors.New("journal is in use")
	// ErrCorrupt: the file is damaged elsewhere than at its end. The message names file and offset.
	ErrCorrupt = errors.New("journal is damaged")
	// ErrClosed: the journal was closed.
	ErrClosed = errors.New("journal is closed")
)

// The files of the directory.
const (
	fileName = "journal"
	tempName = "journal.new"
	lockName = "lock"
)

// slack is how many bytes of superseded changes are always allowed before the file is rewritten.
const slack = 1 << 20

// State is what a journal knows.
type State struct {
	// Epoch and Position are those of the latest group. A new journal has epoch 1 and position 0.
	Epoch, Position uint64
	// Changes are the latest of everything that was not deleted, the oldest first.
	Changes []feed.Change
}

// Journal is a feed.Sink, feed.Withdrawer and feed.Keeper on a file. A group is written with one call, in constant
// memory; values are not kept in memory. The file stays smaller than about twice the state and 1 MiB: when it grows
// beyond, it is rewritten in the background. Nothing is synced, because the directory is meant to be on tmpfs: the
// journal survives the process, not the machine. All methods may be called concurrently.
type Journal struct {
	dir    string
	logger *slog.Logger
	lock   *os.File
	slack  int64
	free   func() int64 // bytes of room; mu is held

	mu    sync.Mutex
	file  *os.File
	table *table
	buf   []byte
	last  lastGroup
	// ragged says that a failed write may have left bytes behind the last record.
	ragged  bool
	closed  bool
	running *compaction
	// After rewriting failed it is not tried again while the file is smaller than retryAt and the state larger than
	// retryLive.
	retryAt, retryLive int64
	done               sync.WaitGroup
}

// lastGroup is what it takes to withdraw the group written last.
type lastGroup struct {
	at, epoch uint64
	size      int64
	former    []former
}

// former is where a change stood before.
type former struct {
	name  name
	span  span
	alive bool
}

// Open opens the journal in a directory, which is made if need be, and returns what it says. bootID names the boot of
// the machine (see BootID): a journal of another boot is replaced by an empty one, which is logged. A last record that
// a crash left incomplete is cut off, which is logged too. It returns ErrLocked or ErrCorrupt.
func Open(dir, bootID string, logger *slog.Logger) (*Journal, State, error) {
	return open(dir, bootID, logger, slack)
}

func open(dir, bootID string, logger *slog.Logger, slack int64) (*Journal, State, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, State{}, fmt.Errorf("open journal: %w", err)
	}
	lock, err := takeLock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, State{}, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{dir: dir, logger: logger, lock: lock, slack: slack}
	j.free = j.freeSpace
	state, err := j.start(bootID)
	if err != nil {
		if j.file != nil {
			j.file.Close()
		}
		lock.Close()
		return nil, State{}, fmt.Errorf("open journal: %w", err)
	}
	return j, state, nil
}

// BootID returns the kernel's name for the running boot.
func BootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", path, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// start reads the file, or makes it.
func (j *Journal) start(bootID string) (State, error) {
	if err := os.Remove(j.path(tempName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return State{}, err
	}
	err := j.adopt(bootID)
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = j.create(bootID)
	case errors.Is(err, errForeign):
		j.logger.Warn("journal is of another boot, starting empty", "file", j.path(fileName))
		err = j.create(bootID)
	}
	if err != nil {
		return State{}, err
	}
	return j.state()
}

// adopt takes over the file of an earlier process.
func (j *Journal) adopt(bootID string) error {
	path := j.path(fileName)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		j.table, err = load(f, info.Size(), bootID)
	}
	if err == nil && j.table.size < info.Size() {
		j.logger.Warn("journal ends in an incomplete record, cutting it off",
			"file", path, "offset", j.table.size, "bytes", info.Size()-j.table.size)
		err = f.Truncate(j.table.size)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("%s: %w", path, err)
	}
	j.file = f
	return nil
}

// create replaces the file by an empty one.
func (j *Journal) create(bootID string) error {
	record, err := encodeHead(head{boot: bootID, epoch: 1})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(j.path(tempName), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(record); err == nil {
		err = os.Rename(j.path(tempName), j.path(fileName))
	}
	if err == nil {
		j.table, err = load(f, int64(len(record)), bootID)
	}
	if err != nil {
		f.Close()
		return err
	}
	j.file = f
	return nil
}

func (j *Journal) path(name string) string { return filepath.Join(j.dir, name) }

// Write appends a group. When it fails the file is as before. It refuses a position that does not follow the last one
// and groups of more than 16 MiB. It returns ErrFull when the file system is running full, namely with less than 16 MiB
// besides the room for a second copy of the state. Groups of nothing but deletions are then still written, and those with
// a deletion that leave the state no larger than before, down to 4 MiB.
func (j *Journal) Write(g feed.Group) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	t := j.table
	if g.Position != t.position+1 || g.Epoch < t.epoch {
		return fmt.Errorf("write journal: position %d of epoch %d follows position %d of epoch %d",
			g.Position, g.Epoch, t.position, t.epoch)
	}
	buf, marks, err := encodeGroup(j.buf, g)
	if err != nil {
		return fmt.Errorf("write journal: position %d: %w", g.Position, err)
	}
	j.buf = buf[:0]
	// The group before is final now, so that it may go into a snapshot.
	j.compactIfDue()
	if err := j.checkRoom(g, marks); err != nil {
		return fmt.Errorf("write journal: position %d: %w", g.Position, err)
	}
	if err := j.append(buf); err != nil {
		return fmt.Errorf("write journal: position %d: %w", g.Position, fullError(err))
	}
	j.last = lastGroup{at: g.Position, epoch: t.epoch, size: t.size}
	for i, c := range g.Changes {
		n := name{c.Kind, c.Key}
		before, alive := t.index[n]
		j.last.former = append(j.last.former, former{n, before, alive})
		t.set(n, span{at: t.size + int64(marks[i]), size: marks[i+1] - marks[i]}, c.Value != nil)
		if j.running != nil {
			j.running.touched = append(j.running.touched, n)
		}
	}
	t.size += int64(len(buf))
	t.epoch, t.position = g.Epoch, g.Position
	return nil
}

// append writes a record behind the last one, or nothing.
func (j *Journal) append(record []byte) error {
	if j.ragged {
		if err := j.file.Truncate(j.table.size); err != nil {
			return err
		}
		j.ragged = false
	}
	_, err := j.file.WriteAt(record, j.table.size)
	if err != nil {
		j.ragged = j.file.Truncate(j.table.size) != nil
	}
	return err
}

// Withdraw takes back the group that was written last.
func (j *Journal) Withdraw(g feed.Group) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	if g.Position == 0 || g.Position != j.last.at {
		return fmt.Errorf("withdraw from journal: position %d is not the last", g.Position)
	}
	if err := j.file.Truncate(j.last.size); err != nil {
		return fmt.Errorf("withdraw from journal: position %d: %w", g.Position, err)
	}
	t := j.table
	for _, f := range slices.Backward(j.last.former) {
		t.set(f.name, f.span, f.alive)
	}
	t.size, t.epoch, t.position = j.last.size, j.last.epoch, g.Position-1
	j.last = lastGroup{}
	return nil
}

// Latest returns the latest change of a thing that was not deleted.
func (j *Journal) Latest(kind, key string) (feed.Change, bool, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return feed.Change{}, false, ErrClosed
	}
	at, ok := j.table.index[name{kind, key}]
	if !ok {
		return feed.Change{}, false, nil
	}
	c, err := j.read(at)
	return c, err == nil, err
}

// State returns the whole state as of the latest group. It holds up Write meanwhile.
func (j *Journal) State() (State, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return State{}, ErrClosed
	}
	return j.state()
}

func (j *Journal) state() (State, error) {
	t := j.table
	state := State{Epoch: t.epoch, Position: t.position, Changes: make([]feed.Change, 0, len(t.index))}
	for _, s := range t.spans() {
		c, err := j.read(s.span)
		if err != nil {
			return State{}, err
		}
		state.Changes = append(state.Changes, c)
	}
	return state, nil
}

// read reads a change.
func (j *Journal) read(s span) (feed.Change, error) {
	buf := make([]byte, s.size)
	if _, err := j.file.ReadAt(buf, s.at); err != nil {
		return feed.Change{}, fmt.Errorf("read journal: offset %d: %w", s.at, err)
	}
	d := &decoder{data: buf}
	kind, key, version, value := d.change()
	if d.err != nil || d.more() {
		return feed.Change{}, fmt.Errorf("read journal: %w: offset %d", ErrCorrupt, s.at)
	}
	return feed.Change{Kind: string(kind), Key: string(key), Version: version, Value: value}, nil
}

// Close ends the journal and lets others open it. The file stays.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	j.mu.Unlock()
	j.done.Wait()
	return errors.Join(j.file.Close(), j.lock.Close())
}

// named is an indexed change.
type named struct {
	name name
	span span
}

// spans lists the indexed changes in the order of the file.
func (t *table) spans() []named {
	all := make([]named, 0, len(t.index))
	for n, s := range t.index {
		all = append(all, named{n, s})
	}
	sortByPlace(all)
	return all
}

func sortByPlace(all []named) {
	slices.SortFunc(all, func(a, b named) int { return cmp.Compare(a.span.at, b.span.at) })
}
