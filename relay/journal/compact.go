package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
)

// compaction is the rewriting of the file while groups go on being written to the old one.
type compaction struct {
	cut     int64 // what stands before it in the old file goes into the snapshot, the rest is copied
	head    head
	spans   []named // the state at the cut, then where it stands in the new file
	touched []name  // changed since
}

// compactIfDue starts rewriting when the file has grown too large, or sooner when room is short. The last group must be
// final. It must not take the room that deletions need.
func (j *Journal) compactIfDue() {
	t := j.table
	if j.running != nil || t.size < t.live+max(t.live/8, j.slack) || t.size < j.retryAt && t.live > j.retryLive {
		return
	}
	free := j.free()
	if free < t.live+floor || free >= t.live+reserve && t.size < 2*t.live {
		return
	}
	c := &compaction{cut: t.size, head: t.head, spans: make([]named, 0, len(t.index))}
	c.head.changes = uint64(len(t.index))
	for n, s := range t.index {
		c.spans = append(c.spans, named{n, s})
	}
	j.running = c
	old := j.file
	j.done.Go(func() {
		if err := j.compact(c, old); err != nil {
			j.logger.Error("journal is not rewritten", "err", err)
		}
	})
}

// compact writes the new file and puts it in the place of the old one.
func (j *Journal) compact(c *compaction, old *os.File) error {
	f, err := os.OpenFile(j.path(tempName), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	var end int64
	if err == nil {
		end, err = c.write(f, old)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.running = nil
	if err == nil {
		err = j.swap(c, f, end)
	}
	if err != nil {
		if f != nil {
			err = errors.Join(err, f.Close(), os.Remove(j.path(tempName)))
		}
		// Not again at once: whatever is wrong, such as a full file system, costs time with every attempt.
		j.retryAt, j.retryLive = j.table.size+max(j.table.live, j.slack), j.table.live/2
		return err
	}
	j.retryAt, j.retryLive = 0, 0
	return old.Close()
}

// write writes head and snapshot, moves the spans to the new file and returns its size. The old file does not change
// before the cut.
func (c *compaction) write(f, old *os.File) (int64, error) {
	sortByPlace(c.spans)
	record, err := encodeHead(c.head)
	if err != nil {
		return 0, err
	}
	in := bufio.NewReaderSize(io.NewSectionReader(old, 0, c.cut), 256<<10)
	var read, written int64
	flush := func() error {
		if record, err = finish(record); err != nil {
			return err
		}
		n, err := f.Write(record)
		written += int64(n)
		record = begin(record, kindSnapshot)
		return err
	}
	if err := flush(); err != nil {
		return 0, err
	}
	for i := range c.spans {
		s := &c.spans[i].span
		if len(record) > frameSize+1 && len(record)+s.size > snapshotRecord {
			if err := flush(); err != nil {
				return 0, err
			}
		}
		if _, err := io.CopyN(io.Discard, in, s.at-read); err != nil {
			return 0, fmt.Errorf("skip to offset %d: %w", s.at, err)
		}
		from := len(record)
		record = append(record, make([]byte, s.size)...)
		if _, err := io.ReadFull(in, record[from:]); err != nil {
			return 0, fmt.Errorf("read offset %d: %w", s.at, err)
		}
		read = s.at + int64(s.size)
		s.at = written + int64(from)
	}
	if len(record) > frameSize+1 {
		err = flush()
	}
	return written, err
}

// swap adds what was written since the cut and makes the new file the journal.
func (j *Journal) swap(c *compaction, f *os.File, end int64) error {
	t := j.table
	if _, err := io.Copy(f, io.NewSectionReader(j.file, c.cut, t.size-c.cut)); err != nil {
		return fmt.Errorf("copy from offset %d: %w", c.cut, err)
	}
	if err := os.Rename(j.path(tempName), j.path(fileName)); err != nil {
		return err
	}
	index := make(map[name]span, len(t.index))
	for _, s := range c.spans {
		index[s.name] = s.span
	}
	shift := end - c.cut
	for i := range j.last.former {
		f := &j.last.former[i]
		if f.alive && f.span.at >= c.cut {
			f.span.at += shift
		} else if f.alive {
			f.span = index[f.name]
		}
	}
	for _, n := range c.touched {
		now, alive := t.index[n]
		switch {
		case !alive:
			delete(index, n)
		case now.at >= c.cut:
			index[n] = span{at: now.at + shift, size: now.size}
		}
	}
	j.last.size += shift
	t.index = index
	t.size += shift
	j.file = f
	return nil
}
