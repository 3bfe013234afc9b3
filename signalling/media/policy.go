package media

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

type policyKind uint8

const (
	policyAuto policyKind = iota
	policySDP
	policySignalling
	policyAny
	policyNets
)

var policyNames = [...]string{"auto", "sdp", "signalling", "any"}

// Policy says from where a party's media may come (the trunk key media_source). The zero value is auto.
//
//   - auto: sdp or signalling, decided per m= line; see Engine.Offer.
//   - sdp: the address that the party's description gives.
//   - signalling: the address from which the message with the description came.
//   - any: every address.
//   - a list of networks.
type Policy struct {
	kind policyKind
	nets []netip.Prefix
}

// ParsePolicy reads one of the words auto, sdp, signalling and any, or a list of prefixes or plain addresses.
// No value, or one empty value, is auto.
func ParsePolicy(values ...string) (Policy, error) {
	if len(values) == 0 || len(values) == 1 && strings.TrimSpace(values[0]) == "" {
		return Policy{}, nil
	}
	if len(values) == 1 {
		if i := slices.Index(policyNames[:], strings.TrimSpace(values[0])); i >= 0 {
			return Policy{kind: policyKind(i)}, nil
		}
	}
	p := Policy{kind: policyNets}
	for _, v := range values {
		n, err := parsePrefix(strings.TrimSpace(v))
		if err != nil {
			return Policy{}, err
		}
		p.nets = append(p.nets, n)
	}
	return p, nil
}

func parsePrefix(v string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(v); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	n, err := netip.ParsePrefix(v)
	if err != nil || n.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("media source %q is none of auto, sdp, signalling, any, and no network", v)
	}
	if n != n.Masked() {
		return netip.Prefix{}, fmt.Errorf("media source %q has host bits set: write %s", v, n.Masked())
	}
	return n, nil
}

// String returns the word, or the networks joined by commas.
func (p Policy) String() string {
	if p.kind != policyNets {
		return policyNames[p.kind]
	}
	var b strings.Builder
	for i, n := range p.nets {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(n.String())
	}
	return b.String()
}

// MarshalText returns String.
func (p Policy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *Policy) UnmarshalText(b []byte) error {
	v, err := ParsePolicy(strings.Split(string(b), ",")...)
	if err == nil {
		*p = v
	}
	return err
}
