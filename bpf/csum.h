/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Incremental Internet checksums (RFC 1624). One's complement sums do not depend on byte order, so fields are summed as they lie
 * in the packet. */
#pragma once

#include "headers/bpf.h"

/* A change of a checksum: the sum of the complements of the old values and of the new values. */
static __always_inline __u64 csum_replace32(__u64 sum, __u32 from, __u32 to)
{
	return sum + (__u32)~from + to;
}

static __always_inline __u64 csum_replace16(__u64 sum, __u16 from, __u16 to)
{
	return sum + (__u16)~from + to;
}

/* csum_apply returns the checksum after the change. */
static __always_inline __u16 csum_apply(__u16 checksum, __u64 change)
{
	__u64 sum = (__u16)~checksum + change;

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}
