/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The maps. The loader sets the capacity of records and flows and pins all of them. */
#pragma once

#include "headers/bpf.h"
#include "reason.h"
#include "types.h"

#define PORTS 65536
#define STEER_SLOTS 16

/* media address -> its index: a u32 per port. A value holds two, the even port's in the lower half, because the kernel pads values to 8
 * bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 256);
	__type(key, struct address);
	__type(value, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, PORTS / 2);
		__uint(map_flags, BPF_F_MMAPABLE);
		__type(key, __u32);
		__type(value, __u64);
	});
} media SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct record);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct next_hop);
} next_hops SEC(".maps");

/* ifindex -> the same ifindex, for the devices that proved to send */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct role);
} role SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct daemon);
} daemon SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_CAPACITY);
	__type(key, __u32);
	__type(value, struct reason_count);
} reasons SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct event_budget);
} budget SEC(".maps");

/* The slow path's sockets, repeated until every slot is filled. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, STEER_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} steer SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct meta);
} meta SEC(".maps");

/* index_of returns the entry of a local endpoint in its media address's index, INDEX_NO_MEDIA if there is no such address. */
#define INDEX_NO_MEDIA 0xffffffff
static __always_inline __u32 index_of(const struct address *local, __u16 port)
{
	struct address key = *local; /* only this copy needs to lie in memory */
	void *index = bpf_map_lookup_elem(&media, &key);
	__u32 pair = port >> 1;
	__u64 *entries;

	if (!index)
		return INDEX_NO_MEDIA;
	entries = bpf_map_lookup_elem(index, &pair);
	if (!entries)
		return INDEX_OUTSIDE;
	return READ_ONCE(*entries) >> (port & 1) * 32;
}
