package media

import (
	"strings"
	"testing"
)

// TestGolden: whole descriptions from a public peer (198.51.100.20) to one behind the media address 10.0.0.1, ports from
// 20000 on. Written line by line; in a pair of lines beginning with - and + the first becomes the second, - alone is
// removed, + alone added.
func TestGolden(t *testing.T) {
	for _, c := range []struct{ name, diff string }{
		{"desk phone", `
 v=0
 o=- 3862 1 IN IP4 198.51.100.20
 s=SIP Call
-c=IN IP4 198.51.100.20
+c=IN IP4 10.0.0.1
 t=0 0
-m=audio 11780 RTP/AVP 9 0 8 18 101
+m=audio 20000 RTP/AVP 9 0 8 18 101
 a=rtpmap:9 G722/8000
 a=rtpmap:0 PCMU/8000
 a=rtpmap:8 PCMA/8000
 a=rtpmap:18 G729/8000
 a=fmtp:18 annexb=no
 a=rtpmap:101 telephone-event/8000
 a=fmtp:101 0-15
 a=ptime:20
 a=sendrecv
`},
		{"phone behind NAT with an address at both levels", `
 v=0
 o=user1 53655765 2353687637 IN IP4 192.168.1.23
 s=-
-c=IN IP4 192.168.1.23
+c=IN IP4 10.0.0.1
 t=0 0
-m=audio 6000 RTP/AVP 8
+m=audio 20000 RTP/AVP 8
-c=IN IP4 192.168.1.23
+c=IN IP4 10.0.0.1
 a=rtpmap:8 PCMA/8000
`},
		{"softphone with ICE, RTCP address and crypto", `
 v=0
 o=- 3929876543 3929876543 IN IP4 198.51.100.20
 s=softphone
 b=AS:84
 t=0 0
 a=X-nat:0
-m=audio 40012 RTP/SAVP 96 0 8 97
+m=audio 20000 RTP/SAVP 96 0 8 97
-c=IN IP4 198.51.100.20
+c=IN IP4 10.0.0.1
 b=TIAS:64000
-a=rtcp:40013 IN IP4 198.51.100.20
+a=rtcp:20001 IN IP4 10.0.0.1
 a=sendrecv
 a=rtpmap:96 opus/48000/2
 a=rtpmap:97 telephone-event/8000
 a=ssrc:1837462 cname:4f2a
 a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz
-a=ice-ufrag:5e2f
-a=ice-pwd:7a1c9a0b33
-a=candidate:Hc6336414 1 UDP 2130706431 198.51.100.20 40012 typ host
-a=candidate:Hc6336414 2 UDP 2130706430 198.51.100.20 40013 typ host
`},
		{"browser: ICE, BUNDLE and a bundle-only line go, DTLS stays", `
 v=0
 o=- 4962303333179871722 2 IN IP4 127.0.0.1
 s=-
 t=0 0
-a=group:BUNDLE 0 1
 a=extmap-allow-mixed
 a=msid-semantic: WMS stream
-m=audio 51000 UDP/TLS/RTP/SAVPF 111 0
+m=audio 20000 UDP/TLS/RTP/SAVPF 111 0
-c=IN IP4 198.51.100.20
+c=IN IP4 10.0.0.1
-a=rtcp:9 IN IP4 0.0.0.0
+a=rtcp:20001 IN IP4 0.0.0.0
-a=candidate:1 1 udp 2113937151 198.51.100.20 51000 typ host generation 0
-a=ice-ufrag:Xk3p
-a=ice-pwd:N1Gb8ZVQx7
-a=ice-options:trickle
 a=fingerprint:sha-256 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB
 a=setup:actpass
 a=mid:0
 a=msid:stream track
 a=sendrecv
 a=rtcp-mux
 a=rtpmap:111 opus/48000/2
 m=video 0 UDP/TLS/RTP/SAVPF 96
 c=IN IP4 0.0.0.0
-a=bundle-only
 a=mid:1
 a=rtpmap:96 VP8/90000
`},
		{"audio and video, one held, one rejected (RFC 3264 sections 5 and 8)", `
 v=0
 o=alice 2890844526 2890844527 IN IP4 host.anywhere.example
 s=
-c=IN IP4 198.51.100.20
+c=IN IP4 10.0.0.1
 t=0 0
-m=audio 49170 RTP/AVP 0
+m=audio 20000 RTP/AVP 0
 a=rtpmap:0 PCMU/8000
 m=video 0 RTP/AVP 31
 a=rtpmap:31 H261/90000
-m=video 53000 RTP/AVP 32
+m=video 20002 RTP/AVP 32
 c=IN IP4 0.0.0.0
 a=rtpmap:32 MPV/90000
 a=inactive
`},
		{"two audio lines, lip sync group, session attributes (RFC 4317, RFC 5888)", `
 v=0
 o=bob 2808844564 2808844563 IN IP4 198.51.100.20
 s= 
 i=a call
 u=http://www.example.com/call
 e=bob@example.com
 p=+1 617 555-0100
-c=IN IP4 198.51.100.20
+c=IN IP4 10.0.0.1
 b=X-YZ:128
 t=2873397496 2873404696
 r=604800 3600 0 90000
 z=2882844526 -1h
 k=prompt
 a=group:LS 1 2
 a=recvonly
-m=audio 49172 RTP/AVP 97 98
+m=audio 20000 RTP/AVP 97 98
 i=speech
 a=rtpmap:97 iLBC/8000
 a=mid:1
-m=audio 49174 RTP/AVP 98
+m=audio 20002 RTP/AVP 98
 a=rtpmap:98 telephone-event/8000
 a=sendonly
 a=mid:2
`},
		{"RTCP on another port (RFC 3605 section 2.1)", `
 v=0
 o=- 1 1 IN IP4 198.51.100.20
 s=-
-c=IN IP4 198.51.100.20
+c=IN IP4 10.0.0.1
 t=0 0
-m=audio 49170 RTP/AVP 0
+m=audio 20000 RTP/AVP 0
-a=rtcp:53020
+a=rtcp:20001
-m=video 51372 RTP/AVP 31
+m=video 20002 RTP/AVP 31
-a=rtcp:53021 IN IP4 198.51.100.20
+a=rtcp:20003 IN IP4 10.0.0.1
`},
		{"fax gateway, lower-case transport", `
 v=0
 o=gw 8000 8001 IN IP4 198.51.100.20
 s=SIP Call
-c=IN IP4 198.51.100.20
+c=IN IP4 10.0.0.1
 t=0 0
 m=audio 0 RTP/AVP 8
-m=image 17004 udptl t38
+m=image 20000 udptl t38
 a=T38FaxVersion:0
 a=T38MaxBitRate:14400
 a=T38FaxRateManagement:transferredTCF
 a=T38FaxUdpEC:t38UDPRedundancy
`},
		{"surveillance camera: huge ids, no t=, f= and y= lines, layers", `
 v=0
 o=34020000001320000001000000000000001 0 0 IN IP4 198.51.100.20
 s=Play
-c=IN IP4 198.51.100.20
+c=IN IP4 10.0.0.1
-m=video 30000/2 RTP/AVP 96 98 97
+m=video 20000 RTP/AVP 96 98 97
 a=recvonly
 a=rtpmap:96 PS/90000
 y=0100000001
 f=v/2/5/25/1/4000a/1/8/1
`},
		{"chat beside audio keeps its address", `
 v=0
 o=- 1 1 IN IP4 198.51.100.20
 s=-
-c=IN IP4 198.51.100.20
+c=IN IP4 10.0.0.1
 t=0 0
-m=audio 4000 RTP/AVP 0
+m=audio 20000 RTP/AVP 0
 m=message 2855 TCP/MSRP *
+c=IN IP4 198.51.100.20
 a=accept-types:text/plain
 a=path:msrp://198.51.100.20:2855/s1;tcp
`},
		{"lines out of place, unknown letters, doubled blanks", `
 v=0
 s=-
 o=- 1 1 IN IP4 198.51.100.20
 a=tool:x
 t=0 0
-c=IN  IP4  198.51.100.20 
+c=IN  IP4  10.0.0.1 
 q=what
-m=audio  4000  RTP/AVP  0 
+m=audio  20000  RTP/AVP  0 
 b=AS:64
 a=ptime:20
 i=late
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var in, want strings.Builder
			for _, l := range strings.Split(strings.TrimPrefix(strings.TrimSuffix(c.diff, "\n"), "\n"), "\n") {
				if l[0] != '+' {
					in.WriteString(l[1:] + "\r\n")
				}
				if l[0] != '-' {
					want.WriteString(l[1:] + "\r\n")
				}
			}
			for _, form := range []func(string) string{
				func(s string) string { return s },
				func(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") },
			} {
				k := newCall(t)
				k.expect(k.offer(k.a, k.b, form(in.String())), form(want.String()))
			}
		})
	}
}
