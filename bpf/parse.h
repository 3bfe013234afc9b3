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
#define IPV4_PLAIN 0x45 /* version 4, no options */
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

/* A cursor over what lies at fixed places. Without CAP_PERFMON, packet pointers may neither be subtracted nor compared with NULL, and
 * only constants may be added to them: lengths are compared with the frame's length, and what lies elsewhere is copied. */
struct cursor {
	void *pos;
	void *end;
};

/* step goes size bytes on, a constant, and returns 0 if the frame ends before. */
static __always_inline int step(struct cursor *c, __u32 size)
{
	void *next = c->pos + size;

	if (next > c->end)
		return 0;
	c->pos = next;
	return 1;
}

/* What the later steps need to know of a UDP packet. */
struct packet {
	struct address src, dst;
	__u16 sport, dport; /* network order */
	__u32 ip_length;
	__u32 payload_length; /* of UDP, unless malformed */
	int special;	      /* exit for a packet that only the slow path can handle, or GO_ON */
	int malformed;	      /* lengths contradict each other or the frame */
	int later_fragment;   /* has no ports */
	/* These only if the packet is plain. */
	struct eth_header *eth;
	struct ipv4_header *ip;
	struct udp_header *udp;
	struct cursor payload;
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

/* inspect_ipv4 takes what counts from the header, which starts at an offset of the frame. */
static __always_inline int inspect_ipv4(struct packet *p, const struct ipv4_header *ip, __u32 offset, __u32 length)
{
	__u32 header = (ip->version_ihl & 0x0f) * 4;
	__u16 fragment = ntohs(ip->fragment) & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET);

	if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip))
		return EXIT_PASS_UNREADABLE;
	if (ip->protocol != PROTOCOL_UDP)
		return EXIT_PASS_NOT_UDP;
	p->src = mapped(ip->src);
	p->dst = mapped(ip->dst);
	p->ip_length = ntohs(ip->total_length);
	p->malformed |= p->ip_length < header + sizeof(struct udp_header) || offset + p->ip_length > length;
	if (!p->special && header != sizeof(*ip))
		p->special = EXIT_PUNT_OPTIONS;
	if (!p->special && fragment)
		p->special = EXIT_PUNT_FRAGMENT;
	p->later_fragment = fragment & IPV4_FRAGMENT_OFFSET;
	return GO_ON;
}

/* inspect_udp does the same; available is the length of the IP payload. The first fragment of a packet holds less than UDP says. */
static __always_inline void inspect_udp(struct packet *p, const struct udp_header *udp, __u32 available, int fragment)
{
	__u32 length = ntohs(udp->length);

	p->sport = udp->src;
	p->dport = udp->dst;
	p->malformed |= length < sizeof(*udp) || (length > available && !fragment);
	p->payload_length = length - sizeof(*udp);
}

static __always_inline int copy_ipv4(struct xdp_md *ctx, struct packet *p, __u32 offset, __u32 length)
{
	struct ipv4_header ip;
	struct udp_header udp;
	__u32 header;
	int exit;

	if (bpf_xdp_load_bytes(ctx, offset, &ip, sizeof(ip)))
		return EXIT_PASS_UNREADABLE;
	exit = inspect_ipv4(p, &ip, offset, length);
	if (exit || p->later_fragment)
		return exit;
	header = (ip.version_ihl & 0x0f) * 4;
	if (bpf_xdp_load_bytes(ctx, offset + header, &udp, sizeof(udp)))
		return EXIT_PASS_UNREADABLE;
	inspect_udp(p, &udp, p->ip_length - header, ntohs(ip.fragment) & IPV4_MORE_FRAGMENTS);
	return GO_ON;
}

static __always_inline int copy_ipv6(struct xdp_md *ctx, struct packet *p, __u32 offset, __u32 length)
{
	struct ipv6_header ip;
	struct udp_header udp;
	__u32 available;

	if (bpf_xdp_load_bytes(ctx, offset, &ip, sizeof(ip)))
		return EXIT_PASS_UNREADABLE;
	if (ip.next_header != PROTOCOL_UDP)
		return EXIT_PASS_NOT_UDP;
	__builtin_memcpy(&p->src, ip.src, sizeof(p->src));
	__builtin_memcpy(&p->dst, ip.dst, sizeof(p->dst));
	available = ntohs(ip.payload_length);
	p->malformed |= available < sizeof(udp) || offset + sizeof(ip) + available > length;
	if (!p->special)
		p->special = EXIT_PUNT_IPV6;
	if (bpf_xdp_load_bytes(ctx, offset + sizeof(ip), &udp, sizeof(udp)))
		return EXIT_PASS_UNREADABLE;
	inspect_udp(p, &udp, available, 0);
	return GO_ON;
}

/* parse_special reads what is not plain IPv4: tags, options, fragments, IPv6. */
static __always_inline int parse_special(struct xdp_md *ctx, struct packet *p, __u32 length)
{
	__u32 offset = sizeof(struct eth_header);
	struct vlan_header tag;
	struct eth_header eth;
	__u16 type;
	int i;

	if (bpf_xdp_load_bytes(ctx, 0, &eth, sizeof(eth)))
		return EXIT_PASS_UNREADABLE;
	type = ntohs(eth.type);
	for (i = 0; i < MAX_VLANS; i++) {
		if (type != ETHERTYPE_VLAN && type != ETHERTYPE_QINQ)
			break;
		if (bpf_xdp_load_bytes(ctx, offset, &tag, sizeof(tag)))
			return EXIT_PASS_UNREADABLE;
		offset += sizeof(tag);
		p->special = EXIT_PUNT_VLAN;
		type = ntohs(tag.type);
	}
	switch (type) {
	case ETHERTYPE_IPV4:
		return copy_ipv4(ctx, p, offset, length);
	case ETHERTYPE_IPV6:
		return copy_ipv6(ctx, p, offset, length);
	default:
		return EXIT_PASS_NOT_UDP;
	}
}

/* parse_plain reads IPv4 without tags, options and fragments, and returns NOT_PLAIN for anything else. */
#define NOT_PLAIN (-1)
static __always_inline int parse_plain(struct xdp_md *ctx, struct packet *p, __u32 length)
{
	struct cursor c = {.pos = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end};
	struct eth_header *eth = c.pos;
	struct ipv4_header *ip;
	int exit;

	if (!step(&c, sizeof(*eth)))
		return EXIT_PASS_UNREADABLE;
	ip = c.pos;
	if (unlikely(eth->type != htons(ETHERTYPE_IPV4)) || !step(&c, sizeof(*ip)) || unlikely(ip->version_ihl != IPV4_PLAIN) ||
	    unlikely(ip->fragment & htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET)))
		return NOT_PLAIN;
	exit = inspect_ipv4(p, ip, sizeof(*eth), length);
	if (exit)
		return exit;
	p->eth = eth;
	p->ip = ip;
	p->udp = c.pos;
	if (!step(&c, sizeof(*p->udp)))
		return EXIT_PASS_UNREADABLE;
	inspect_udp(p, p->udp, p->ip_length - sizeof(*ip), 0);
	p->payload = c;
	return GO_ON;
}
