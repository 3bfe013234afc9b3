//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Programs that are only run by hand, on frames of our own: does what we redirect come out of an interface, does what we pass come in? */
#include "headers/bpf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} egress SEC(".maps");

SEC("xdp")
int probe_egress(struct xdp_md *ctx)
{
	return bpf_redirect_map(&egress, 0, 0);
}

SEC("xdp")
int probe_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}
