//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The fast path under a harness that turns every run into a packet of a random session, because a test run does not restore the packet:
 * its TTL would run down. */
#include "relay.bpf.c"

struct harness {
	__u32 sessions;
	__u32 first_address; /* network order */
	__u32 first_port;
	__u32 ports; /* per address */
	__u32 source;
	__u32 source_port;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct harness);
} harness SEC(".maps");

struct frame {
	struct eth_header eth;
	struct ipv4_header ip;
	struct udp_header udp;
} __attribute__((packed));

static __always_inline int prepare(struct xdp_md *ctx)
{
	struct frame *f = (void *)(long)ctx->data;
	__u32 zero = 0, session;
	struct harness *h = bpf_map_lookup_elem(&harness, &zero);

	if (!h || !h->sessions || !h->ports || (void *)(f + 1) > (void *)(long)ctx->data_end)
		return 0;
	session = bpf_get_prandom_u32() % h->sessions;
	f->ip.ttl = 64;
	f->ip.src = h->source;
	f->ip.dst = htonl(ntohl(h->first_address) + session / h->ports);
	f->udp.src = htons(h->source_port);
	f->udp.dst = htons(h->first_port + session % h->ports);
	f->udp.checksum = htons(0x1234);
	return 1;
}

SEC("xdp")
int measure_baseline(struct xdp_md *ctx)
{
	return prepare(ctx) ? XDP_DROP : XDP_ABORTED;
}

SEC("xdp")
int measure_relay(struct xdp_md *ctx)
{
	return prepare(ctx) ? tandem_relay(ctx) : XDP_ABORTED;
}
