// Package userspace is the data plane over plain UDP sockets: no privileges, any kernel.
//
// It decides as the XDP plane does: who may send, what is learnt and when learning reopens, what is held, blocked or
// malformed, where packets go. A receiver sees the same payload, addresses, ports, DSCP and ECN (RFC 2474, RFC 3168).
// What it cannot do the same way:
//
//   - Packets go through sockets, so they are lost while the process is stopped, and flows end with it. What was learnt
//     is forgotten too: after a restart the first packet decides again.
//   - Each packet leaves as a new one of this host: its own IPv4 identification and DF bit (from the host's path MTU
//     discovery), TTL or hop limit and flow label; IPv4 options and IPv6 extension headers do not pass.
//   - UDP checksums are made anew. A packet that came without one (checksum 0) leaves with one, and a packet with a wrong
//     one is dropped by the kernel, uncounted here.
//   - A packet with TTL 1 is forwarded; the XDP plane drops it.
//   - Fragments are put together before they are looked at, and a packet that does not fit the way out is fragmented.
//   - A packet that is both malformed and from a wrong port counts as malformed_rtp here, and by its path there.
//   - STUN, fragments and records with several outputs have no path of their own here; everything is one path.
//   - The host's firewall and conntrack see the packets, and tcpdump does.
//   - A port of the media range without a session has no socket: the kernel answers with ICMP port unreachable, and nothing is
//     counted, where the XDP plane drops and counts no_session.
//   - Forwarded packets count as forwarded_socket, what the kernel refuses to send as send_failed.
//   - There are no rights or deadlines: flows do not end when the box is not the active one, or after an orphan time.
//   - Next hops are the kernel's own routing, looked up for each packet.
//   - Latency and its jitter are those of scheduling a process.
package userspace
