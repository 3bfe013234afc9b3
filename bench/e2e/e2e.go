// Package e2e holds the end-to-end tests: the real daemon with native XDP in network namespaces, and peers that nobody
// here wrote (sipp, baresip, Kamailio, nftables) around it.
package e2e
