package media

import "testing"

func TestParsePolicy(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   string // "": refused
	}{
		{nil, "auto"}, {[]string{""}, "auto"}, {[]string{"auto"}, "auto"}, {[]string{" sdp "}, "sdp"},
		{[]string{"signalling"}, "signalling"}, {[]string{"any"}, "any"},
		{[]string{"192.0.2.1"}, "192.0.2.1/32"}, {[]string{"192.0.2.0/24", "2001:db8::/32"}, "192.0.2.0/24,2001:db8::/32"},
		{[]string{"::ffff:192.0.2.1"}, "192.0.2.1/32"},
		{[]string{"SDP"}, ""}, {[]string{"sdp", "any"}, ""}, {[]string{"192.0.2.1/24"}, ""}, {[]string{"host.example"}, ""},
		{[]string{"192.0.2.0/24", ""}, ""}, {[]string{"fe80::1%eth0"}, ""}, {[]string{"::ffff:192.0.2.0/120"}, ""},
	} {
		p, err := ParsePolicy(c.values...)
		if c.want == "" {
			if err == nil {
				t.Errorf("%q is taken as %s", c.values, p)
			}
			continue
		}
		if err != nil || p.String() != c.want {
			t.Errorf("%q is %s, %v, want %s", c.values, p, err, c.want)
		}
		b, _ := p.MarshalText()
		var q Policy
		if err := q.UnmarshalText(b); err != nil || q.String() != c.want {
			t.Errorf("%s comes back as %s, %v", b, q, err)
		}
	}
	var p Policy
	if err := p.UnmarshalText([]byte("nonsense")); err == nil {
		t.Error("nonsense is a policy")
	}
}
