package sip

import (
	"net/netip"
	"strings"

	sipgo "github.com/emiago/sipgo/sip"
)

// defaultPort is the port of a SIP URI over UDP that names none.
const defaultPort = 5060

// uriUser returns the user part of a SIP URI as written, with a password if there is one; "" if there is none.
func uriUser(uri string) string {
	rest, ok := cutScheme(uri, "sip:")
	if !ok {
		return ""
	}
	if i := strings.IndexByte(rest, '@'); i >= 0 {
		return rest[:i]
	}
	return ""
}

func cutScheme(uri, scheme string) (string, bool) {
	if len(uri) < len(scheme) || !strings.EqualFold(uri[:len(scheme)], scheme) {
		return "", false
	}
	return uri[len(scheme):], true
}

// retarget makes the Request-URI for the next hop: the user part stays as written, host and port become those of the hop. Parameters
// that steer the way to the old host go, and so do headers, which no Request-URI may carry (RFC 3261 section 19.1.1).
// A tel URI becomes a SIP URI with user=phone (section 19.1.6).
func retarget(uri, hostPort string) string {
	if number, ok := cutScheme(uri, "tel:"); ok {
		return "sip:" + number + "@" + hostPort + ";user=phone"
	}
	rest, _ := cutScheme(uri, "sip:")
	user := ""
	if i := strings.IndexByte(rest, '@'); i >= 0 {
		user, rest = rest[:i+1], rest[i+1:]
	}
	params := ""
	if i := strings.IndexByte(rest, ';'); i >= 0 {
		params = rest[i:]
	}
	if i := strings.IndexByte(params, '?'); i >= 0 {
		params = params[:i]
	}
	for _, name := range [...]string{"transport", "maddr", "ttl", "lr"} {
		params = withoutParameter(params, name)
	}
	return "sip:" + user + hostPort + params
}

// hostOf parses a URI and returns its host as an address with port, if the host is one and not a name.
func hostOf(uri string) (netip.AddrPort, bool) {
	var u sipgo.Uri
	if sipgo.ParseUri(uri, &u) != nil {
		return netip.AddrPort{}, false
	}
	return uriAddr(&u)
}

func uriAddr(u *sipgo.Uri) (netip.AddrPort, bool) {
	host := u.Host
	if strings.HasPrefix(host, "[") {
		host = strings.Trim(host, "[]")
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" || u.Port < 0 || u.Port > 65535 {
		return netip.AddrPort{}, false
	}
	port := u.Port
	if port == 0 {
		port = defaultPort
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), true
}

// isLoose reports whether a Route element asks for loose routing (RFC 3261 section 16.12).
func isLoose(route string) bool {
	uri := parseAddress(route).uri
	if i := strings.IndexByte(uri, '@'); i >= 0 {
		uri = uri[i:]
	}
	if i := strings.IndexByte(uri, '?'); i >= 0 {
		uri = uri[:i]
	}
	i := strings.IndexByte(uri, ';')
	if i < 0 {
		return false
	}
	_, ok := parameter(uri[i:], "lr")
	return ok
}

// routed returns the Request-URI and the Route elements of a request in a dialog (RFC 3261 section 12.2.1.1), and the URI
// to whose host it is sent.
func routed(target string, routes []string) (uri string, route []string, next string) {
	switch {
	case len(routes) == 0:
		return target, nil, target
	case isLoose(routes[0]):
		return target, routes, parseAddress(routes[0]).uri
	}
	first := parseAddress(routes[0]).uri
	route = append(append(make([]string, 0, len(routes)), routes[1:]...), "<"+target+">")
	uri, _, _ = strings.Cut(first, "?")
	return uri, route, first
}
