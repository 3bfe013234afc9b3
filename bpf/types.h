/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The layout that the XDP program and the daemon share. Addresses and ports are bytes in network order; IPv4 addresses
 * are stored IPv4-mapped (::ffff:a.b.c.d). Sizes are asserted on both sides. Change it only together with ABI_VERSION. */
#pragma once

#include "headers/bpf.h"

/* Rises with every change of the layout. */
enum abi {
	ABI_VERSION = 1,
};

/* An IPv6 address, or an IPv4-mapped one. */
struct address {
	union {
		__u8 bytes[16];
		__u32 words[4];
		__u64 halves[2];
	};
};

/* Values of an entry of a media address's index (65,536 u32, one per port). */
enum index_value {
	INDEX_OUTSIDE = 0, /* port outside the media range: the packet is passed untouched */
	INDEX_EMPTY = 1,   /* in the media range, no session: dropped and counted */
	INDEX_FIRST = 2,   /* from here on: position in the record pool */
};

enum action {
	ACTION_FORWARD = 1,
	ACTION_HOLD = 2,
	ACTION_BLOCK = 3,
	ACTION_PUNT = 4,
};

enum accept_kind {
	ACCEPT_NONE = 0, /* nothing is accepted */
	ACCEPT_ADDR = 1, /* exactly record.source, any port: the program commits the port of the first valid packet */
	ACCEPT_OPEN = 2, /* a set or any: until the daemon has decided, packets are punted */
};

enum record_flag {
	RECORD_CHECK_RTP = 1 << 0, /* payload must be RTP or RTCP by its first byte (RFC 7983) and length */
	RECORD_RTCP = 1 << 1,
	RECORD_CAPTURE = 1 << 2, /* reserved: copy to the capture ring */
	RECORD_PINNED = 1 << 3,	 /* reserved: emergency or otherwise never timed out */
};

/* One direction of a stream: what to do with packets that arrive at one local endpoint. 64 bytes, read only by the
 * program but for to_port, which learning at the peer sets. Written whole before its index entry is stored. */
struct record {
	__u32 generation;
	__u8 action;
	__u8 accept;
	__u8 flags;
	__u8 dscp; /* reserved: 0 keeps the received one */
	__u16 window; /* learning window; must equal that of flow.latch for the latch to count */
	__u8 from_port[2]; /* our source port on the way out */
	__u32 flow;	   /* position of this endpoint's written state in the flow pool */
	__u32 peer;	   /* position of the record that sends to the party behind this endpoint; 0: none */
	__u32 next_hop;	   /* position in next_hops; 0: none, punt */
	__u8 source[16];   /* the address packets must come from (ACCEPT_ADDR) */
	__u8 to[16];	   /* destination address */
	__u8 to_port[2];   /* destination port; 0: not known yet, drop */
	__u8 reserved[6];
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct record) == 64, "record");

/* The latch is one u64 so that it can be committed by compare-and-set: bits 0-15 port (host order), 16-31 window,
 * 32 set when learnt. */
#define LATCH_LEARNT (1ULL << 32)

/* What the program writes for one local endpoint. Its slot stays with the endpoint while records are replaced. */
struct flow {
	__u64 latch;
	__u64 packets; /* forwarded by the program */
	__u64 bytes;   /* their UDP payload */
	__u64 first_seen; /* CLOCK_MONOTONIC, ns, coarse; any accepted packet */
	__u64 last_seen;
	__u32 punted; /* accepted packets given to the slow path */
	__u8 punt_reason; /* the latest */
	__u8 pad[3];
	__u64 reserved[10]; /* RTP statistics */
};
_Static_assert(sizeof(struct flow) == 128, "flow");

/* Everything needed to put a packet on the wire, shared by all records that leave the same way from the same media address.
 * The first two words are each stored atomically by the daemon. */
struct next_hop {
	__u8 dmac[6];
	__u8 valid; /* 0: punt */
	__u8 vlans; /* reserved: number of tags to push, 0-2 */
	__u8 smac[6];
	__u16 mtu; /* largest IP packet */
	__u32 ifindex;
	__u16 vlan[2];
	__u8 from[16]; /* our source address */
	__u8 reserved[24];
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct next_hop) == 64, "next_hop");

/* Rights, written by the heartbeat alone (by the daemon on a single box: standalone, nothing expires).
 * Deadlines are CLOCK_MONOTONIC ns; ~0 never expires. */
struct role {
	__u64 forward_until;
	__u64 own_until;
	__u64 epoch;
	__u32 state; /* 1 standalone, 2 active, 3 backup */
	__u32 pad;
};

/* Signs of life of the daemon. */
struct daemon {
	__u64 orphan_at; /* flows end after this time unless the daemon moves it on; ~0 never */
	__u64 alive_until; /* after this time nothing is punted: nobody would answer */
};

enum event_kind {
	EVENT_LEARNT = 1, /* an endpoint was learnt */
};

/* What the program tells the daemon. */
struct event {
	__u64 time; /* CLOCK_MONOTONIC, ns, coarse */
	__u32 kind;
	__u32 record; /* position in the record pool */
	__u32 generation;
	__u8 local_port[2];
	__u8 remote_port[2];
	__u8 local[16];
	__u8 remote[16];
};
_Static_assert(sizeof(struct event) == 56, "event");

/* Per CPU: how many events left in the current second (2^30 ns), and how many were suppressed or did not fit. */
#define EVENTS_PER_SECOND 4096
struct event_budget {
	__u64 second;
	__u64 used;
	__u64 lost;
};

struct reason_count {
	__u64 packets;
	__u64 bytes; /* whole frames */
};

/* What the pinned maps are, checked before they are adopted. */
struct meta {
	__u32 abi;
	__u32 records;
	__u32 next_hops;
	__u32 media;
	__u64 netns; /* cookie of the network namespace to which the instance belongs */
	__u64 reserved[5];
};
_Static_assert(sizeof(struct meta) == 64, "meta");
