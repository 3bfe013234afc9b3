/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From a frame to a packet: a cursor walks over the headers, one function per layer. */
#pragma once

#include "headers/bpf.h"
#include "reason.h"
#include "types.h"

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_QINQ 0x88a8
#define PROTOCOL_UDP 17
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define MAX_VLANS 2
#define MAX_OPTIONS 40

struct eth_header {
	__u8 dst[6];
	__u8 src[6];
	__u16 type;
};

struct vlan_header {
	__u16 tci;
	__u16 type;
};

struct ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__u16 total_length;
	__u16 id;
	__u16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u32 src;
	__u32 dst;
};

struct ipv6_header {
	__u32 version_class_flow;
	__u16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	__u8 src[16];
	__u8 dst[16];
};

struct udp_header {
	__u16 src;
	__u16 dst;
	__u16 length;
	__u16 checksum;
};

/* Without CAP_PERFMON, packet pointers may neither be subtracted nor compared with NULL, and only constants may be added to them. So
 * lengths are compared with the frame's length instead. */
struct cursor {
	void *pos;
	void *end;
	__u32 offset; /* of pos */
	__u32 length; /* of the frame */
};

/* step goes size bytes on, a constant, and returns 0 if the frame ends before. */
static __always_inline int step(struct cursor *c, __u32 size)
{
	void *next = c->pos + size;

	if (next > c->end)
		return 0;
	c->pos = next;
	c->offset += size;
	return 1;
}

/* What the later steps need to know of a UDP packet. */
struct packet {
	struct eth_header *eth;
	struct ipv4_header *ip; /* only with is_ipv4 */
	struct udp_header *udp; /* not with later_fragment */
	struct address src, dst;
	__u32 ip_length;
	__u32 payload_length; /* of UDP */
	int special;	      /* exit for a packet that only the slow path can handle, or GO_ON */
	int malformed;	      /* lengths contradict each other or the frame */
	int is_ipv4;
	int later_fragment;
};

static __always_inline struct address mapped(__u32 v4)
{
	struct address a = {.words = {0, 0, htonl(0xffff), v4}};

	return a;
}

static __always_inline int same_address(const struct address *a, const void *b)
{
	const struct address *other = b;

	return a->halves[0] == other->halves[0] && a->halves[1] == other->halves[1];
}

/* parse_ethernet steps over the Ethernet header and up to two VLAN tags and returns the EtherType, 0 if the frame ends before. */
static __always_inline __u16 parse_ethernet(struct cursor *c, struct packet *p)
{
	struct vlan_header *tag;
	__u16 type;
	int i;

	p->eth = c->pos;
	if (!step(c, sizeof(*p->eth)))
		return 0;
	type = ntohs(p->eth->type);
	for (i = 0; i < MAX_VLANS; i++) {
		if (likely(type != ETHERTYPE_VLAN && type != ETHERTYPE_QINQ))
			break;
		tag = c->pos;
		if (!step(c, sizeof(*tag)))
			return 0;
		p->special = EXIT_PUNT_VLAN;
		type = ntohs(tag->type);
	}
	return type;
}

/* parse_udp reads the UDP header. available is the length of the IP payload in this packet. */
static __always_inline int parse_udp(struct cursor *c, struct packet *p, __u32 available, int fragment)
{
	__u32 length;

	p->udp = c->pos;
	if (!step(c, sizeof(*p->udp)))
		return EXIT_PASS_UNREADABLE;
	length = ntohs(p->udp->length);
	if (length < sizeof(*p->udp) || (length > available && !fragment))
		p->malformed = 1;
	else
		p->payload_length = length - sizeof(*p->udp);
	return GO_ON;
}

static __always_inline int step_options(struct cursor *c, __u32 size)
{
	__u32 word;

	for (word = 0; unlikely(word < size && word < MAX_OPTIONS); word += 4) {
		if (!step(c, 4))
			return 0;
		OPAQUE(c->pos);
	}
	return 1;
}

static __always_inline int parse_ipv4(struct cursor *c, struct packet *p)
{
	struct ipv4_header *ip = c->pos;
	__u32 start = c->offset, header, total, fragment;

	if (!step(c, sizeof(*ip)))
		return EXIT_PASS_UNREADABLE;
	header = (ip->version_ihl & 0x0f) * 4;
	if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip))
		return EXIT_PASS_UNREADABLE;
	total = ntohs(ip->total_length);
	if (ip->protocol != PROTOCOL_UDP)
		return EXIT_PASS_NOT_UDP;
	p->ip = ip;
	p->is_ipv4 = 1;
	p->ip_length = total;
	p->src = mapped(ip->src);
	p->dst = mapped(ip->dst);
	fragment = ntohs(ip->fragment) & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET);
	if (!p->special && header != sizeof(*ip))
		p->special = EXIT_PUNT_OPTIONS;
	if (unlikely(fragment)) {
		if (fragment & IPV4_FRAGMENT_OFFSET) {
			p->later_fragment = 1;
			return GO_ON;
		}
		if (!p->special)
			p->special = EXIT_PUNT_FRAGMENT;
	}
	if (total < header + sizeof(struct udp_header) || start + total > c->length)
		p->malformed = 1;
	if (!step_options(c, header - sizeof(*ip)))
		return EXIT_PASS_UNREADABLE;
	return parse_udp(c, p, total - header, fragment);
}

static __always_inline int parse_ipv6(struct cursor *c, struct packet *p)
{
	struct ipv6_header *ip = c->pos;
	__u32 length;

	if (!step(c, sizeof(*ip)))
		return EXIT_PASS_UNREADABLE;
	length = ntohs(ip->payload_length);
	if (ip->next_header != PROTOCOL_UDP)
		return EXIT_PASS_NOT_UDP;
	__builtin_memcpy(&p->src, ip->src, sizeof(p->src));
	__builtin_memcpy(&p->dst, ip->dst, sizeof(p->dst));
	if (!p->special)
		p->special = EXIT_PUNT_IPV6;
	if (length < sizeof(struct udp_header) || c->offset + length > c->length)
		p->malformed = 1;
	return parse_udp(c, p, length, 0);
}

/* parse reads the frame as far as its UDP header, which later fragments do not have. */
static __always_inline int parse(struct cursor *c, struct packet *p)
{
	switch (parse_ethernet(c, p)) {
	case ETHERTYPE_IPV4:
		return parse_ipv4(c, p);
	case ETHERTYPE_IPV6:
		return parse_ipv6(c, p);
	case 0:
		return EXIT_PASS_UNREADABLE;
	default:
		return EXIT_PASS_NOT_UDP;
	}
}
