package journal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// name is what a change is about.
type name struct{ kind, key string }

// span is where a change stands in the file.
type span struct {
	at   int64
	size int
}

// table is what a journal's file says, without the values.
type table struct {
	head
	index map[name]span
	live  int64 // bytes of the indexed changes
	size  int64 // of the file, whole records only
	kinds map[string]string
}

// errForeign ends the reading of a journal of another boot.
var errForeign = errors.New("journal is of another boot")

// load reads a journal of size bytes. A last record that is not complete is left out: table.size then is less than
// size. Any other damage is ErrCorrupt with the offset. With the head of another boot it returns errForeign and reads no
// further.
func load(file io.ReaderAt, size int64, boot string) (*table, error) {
	t := &table{index: make(map[name]span), kinds: make(map[string]string)}
	in := bufio.NewReaderSize(io.NewSectionReader(file, 0, size), 256<<10)
	var buf []byte
	for t.size < size {
		payload, err := readRecord(in, size-t.size, buf)
		if errors.Is(err, errTorn) {
			break
		}
		if err == nil {
			err = t.take(payload, boot)
		}
		if err != nil {
			if errors.Is(err, errForeign) {
				return nil, err
			}
			return nil, fmt.Errorf("%w: offset %d: %w", ErrCorrupt, t.size, err)
		}
		t.size += frameSize + int64(len(payload))
		buf = payload
	}
	if t.size == 0 {
		return nil, fmt.Errorf("%w: offset 0: no head", ErrCorrupt)
	}
	if t.changes > 0 {
		return nil, fmt.Errorf("%w: offset %d: snapshot lacks %d changes", ErrCorrupt, t.size, t.changes)
	}
	return t, nil
}

// errTorn is a record that was not written to its end.
var errTorn = errors.New("record is not complete")

// readRecord reads a record of which at most rest bytes are there, into buf if it is large enough.
func readRecord(in io.Reader, rest int64, buf []byte) ([]byte, error) {
	if rest < frameSize {
		return nil, errTorn
	}
	var frame [frameSize]byte
	if _, err := io.ReadFull(in, frame[:]); err != nil {
		return nil, err
	}
	if crc32.Checksum(frame[:8], castagnoli) != binary.LittleEndian.Uint32(frame[8:]) {
		return nil, errors.New("frame has a wrong checksum")
	}
	length := binary.LittleEndian.Uint32(frame[:])
	if length == 0 || length > maxRecord {
		return nil, fmt.Errorf("record of %d bytes", length)
	}
	if int64(length) > rest-frameSize {
		return nil, errTorn
	}
	if cap(buf) < int(length) {
		buf = make([]byte, length)
	}
	buf = buf[:length]
	if _, err := io.ReadFull(in, buf); err != nil {
		return nil, err
	}
	if crc32.Checksum(buf, castagnoli) != binary.LittleEndian.Uint32(frame[4:]) {
		if int64(length) == rest-frameSize {
			return nil, errTorn
		}
		return nil, errors.New("record has a wrong checksum")
	}
	return buf, nil
}

// take adds a record that begins at t.size.
func (t *table) take(payload []byte, boot string) error {
	kind := payload[0]
	if (t.size == 0) != (kind == kindHead) {
		return fmt.Errorf("record of kind %q is out of place", kind)
	}
	switch kind {
	case kindHead:
		var err error
		if t.head, err = decodeHead(payload); err != nil {
			return err
		}
		if t.boot != boot {
			return errForeign
		}
		return nil
	case kindSnapshot:
		return t.takeSnapshot(&decoder{data: payload, at: 1})
	case kindGroup:
		return t.takeGroup(&decoder{data: payload, at: 1})
	}
	return fmt.Errorf("record of kind %q is unknown", kind)
}

func (t *table) takeSnapshot(d *decoder) error {
	for d.more() {
		if t.changes == 0 {
			return errors.New("snapshot has more changes than its head says")
		}
		if value := t.takeChange(d); value == nil && d.err == nil {
			return errors.New("snapshot holds a deleted change")
		}
		t.changes--
	}
	return d.err
}

func (t *table) takeGroup(d *decoder) error {
	if t.changes > 0 {
		return fmt.Errorf("snapshot lacks %d changes", t.changes)
	}
	epoch, position := d.uvarint(), d.uvarint()
	if d.err != nil {
		return d.err
	}
	if t.position == math.MaxUint64 || position != t.position+1 || epoch < t.epoch {
		return fmt.Errorf("position %d of epoch %d follows position %d of epoch %d", position, epoch, t.position, t.epoch)
	}
	for d.more() {
		t.takeChange(d)
	}
	t.epoch, t.position = epoch, position
	return d.err
}

// takeChange indexes the next change and returns its value.
func (t *table) takeChange(d *decoder) []byte {
	from := d.at
	kind, key, _, value := d.change()
	if d.err != nil {
		return nil
	}
	interned, ok := t.kinds[string(kind)]
	if !ok {
		interned = string(kind)
		t.kinds[interned] = interned
	}
	t.set(name{interned, string(key)}, span{at: t.size + frameSize + int64(from), size: d.at - from}, value != nil)
	return value
}

// set indexes a change, or forgets it when it is not alive.
func (t *table) set(n name, s span, alive bool) {
	t.live -= int64(t.index[n].size)
	if alive {
		t.index[n] = s
		t.live += int64(s.size)
	} else {
		delete(t.index, n)
	}
}
