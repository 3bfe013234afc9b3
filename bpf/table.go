package bpf

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// table is a memory-mapped array map of T.
type table[T any] struct {
	memory []byte
	slots  []T
}

func mapTable[T any](m *ebpf.Map) (*table[T], error) {
	var zero T
	size := int(unsafe.Sizeof(zero))
	if int(m.ValueSize()) != size {
		return nil, fmt.Errorf("map %s into memory: value of %d bytes, want %d: %w", m, m.ValueSize(), size, ErrLayout)
	}
	n := int(m.MaxEntries())
	page := os.Getpagesize()
	memory, err := unix.Mmap(m.FD(), 0, (n*size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s into memory: %w", m, err)
	}
	return &table[T]{memory: memory, slots: unsafe.Slice((*T)(unsafe.Pointer(&memory[0])), n)}, nil
}

func (t *table[T]) close() error {
	if t == nil || t.memory == nil {
		return nil
	}
	memory := t.memory
	t.memory, t.slots = nil, nil
	return unix.Munmap(memory)
}
