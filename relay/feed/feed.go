// Package feed is the ordered log of changes that the journal, the replica and every other observer read.
package feed

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// ErrBehind is returned by Reader.Next when the log no longer holds the group that comes next. The reader must take
// the state from elsewhere and subscribe again.
var ErrBehind = errors.New("reader fell behind the feed")

// ErrFull is what a sink's error wraps that has no room for a group. Groups that only delete make room.
var ErrFull = errors.New("no room for the group")

// Bounds of what the log keeps for its readers. The latest group is always kept.
const (
	// MaxGroups is the number of groups, a power of two.
	MaxGroups = 8192
	// MaxBytes is the sum of kinds, keys and values, in bytes.
	MaxBytes = 32 << 20
)

// Change is the new state of one thing.
type Change struct {
	// Kind and Key name the thing. Keys are unique within their kind.
	Kind, Key string
	// Version rises with every change of the thing.
	Version uint64
	// Value is the thing's whole new state; nil when it was deleted. It is never modified after Append.
	Value []byte
}

// Group is a set of changes that happen together or not at all.
type Group struct {
	// Epoch counts the terms of ownership.
	Epoch uint64
	// Position numbers the groups, without gaps.
	Position uint64
	// Changes are in the order in which they were given.
	Changes []Change
}

// Sink takes every group before any reader sees it. Write is called for one group at a time, in order of position.
// When it fails it must leave nothing of the group behind; the position is then used again.
type Sink interface {
	Write(Group) error
}

// Withdrawer is a Sink that can take back the group written last. It is asked to when a sink after it fails. A sink
// without Withdraw sees the position again, with the group that counts.
type Withdrawer interface {
	Withdraw(Group) error
}

// Keeper is a Sink that knows the latest change of everything that was not deleted.
type Keeper interface {
	Latest(kind, key string) (Change, bool, error)
}

// Log orders the groups. All methods may be called concurrently.
type Log struct {
	sinks []Sink

	// writing orders Append. It is not held by readers, so that a slow sink does not stop them.
	writing sync.Mutex

	mu        sync.Mutex
	epoch     uint64
	last      uint64
	ring      []Group // the group at a position stands at position modulo length
	count     int
	bytes     int
	maxGroups int
	maxBytes  int
	wake      chan struct{} // closed by the next group; nil while nobody waits
}

// New makes a log whose next group is at position last+1. Sinks are written in the order given.
func New(epoch, last uint64, sinks ...Sink) *Log {
	return &Log{sinks: sinks, epoch: epoch, last: last, maxGroups: MaxGroups, maxBytes: MaxBytes}
}

// Append writes the changes as one group to all sinks and then publishes it to the readers. When a sink fails,
// nothing is published and the position is not used. The values belong to the log from then on.
func (l *Log) Append(changes ...Change) (Group, error) {
	if len(changes) == 0 {
		return Group{}, errors.New("append to feed: no changes")
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	group := Group{Epoch: l.epoch, Position: l.last + 1, Changes: changes}
	l.mu.Unlock()
	for i, sink := range l.sinks {
		if err := sink.Write(group); err != nil {
			return Group{}, fmt.Errorf("append to feed: %w", errors.Join(err, withdraw(l.sinks[:i], group)))
		}
	}
	l.publish(group)
	return group, nil
}

func withdraw(sinks []Sink, group Group) error {
	var errs []error
	for _, sink := range sinks {
		if w, ok := sink.(Withdrawer); ok {
			errs = append(errs, w.Withdraw(group))
		}
	}
	return errors.Join(errs...)
}

// Last returns the epoch and the position of the latest group.
func (l *Log) Last() (epoch, position uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch, l.last
}

// Latest returns the latest change of a thing that was not deleted. It asks the first sink that is a Keeper; without
// one it knows only what is still kept for readers.
func (l *Log) Latest(kind, key string) (Change, bool, error) {
	for _, sink := range l.sinks {
		if keeper, ok := sink.(Keeper); ok {
			return keeper.Latest(kind, key)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.count {
		changes := l.at(l.last - uint64(i)).Changes
		for j := len(changes) - 1; j >= 0; j-- {
			if c := changes[j]; c.Kind == kind && c.Key == key {
				return c, c.Value != nil, nil
			}
		}
	}
	return Change{}, false, nil
}

// Subscribe returns a reader whose first group is the one after position from. 0 asks for everything from the first
// group on, the position returned by Last for what comes from now on.
func (l *Log) Subscribe(from uint64) *Reader {
	return &Reader{log: l, last: from}
}

// Reader reads the groups of a log in order. It is used by one goroutine at a time and needs no closing.
type Reader struct {
	log  *Log
	last uint64
}

// Position is that of the latest group that was read, or the one given to Subscribe.
func (r *Reader) Position() uint64 { return r.last }

// Next returns the next group and waits for it if need be. It returns ErrBehind when the log no longer holds it, and
// the context's error when that ends first. The changes are shared with other readers and must not be modified.
func (r *Reader) Next(ctx context.Context) (Group, error) {
	for {
		group, wake, err := r.log.after(r.last)
		if err != nil {
			return Group{}, err
		}
		if wake == nil {
			r.last = group.Position
			return group, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return Group{}, ctx.Err()
		}
	}
}

// after returns the group that follows a position, or a channel that is closed when there is more to see.
func (l *Log) after(position uint64) (Group, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if position >= l.last {
		if l.wake == nil {
			l.wake = make(chan struct{})
		}
		return Group{}, l.wake, nil
	}
	if l.last-position > uint64(l.count) {
		return Group{}, nil, ErrBehind
	}
	return *l.at(position + 1), nil, nil
}

func (l *Log) at(position uint64) *Group { return &l.ring[position&uint64(len(l.ring)-1)] }

// publish adds a group to the ring and makes room for it.
func (l *Log) publish(group Group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	size := group.size()
	for l.count > 0 && (l.count == l.maxGroups || l.bytes+size > l.maxBytes) {
		oldest := l.at(l.last - uint64(l.count) + 1)
		l.bytes -= oldest.size()
		*oldest = Group{}
		l.count--
	}
	if l.count == len(l.ring) {
		l.grow()
	}
	l.last = group.Position
	*l.at(group.Position) = group
	l.count++
	l.bytes += size
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}

func (l *Log) grow() {
	old := l.ring
	l.ring = make([]Group, max(16, 2*len(old)))
	for i := range l.count {
		position := l.last - uint64(i)
		*l.at(position) = old[position&uint64(len(old)-1)]
	}
}

func (g Group) size() int {
	n := 0
	for _, c := range g.Changes {
		n += len(c.Kind) + len(c.Key) + len(c.Value)
	}
	return n
}
