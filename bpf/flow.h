/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The steps that read and write the state of a flow: who may send, learning, life and counters. */
#pragma once

#include "headers/bpf.h"
#include "maps.h"
#include "parse.h"

#define STUN_HEADER 20
#define STUN_COOKIE 0x2112a442
#define RTP_HEADER 12
#define RTCP_HEADER 8
#define RTCP_FIRST 192
#define RTCP_LAST 223

struct rtp_start {
	__u8 first;
	__u8 second;
	__u16 sequence;
	__u32 word; /* RTP timestamp, RTCP SSRC, STUN cookie */
};

enum payload {
	PAYLOAD_OTHER,
	PAYLOAD_STUN,
	PAYLOAD_RTP,
};

/* classify looks at the first bytes of the payload (RFC 7983, RFC 5761 section 4). */
static __always_inline enum payload classify(const struct packet *p, const struct record *r)
{
	struct cursor c = p->payload;
	struct rtp_start *start = c.pos;

	if (p->payload_length < RTCP_HEADER || !step(&c, sizeof(*start)))
		return PAYLOAD_OTHER;
	if (start->first >> 6 == 2) {
		if (r->flags & RECORD_RTCP || (start->second >= RTCP_FIRST && start->second <= RTCP_LAST))
			return PAYLOAD_RTP;
		return p->payload_length >= RTP_HEADER ? PAYLOAD_RTP : PAYLOAD_OTHER;
	}
	if (start->first <= 3 && start->word == htonl(STUN_COOKIE) && p->payload_length >= STUN_HEADER)
		return PAYLOAD_STUN;
	return PAYLOAD_OTHER;
}

static __always_inline void emit_learnt(const struct packet *p, const struct record *r, __u32 position, __u64 now)
{
	__u32 zero = 0;
	struct event_budget *b = bpf_map_lookup_elem(&budget, &zero);
	struct event e = {
		.time = now,
		.kind = EVENT_LEARNT,
		.record = position,
		.generation = r->generation,
	};

	if (!b)
		return;
	if (b->second != now >> 30) {
		b->second = now >> 30;
		b->used = 0;
	}
	if (b->used >= EVENTS_PER_SECOND) {
		b->lost++;
		return;
	}
	b->used++;
	__builtin_memcpy(e.local, &p->dst, sizeof(e.local));
	__builtin_memcpy(e.remote, &p->src, sizeof(e.remote));
	*(__u16 *)e.local_port = p->dport;
	*(__u16 *)e.remote_port = p->sport;
	if (bpf_ringbuf_output(&events, &e, sizeof(e), 0))
		b->lost++;
}

/* tell_peer lets the record that sends to this party use its port. The daemon prepared the address; if it differs, the daemon decides. */
static __always_inline void tell_peer(const struct packet *p, const struct record *r)
{
	__u32 position = r->peer;
	struct record *peer;

	if (position < INDEX_FIRST)
		return;
	peer = bpf_map_lookup_elem(&records, &position);
	if (peer && same_address(&p->src, peer->to))
		WRITE_ONCE(*(__u16 *)peer->to_port, p->sport);
}

/* learn accepts the packet's source port: the one that was learnt in this window or, if there is none yet, any, which it commits.
 * The source address has been checked. */
static __always_inline int learn(const struct packet *p, const struct record *r, __u32 position, struct flow *f, __u64 now)
{
	__u64 seen = READ_ONCE(f->latch);
	__u64 want = LATCH_LEARNT | (__u64)r->window << 16 | ntohs(p->sport);
	__u64 before;

	if (likely(seen == want))
		return GO_ON;
	if (seen >> 16 == want >> 16)
		return EXIT_SOURCE_MISMATCH;
	before = __sync_val_compare_and_swap(&f->latch, seen, want);
	if (before != seen) {
		/* Another packet of this flow was first. */
		return before == want ? GO_ON : EXIT_SOURCE_MISMATCH;
	}
	tell_peer(p, r);
	emit_learnt(p, r, position, now);
	return GO_ON;
}

/* saw marks a sign of life of an accepted source. */
static __always_inline void saw(struct flow *f, __u64 now)
{
	if (unlikely(!f->first_seen))
		WRITE_ONCE(f->first_seen, now);
	WRITE_ONCE(f->last_seen, now);
}

static __always_inline void count_forwarded(struct flow *f, const struct packet *p)
{
	WRITE_ONCE(f->packets, f->packets + 1);
	WRITE_ONCE(f->bytes, f->bytes + p->payload_length);
}

/* punt gives the packet to the slow path, unless nobody lives there: closed sockets would answer with ICMP. */
static __always_inline int punt(int exit, struct flow *f, const struct daemon *d, __u64 now)
{
	if (now >= READ_ONCE(d->alive_until))
		return EXIT_NO_DAEMON;
	WRITE_ONCE(f->punted, f->punted + 1);
	WRITE_ONCE(f->punt_reason, reason_of(exit));
	return exit;
}
