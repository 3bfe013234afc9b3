/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Why a frame left the program the way it did. Every exit carries one of these, and each is counted. */
#pragma once

#include "headers/bpf.h"

/* Append only: the numbers stand in pinned maps. The second column is the verdict; PUNT is XDP_PASS to the slow path. */
#define REASONS(X)                                \
	X(FORWARDED_TX, VERDICT_TX)               \
	X(FORWARDED_REDIRECT, VERDICT_REDIRECT)   \
	X(PASS_NOT_UDP, VERDICT_PASS)             \
	X(PASS_OTHER_ADDRESS, VERDICT_PASS)       \
	X(PASS_OUTSIDE_RANGE, VERDICT_PASS)       \
	X(PASS_UNREADABLE, VERDICT_PASS)          \
	X(PUNT_FRAGMENT, VERDICT_PUNT)            \
	X(PUNT_OPTIONS, VERDICT_PUNT)             \
	X(PUNT_IPV6, VERDICT_PUNT)                \
	X(PUNT_VLAN, VERDICT_PUNT)                \
	X(PUNT_ACTION, VERDICT_PUNT)              \
	X(PUNT_STUN, VERDICT_PUNT)                \
	X(PUNT_LEARNING, VERDICT_PUNT)            \
	X(PUNT_NO_NEXT_HOP, VERDICT_PUNT)         \
	X(PUNT_MTU, VERDICT_PUNT)                 \
	X(NO_SESSION, VERDICT_DROP)               \
	X(INVALID_RECORD, VERDICT_DROP)           \
	X(NO_RIGHT, VERDICT_DROP)                 \
	X(ORPHANED, VERDICT_DROP)                 \
	X(BLOCKED, VERDICT_DROP)                  \
	X(MALFORMED, VERDICT_DROP)                \
	X(MALFORMED_RTP, VERDICT_DROP)            \
	X(SOURCE_MISMATCH, VERDICT_DROP)          \
	X(HELD, VERDICT_DROP)                     \
	X(NO_DESTINATION, VERDICT_DROP)           \
	X(TTL_EXPIRED, VERDICT_DROP)              \
	X(NO_DAEMON, VERDICT_DROP)

enum verdict {
	VERDICT_DROP = XDP_DROP,
	VERDICT_PASS = XDP_PASS,
	VERDICT_TX = XDP_TX,
	VERDICT_REDIRECT = XDP_REDIRECT,
	VERDICT_PUNT = 5,
};

/* Zero means "no exit yet" inside the program and "none" in flow.punt_reason. */
enum reason {
	REASON_NONE = 0,
#define X(name, verdict) REASON_##name,
	REASONS(X)
#undef X
	REASON_COUNT,
};

/* An exit is a reason together with its verdict, so that neither is ever looked up. */
enum exit {
	GO_ON = 0,
#define X(name, verdict) EXIT_##name = (verdict) << 8 | REASON_##name,
	REASONS(X)
#undef X
};

/* The counters' map is larger than what is used, so that new reasons do not change its layout. */
#define REASON_CAPACITY 128
_Static_assert(REASON_COUNT <= REASON_CAPACITY, "reasons");

static __always_inline enum reason reason_of(int exit)
{
	return exit & 0xff;
}

static __always_inline int verdict_of(int exit)
{
	return exit >> 8;
}
