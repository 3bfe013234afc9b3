package relaytest

import "encoding/binary"

// RTP makes an RTP packet of version 2 with a payload of size octets (RFC 3550 section 5.1).
func RTP(sequence uint16, size int) []byte {
	b := make([]byte, 12+size)
	b[0] = 0x80
	binary.BigEndian.PutUint16(b[2:], sequence)
	binary.BigEndian.PutUint32(b[4:], uint32(sequence)*160)
	binary.BigEndian.PutUint32(b[8:], 0x7a9de301)
	for i := range size {
		b[12+i] = byte(int(sequence) + i*7)
	}
	return b
}

// RTCP makes an empty receiver report (RFC 3550 section 6.4.2).
func RTCP() []byte { return []byte{0x80, 201, 0, 1, 0x7a, 0x9d, 0xe3, 0x01} }

// STUN makes a binding request without attributes (RFC 8489 section 5).
func STUN() []byte {
	b := make([]byte, 20)
	b[1] = 1
	binary.BigEndian.PutUint32(b[4:], 0x2112a442)
	copy(b[8:], "transactions")
	return b
}

// notRTP is what no RTP endpoint sends (RFC 7983 section 7), with the reason.
func notRTP() map[string][]byte {
	long := make([]byte, 160)
	first := func(b byte) []byte { return append([]byte{b}, long...) }
	return map[string][]byte{
		"nothing at all":             {},
		"one octet":                  {0x80},
		"RTP cut in its header":      RTP(1, 160)[:11],
		"RTCP cut in its header":     RTCP()[:7],
		"zeros":                      long,
		"DTLS":                       first(22),
		"TURN channel":               first(64),
		"version 1":                  first(0x40),
		"version 3":                  first(0xc0),
		"old STUN without a cookie":  append([]byte{0, 1, 0, 0}, long[:16]...),
		"STUN cut in its header":     STUN()[:19],
		"RTCP types end at 223 here": {0x80, 224, 0, 1, 0, 0, 0, 0},
		"RTCP types begin at 192":    {0x80, 191, 0, 1, 0, 0, 0, 0},
	}
}
