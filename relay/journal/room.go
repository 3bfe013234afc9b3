package journal

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"github.com/tandem-relay/tandem/relay/feed"
)

// ErrFull: the file system has no room for more state. Groups that only delete are written all the same.
var ErrFull = fmt.Errorf("journal is full: %w", feed.ErrFull)

// What is kept free for the ending of what there is, in bytes.
const (
	// reserve is left to groups that end something.
	reserve = 16 << 20
	// floor is left to groups that only delete: tens of thousands of them fit.
	floor = 4 << 20
)

// freeSpace is how many bytes the file system of the journal can still take from this user.
func (j *Journal) freeSpace() int64 {
	var s unix.Statfs_t
	// A tmpfs without limit says that it has no blocks at all.
	if err := unix.Fstatfs(int(j.file.Fd()), &s); err != nil || s.Blocks == 0 || s.Bavail > math.MaxInt64/uint64(s.Bsize) {
		return math.MaxInt64
	}
	return int64(s.Bavail) * s.Bsize
}

// checkRoom refuses a group for which there is no room, so that what is in progress can still be ended. Besides the
// reserve there must be room for a second copy of the state, which rewriting the file takes for a moment. Marks are
// those of encodeGroup.
func (j *Journal) checkRoom(g feed.Group, marks []int) error {
	var deletes, grown int
	for i, c := range g.Changes {
		before := j.table.index[name{c.Kind, c.Key}].size
		if c.Value == nil {
			deletes++
			grown -= before
		} else {
			grown += marks[i+1] - marks[i] - before
		}
	}
	if deletes == len(g.Changes) {
		return nil
	}
	free := j.free()
	need := int64(reserve)
	if j.running == nil {
		need += j.table.live
	}
	if free >= need {
		return nil
	}
	if deletes > 0 && grown <= 0 && free >= floor {
		return nil
	}
	return fmt.Errorf("%w: %d bytes of its file system are free, %d are needed", ErrFull, free, need)
}

// fullError says so when an error of the file system means that it is full.
func fullError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
