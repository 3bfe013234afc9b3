package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/tandem-relay/tandem/relay/feed"
)

// The file is a row of records. A record is a frame of three little-endian u32 (length of the payload, CRC32C of the
// payload, CRC32C of the two numbers before) and the payload, whose first byte is the record's kind. The first record
// is the head; changes that make up the state at the head's position follow, then groups.
const (
	frameSize = 12
	// maxRecord is the largest payload in bytes.
	maxRecord = 16 << 20
	// snapshotRecord is the size from which a snapshot goes on in a further record.
	snapshotRecord = 1 << 20
	version        = 1
)

// The kinds of records.
const (
	kindHead     = 'H'
	kindSnapshot = 'S'
	kindGroup    = 'G'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head is the first record.
type head struct {
	boot            string
	epoch, position uint64
	changes         uint64 // in the snapshot records that follow
}

// begin starts a record in an empty or used buffer; finish completes it.
func begin(buf []byte, kind byte) []byte {
	return append(append(buf[:0], make([]byte, frameSize)...), kind)
}

func finish(buf []byte) ([]byte, error) {
	payload := buf[frameSize:]
	if len(payload) > maxRecord {
		return nil, fmt.Errorf("record of %d bytes is larger than %d", len(payload), maxRecord)
	}
	binary.LittleEndian.PutUint32(buf[0:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(buf[4:], crc32.Checksum(payload, castagnoli))
	binary.LittleEndian.PutUint32(buf[8:], crc32.Checksum(buf[:8], castagnoli))
	return buf, nil
}

func encodeHead(h head) ([]byte, error) {
	buf := begin(nil, kindHead)
	buf = binary.AppendUvarint(buf, version)
	buf = appendString(buf, h.boot)
	buf = binary.AppendUvarint(buf, h.epoch)
	buf = binary.AppendUvarint(buf, h.position)
	buf = binary.AppendUvarint(buf, h.changes)
	return finish(buf)
}

// encodeGroup also tells where each change begins in the record, and where the last one ends.
func encodeGroup(buf []byte, g feed.Group) ([]byte, []int, error) {
	buf = begin(buf, kindGroup)
	buf = binary.AppendUvarint(buf, g.Epoch)
	buf = binary.AppendUvarint(buf, g.Position)
	marks := make([]int, 0, len(g.Changes)+1)
	for _, c := range g.Changes {
		marks = append(marks, len(buf))
		buf = appendString(buf, c.Kind)
		buf = appendString(buf, c.Key)
		buf = binary.AppendUvarint(buf, c.Version)
		if c.Value == nil {
			buf = append(buf, 0)
			continue
		}
		buf = binary.AppendUvarint(buf, uint64(len(c.Value))+1)
		buf = append(buf, c.Value...)
	}
	marks = append(marks, len(buf))
	buf, err := finish(buf)
	return buf, marks, err
}

func appendString(buf []byte, s string) []byte {
	return append(binary.AppendUvarint(buf, uint64(len(s))), s...)
}

var errShort = errors.New("record ends early")

// decoder reads a payload. After the first error it yields zero values.
type decoder struct {
	data []byte
	at   int
	err  error
}

func (d *decoder) uvarint() uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.data[d.at:])
	if n <= 0 {
		d.err = errShort
		return 0
	}
	d.at += n
	return v
}

// bytes returns a part of the payload itself, not a copy.
func (d *decoder) bytes(n uint64) []byte {
	if d.err == nil && n > uint64(len(d.data)-d.at) {
		d.err = errShort
	}
	if d.err != nil {
		return nil
	}
	d.at += int(n)
	return d.data[d.at-int(n) : d.at : d.at]
}

// change reads a change. Its value is a part of the payload.
func (d *decoder) change() (kind, key []byte, version uint64, value []byte) {
	kind = d.bytes(d.uvarint())
	key = d.bytes(d.uvarint())
	version = d.uvarint()
	if n := d.uvarint(); n > 0 {
		value = d.bytes(n - 1)
	}
	return kind, key, version, value
}

func (d *decoder) more() bool { return d.err == nil && d.at < len(d.data) }

func decodeHead(payload []byte) (head, error) {
	d := &decoder{data: payload, at: 1}
	if v := d.uvarint(); d.err == nil && v != version {
		return head{}, fmt.Errorf("format version %d is not %d", v, version)
	}
	h := head{boot: string(d.bytes(d.uvarint()))}
	h.epoch, h.position, h.changes = d.uvarint(), d.uvarint(), d.uvarint()
	if d.more() {
		return head{}, errors.New("head is too long")
	}
	return h, d.err
}
