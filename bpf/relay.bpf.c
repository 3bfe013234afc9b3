//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The fast path: an XDP program that relays UDP media between the local endpoints of sessions, and the sk_lookup program that gives
 * what it punts to the slow path's sockets. */
#include "headers/bpf.h"
#include "csum.h"
#include "flow.h"
#include "maps.h"
#include "parse.h"
#include "reason.h"
#include "types.h"

#define FAMILY_IPV4 2

char _license[] SEC("license") = "Dual BSD/GPL";

/* Keeps the types in the object, from which Go reads them. */
const enum abi *unused_abi __attribute__((unused));
const enum index_value *unused_index_value __attribute__((unused));
const enum action *unused_action __attribute__((unused));
const enum accept_kind *unused_accept_kind __attribute__((unused));
const enum record_flag *unused_record_flag __attribute__((unused));
const enum event_kind *unused_event_kind __attribute__((unused));
const enum reason *unused_reason __attribute__((unused));
const enum exit *unused_exit __attribute__((unused));
const struct event *unused_event __attribute__((unused));

/* The record that a packet met, and what goes with it. */
struct call {
	__u32 position;
	struct record *record;
	struct flow *flow;
	struct daemon *daemon;
	__u64 now;
};

/* admit finds the packet's record and says whether it may be forwarded at all and comes from an address that is accepted. */
static __always_inline int admit(const struct packet *p, struct call *c)
{
	struct record *record;
	struct role *rights;
	__u32 zero = 0;

	c->position = index_of(&p->dst, ntohs(p->dport));
	if (c->position == INDEX_NO_MEDIA)
		return EXIT_PASS_OTHER_ADDRESS;
	if (c->position == INDEX_OUTSIDE)
		return EXIT_PASS_OUTSIDE_RANGE;
	if (c->position < INDEX_FIRST)
		return EXIT_NO_SESSION;
	record = bpf_map_lookup_elem(&records, &c->position);
	if (!record)
		return EXIT_INVALID_RECORD;
	c->record = record;
	c->flow = bpf_map_lookup_elem(&flows, &record->flow);
	if (!c->flow)
		return EXIT_INVALID_RECORD;
	rights = bpf_map_lookup_elem(&role, &zero);
	if (!rights)
		return EXIT_INVALID_RECORD;
	c->daemon = bpf_map_lookup_elem(&daemon, &zero);
	if (!c->daemon)
		return EXIT_INVALID_RECORD;
	c->now = bpf_ktime_get_coarse_ns();
	if (c->now >= READ_ONCE(rights->forward_until))
		return EXIT_NO_RIGHT;
	if (c->now >= READ_ONCE(c->daemon->orphan_at))
		return EXIT_ORPHANED;
	if (record->action == ACTION_BLOCK)
		return EXIT_BLOCKED;
	if (record->action < ACTION_FORWARD || record->action > ACTION_PUNT)
		return EXIT_INVALID_RECORD;
	if (p->malformed)
		return EXIT_MALFORMED;
	if (record->accept != ACCEPT_OPEN && (record->accept != ACCEPT_ADDR || !same_address(&p->src, record->source)))
		return EXIT_SOURCE_MISMATCH;
	return GO_ON;
}

/* accept says whether a packet that was admitted counts as the party's media. */
static __always_inline int accept(const struct packet *p, const struct call *c)
{
	const struct record *r = c->record;
	enum payload payload;

	if (r->action == ACTION_PUNT)
		return punt(EXIT_PUNT_ACTION, c->flow, c->daemon, c->now);
	payload = classify(p, r);
	if (payload == PAYLOAD_STUN)
		return punt(EXIT_PUNT_STUN, c->flow, c->daemon, c->now);
	if (r->flags & RECORD_CHECK_RTP && payload != PAYLOAD_RTP)
		return EXIT_MALFORMED_RTP;
	if (r->accept == ACCEPT_OPEN)
		return punt(EXIT_PUNT_LEARNING, c->flow, c->daemon, c->now);
	return learn(p, r, c->position, c->flow, c->now);
}

/* rewrite makes the packet leave from our endpoint towards the record's destination. */
static __always_inline void rewrite(const struct packet *p, const struct record *r, const struct next_hop *n, __u64 towards, __u64 via)
{
	struct eth_header *eth = p->eth;
	struct ipv4_header *ip = p->ip;
	struct udp_header *udp = p->udp;
	__u32 src = ((const struct address *)n->from)->words[3];
	__u32 dst = ((const struct address *)r->to)->words[3];
	__u16 sport = *(const __u16 *)r->from_port;
	__u16 dport = READ_ONCE(*(const __u16 *)r->to_port);
	__u64 addresses, change;
	__u16 checksum;

	addresses = csum_replace32(csum_replace32(0, ip->src, src), ip->dst, dst);
	if (udp->checksum) {
		change = csum_replace16(csum_replace16(addresses, udp->src, sport), udp->dst, dport);
		checksum = csum_apply(udp->checksum, change);
		udp->checksum = checksum ? checksum : 0xffff;
	}
	change = csum_replace16(addresses, htons(ip->ttl << 8), htons((ip->ttl - 1) << 8));
	ip->checksum = csum_apply(ip->checksum, change);
	ip->ttl--;
	ip->src = src;
	ip->dst = dst;
	udp->src = sport;
	udp->dst = dport;
	__builtin_memcpy(eth->dst, &towards, sizeof(eth->dst));
	__builtin_memcpy(eth->src, &via, sizeof(eth->src));
}

/* send finds the way out and takes it. Nothing is written before every check has passed. */
static __always_inline int send(struct xdp_md *ctx, const struct packet *p, const struct record *r, struct flow *f,
				const struct daemon *d, __u64 now)
{
	const struct address *to = (const struct address *)r->to;
	__u32 position = r->next_hop;
	struct next_hop *n;
	__u64 towards, via;
	__u32 ifindex;
	int exit = EXIT_FORWARDED_TX;

	if (!READ_ONCE(*(const __u16 *)r->to_port) || !(to->halves[0] | to->halves[1]))
		return EXIT_NO_DESTINATION;
	if (to->halves[0] || to->words[2] != htonl(0xffff))
		return punt(EXIT_PUNT_IPV6, f, d, now);
	n = position ? bpf_map_lookup_elem(&next_hops, &position) : NULL;
	if (!n)
		return punt(EXIT_PUNT_NO_NEXT_HOP, f, d, now);
	/* Each of the two words is replaced at once. */
	towards = READ_ONCE(*(const __u64 *)n->dmac);
	via = READ_ONCE(*(const __u64 *)n->smac);
	if (!((const __u8 *)&towards)[6])
		return punt(EXIT_PUNT_NO_NEXT_HOP, f, d, now);
	if (((const __u8 *)&towards)[7])
		return punt(EXIT_PUNT_VLAN, f, d, now);
	if (p->ip_length > ((const __u16 *)&via)[3])
		return punt(EXIT_PUNT_MTU, f, d, now);
	if (p->ip->ttl <= 1)
		return EXIT_TTL_EXPIRED;
	ifindex = n->ifindex;
	if (ifindex != ctx->ingress_ifindex) {
		exit = EXIT_FORWARDED_REDIRECT;
		if (bpf_redirect_map(&devices, ifindex, 0) != XDP_REDIRECT)
			return punt(EXIT_PUNT_NO_NEXT_HOP, f, d, now);
	}
	rewrite(p, r, n, towards, via);
	count_forwarded(f, p);
	return exit;
}

/* relay_special looks at what only the slow path can handle, so that it gets no more than it must. */
static __always_inline int relay_special(struct xdp_md *ctx, struct packet *p, __u32 length)
{
	struct call c;
	int exit;

	exit = parse_special(ctx, p, length);
	if (exit)
		return exit;
	if (p->later_fragment) {
		/* The kernel puts it together with its first fragment, or drops it. */
		return index_of(&p->dst, 0) == INDEX_NO_MEDIA ? EXIT_PASS_OTHER_ADDRESS : EXIT_PUNT_FRAGMENT;
	}
	exit = admit(p, &c);
	if (exit)
		return exit;
	return punt(p->special, c.flow, c.daemon, c.now);
}

/* relay is the life of a packet. It returns an exit. */
static __always_inline int relay(struct xdp_md *ctx, struct packet *p, __u32 length)
{
	struct call c;
	int exit;

	exit = parse_plain(ctx, p, length);
	if (exit == NOT_PLAIN)
		return relay_special(ctx, p, length);
	if (exit)
		return exit;
	exit = admit(p, &c);
	if (exit)
		return exit;
	exit = accept(p, &c);
	if (exit)
		return exit;
	saw(c.flow, c.now);
	if (c.record->action == ACTION_HOLD)
		return EXIT_HELD;
	return send(ctx, p, c.record, c.flow, c.daemon, c.now);
}

static __always_inline int leave(int exit, __u32 length)
{
	__u32 reason = reason_of(exit);
	struct reason_count *count = bpf_map_lookup_elem(&reasons, &reason);
	int verdict = verdict_of(exit);

	if (count) {
		count->packets++;
		count->bytes += length;
	}
	return verdict == VERDICT_PUNT ? XDP_PASS : verdict;
}

SEC("xdp")
int tandem_relay(struct xdp_md *ctx)
{
	__u32 length = bpf_xdp_get_buff_len(ctx);
	struct packet p = {};

	return leave(relay(ctx, &p, length), length);
}

/* Steers what arrives in the media range to the slow path's sockets: one group of sockets for all ports. */
SEC("sk_lookup")
int tandem_steer(struct bpf_sk_lookup *ctx)
{
	__u32 port = READ_ONCE(ctx->local_port);
	/* Read in any case: the verifier wants every load to be made directly from the context. */
	__u32 ip4 = READ_ONCE(ctx->local_ip4);
	struct address local = {.words = {READ_ONCE(ctx->local_ip6[0]), READ_ONCE(ctx->local_ip6[1]), READ_ONCE(ctx->local_ip6[2]),
					  READ_ONCE(ctx->local_ip6[3])}};
	__u32 slot;
	void *sock;
	long refused;

	if (READ_ONCE(ctx->protocol) != PROTOCOL_UDP)
		return SK_PASS;
	if (READ_ONCE(ctx->family) == FAMILY_IPV4)
		local = mapped(ip4);
	switch (index_of(&local, port)) {
	case INDEX_NO_MEDIA:
	case INDEX_OUTSIDE:
		return SK_PASS;
	}
	/* All packets of one local port go to one socket, in order. The pair of a stream shares it. */
	slot = (port >> 1) % STEER_SLOTS;
	sock = bpf_map_lookup_elem(&steer, &slot);
	if (!sock)
		return SK_DROP;
	refused = bpf_sk_assign(ctx, sock, 0);
	bpf_sk_release(sock);
	return refused ? SK_DROP : SK_PASS;
}
