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

struct cursor {
	void *pos;
	void *end;
};

/* take returns the next size bytes and steps over them, or NULL if the frame ends before. */
static __always_inline void *take(struct cursor *c, __u32 size)
{
	void *p = c->pos;

	if (p + size > c->end)
		return NULL;
	c->pos = p + size;
	return p;
}

/* What the later steps need to know of a UDP packet. */
struct packet {
	struct eth_header *eth;
	struct ipv4_header *ip; /* NULL for IPv6 */
	struct udp_header *udp;
	struct address src, dst;
	__u32 bytes; /* from the Ethernet header to the end of the IP packet */
	__u32 ip_length;
	__u32 payload_length; /* of UDP */
	int special;	      /* exit for a packet that only the slow path can handle, or GO_ON */
	int malformed;	      /* lengths contradict each other or the frame */
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

	p->eth = take(c, sizeof(*p->eth));
	if (!p->eth)
		return 0;
	p->bytes = sizeof(*p->eth);
	type = ntohs(p->eth->type);
	for (i = 0; i < MAX_VLANS; i++) {
		if (likely(type != ETHERTYPE_VLAN && type != ETHERTYPE_QINQ))
			break;
		tag = take(c, sizeof(*tag));
		if (!tag)
			return 0;
		p->bytes += sizeof(*tag);
		p->special = EXIT_PUNT_VLAN;
		type = ntohs(tag->type);
	}
	return type;
}

/* parse_udp reads the UDP header. available is the length of the IP payload in this packet. */
static __always_inline int parse_udp(struct cursor *c, struct packet *p, __u32 available, int fragment)
{
	__u32 length;

	p->udp = take(c, sizeof(*p->udp));
	if (!p->udp)
		return EXIT_PASS_UNREADABLE;
	length = ntohs(p->udp->length);
	if (length < sizeof(*p->udp) || (length > available && !fragment))
		p->malformed = 1;
	else
		p->payload_length = length - sizeof(*p->udp);
	return GO_ON;
}

static __always_inline int parse_ipv4(struct cursor *c, struct packet *p)
{
	struct ipv4_header *ip = take(c, sizeof(*ip));
	__u32 header, total, fragment;

	if (!ip)
		return EXIT_PASS_UNREADABLE;
	header = (ip->version_ihl & 0x0f) * 4;
	if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip))
		return EXIT_PASS_UNREADABLE;
	total = ntohs(ip->total_length);
	p->bytes += total;
	if (ip->protocol != PROTOCOL_UDP)
		return EXIT_PASS_NOT_UDP;
	p->ip = ip;
	p->ip_length = total;
	p->src = mapped(ip->src);
	p->dst = mapped(ip->dst);
	fragment = ntohs(ip->fragment) & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET);
	if (!p->special && header != sizeof(*ip))
		p->special = EXIT_PUNT_OPTIONS;
	if (unlikely(fragment)) {
		if (fragment & IPV4_FRAGMENT_OFFSET) {
			p->special = EXIT_PUNT_FRAGMENT;
			return GO_ON;
		}
		if (!p->special)
			p->special = EXIT_PUNT_FRAGMENT;
	}
	if (total < header + sizeof(struct udp_header) || (void *)ip + total > c->end)
		p->malformed = 1;
	c->pos = (void *)ip + header;
	return parse_udp(c, p, total - header, fragment);
}

static __always_inline int parse_ipv6(struct cursor *c, struct packet *p)
{
	struct ipv6_header *ip = take(c, sizeof(*ip));
	__u32 length;

	if (!ip)
		return EXIT_PASS_UNREADABLE;
	length = ntohs(ip->payload_length);
	p->bytes += sizeof(*ip) + length;
	if (ip->next_header != PROTOCOL_UDP)
		return EXIT_PASS_NOT_UDP;
	__builtin_memcpy(&p->src, ip->src, sizeof(p->src));
	__builtin_memcpy(&p->dst, ip->dst, sizeof(p->dst));
	if (!p->special)
		p->special = EXIT_PUNT_IPV6;
	if (length < sizeof(struct udp_header) || (void *)(ip + 1) + length > c->end)
		p->malformed = 1;
	return parse_udp(c, p, length, 0);
}

/* parse reads the frame. A later fragment has no UDP header: p->udp stays NULL. */
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
