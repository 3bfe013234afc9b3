package sip

import (
	"crypto/rand"
	"strings"
)

// A leg token is the user part of the Contact that we give to a party: two hexadecimal digits that lead to the shard
// (the home), and 130 random bits. Branches of our own carry the home in the same way.
const (
	homes       = 256
	randomChars = 26
	tokenLength = 2 + randomChars
)

const hexDigits = "0123456789abcdef"

// newToken makes a token that leads to the home.
func newToken(home uint8) string {
	return string([]byte{hexDigits[home>>4], hexDigits[home&15]}) + strings.ToLower(rand.Text())
}

// tokenHome returns where a token leads; false if the text is none.
func tokenHome(s string) (uint8, bool) {
	if len(s) != tokenLength {
		return 0, false
	}
	high, low := strings.IndexByte(hexDigits, s[0]), strings.IndexByte(hexDigits, s[1])
	if high < 0 || low < 0 {
		return 0, false
	}
	for i := 2; i < len(s); i++ {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return 0, false
		}
	}
	return uint8(high<<4 | low), true
}

// newBranch makes a Via branch of our own.
func newBranch(home uint8) string { return magicCookie + newToken(home) }

// branchHome returns where a branch leads; false if it cannot be ours.
func branchHome(branch string) (uint8, bool) {
	rest, ok := strings.CutPrefix(branch, magicCookie)
	if !ok {
		return 0, false
	}
	return tokenHome(rest)
}

// callHome spreads new calls over the homes by their Call-ID (FNV-1a), the same in every process, so that a request that names
// no token finds a call of an earlier one.
func callHome(callID string) uint8 {
	h := uint32(2166136261)
	for i := range len(callID) {
		h = (h ^ uint32(callID[i])) * 16777619
	}
	return uint8(h ^ h>>8 ^ h>>16 ^ h>>24)
}
