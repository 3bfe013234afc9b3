package media

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// phone is a description and what becomes of it, three bytes shorter.
func phone() (in, out string) {
	in = text("v=0", "o=- 1 1 IN IP4 x", "s=-", "c=IN IP4 198.51.100.20", "t=0 0", "m=audio 4000 RTP/AVP 0")
	out = text("v=0", "o=- 1 1 IN IP4 x", "s=-", "c=IN IP4 10.0.0.1", "t=0 0", "m=audio 20000 RTP/AVP 0")
	return in, out
}

func TestBody(t *testing.T) {
	in, out := phone()
	// part is a whole multipart body with a location beside the description.
	part := func(headers, sdp string) string {
		return "preamble\r\n--b1\r\nContent-Type: application/pidf+xml\r\nContent-ID: <a@b>\r\n\r\n<presence>v=0 --b1</presence>\r\n--b1\r\n" +
			headers + "\r\n" + sdp + "\r\n--b1--\r\nepilogue --b1\r\n--b1\r\nContent-Type: application/sdp\r\n\r\nnot a part"
	}
	length := func(s string, off int) string { return fmt.Sprintf("Content-Length:  %d \r\n", len(s)+off) }
	const sdpType = "Content-Type: application/sdp\r\n"
	for _, c := range []struct{ name, kind, in, want string }{
		{"plain", "application/sdp", in, out},
		{"case, blanks and parameters do not matter", " Application/SDP ;charset=utf-8", in, out},
		{"folded", "application/sdp;\r\n charset=utf-8", in, out},
		{"no type, but a description", "", in, out},
		{"no type, no description", "", "hello", "hello"},
		{"no body", "application/sdp", "", ""},
		{"another type", "application/dtmf-relay", in, in},
		{"a type that begins alike", "application/sdpfrag", in, in},
		{"multipart", "multipart/mixed;boundary=b1", part(sdpType, in), part(sdpType, out)},
		{"boundary quoted, in another parameter's company", `Multipart/Mixed; start="<x;boundary=no>"; x; Boundary="b1"`, part(sdpType, in), part(sdpType, out)},
		{"boundary with an escape", `multipart/mixed; boundary="b\1"`, part(sdpType, in), part(sdpType, out)},
		{"length of the part", "multipart/mixed;boundary=b1", part(sdpType+length(in, 0), in), part(sdpType+length(out, 0), out)},
		{"length that counts the line end of the boundary", "multipart/mixed;boundary=b1", part(length(in, 2)+sdpType, in), part(length(out, 2)+sdpType, out)},
		{"wrong length", "multipart/mixed;boundary=b1", part(sdpType+length(in, 77), in), part(sdpType+length(out, 0), out)},
		{"length that is no number", "multipart/mixed;boundary=b1", part("Content-Length: x\r\n"+sdpType, in), part("Content-Length: x\r\n"+sdpType, out)},
		{"compact and folded headers of the part", "multipart/mixed;boundary=b1", part("c:\r\n application/sdp\r\n;x=y\r\nl:\r\n\t"+fmt.Sprint(len(in))+"\r\n", in),
			part("c:\r\n application/sdp\r\n;x=y\r\nl:\r\n\t"+fmt.Sprint(len(out))+"\r\n", out)},
		{"encodings that are none", "multipart/mixed;boundary=b1", part(sdpType+"Content-Transfer-Encoding: 8BIT\r\nContent-Encoding: identity\r\n", in),
			part(sdpType+"Content-Transfer-Encoding: 8BIT\r\nContent-Encoding: identity\r\n", out)},
		{"disposition session", "multipart/mixed;boundary=b1", part(sdpType+"Content-Disposition: Session;handling=required\r\n", in),
			part(sdpType+"Content-Disposition: Session;handling=required\r\n", out)},
		{"an early session is not the session (RFC 3959)", "multipart/mixed;boundary=b1", part(sdpType+"Content-Disposition: early-session\r\n", in),
			part(sdpType+"Content-Disposition: early-session\r\n", in)},
		{"a part without headers is plain text", "multipart/mixed;boundary=b1", part("", in), part("", in)},
		{"line ends are LF", "multipart/mixed;boundary=b1", strings.ReplaceAll(part(sdpType, in), "\r\n", "\n"), strings.ReplaceAll(part(sdpType, out), "\r\n", "\n")},
		{"boundary with trailing blanks", "multipart/mixed;boundary=b1", "--b1 \t\r\n" + sdpType + "\r\n" + in + "\r\n--b1-- \r\n", "--b1 \t\r\n" + sdpType + "\r\n" + out + "\r\n--b1-- \r\n"},
		{"a longer boundary is another", "multipart/mixed;boundary=b", part(sdpType, in), part(sdpType, in)},
		{"boundary in another case is another", "multipart/mixed;boundary=B1", part(sdpType, in), part(sdpType, in)},
		{"unquoted boundary against the grammar", "multipart/mixed;boundary=--=_b:1; x=y", "----=_b:1\r\n" + sdpType + "\r\n" + in + "\r\n----=_b:1--", "----=_b:1\r\n" + sdpType + "\r\n" + out + "\r\n----=_b:1--"},
		{"closing boundary missing", "multipart/mixed;boundary=b1", "--b1\r\n" + sdpType + "\r\n" + in, "--b1\r\n" + sdpType + "\r\n" + out},
		{"no boundary parameter", "multipart/mixed", part(sdpType, in), part(sdpType, in)},
		{"empty part", "multipart/mixed;boundary=b1", "--b1\r\n" + sdpType + "\r\n\r\n--b1--", "--b1\r\n" + sdpType + "\r\n\r\n--b1--"},
		{"part that ends in its headers", "multipart/mixed;boundary=b1", "--b1\r\n--b1\r\nContent-Type: application/sdp\r\n--b1--", "--b1\r\n--b1\r\nContent-Type: application/sdp\r\n--b1--"},
		{"one multipart in another, both with lengths", "multipart/mixed;boundary=out", nested(in, 0), nested(out, 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newCall(t)
			b := Body{ContentType: c.kind, Data: []byte(c.in)}
			if has := HasSDP(b); has != (strings.Contains(c.want, "20000")) {
				t.Errorf("has a description: %t", has)
			}
			got, err := k.engine.Offer(k.ports, k.session, k.a, k.b, b)
			if err != nil {
				t.Fatal(err)
			}
			k.expect(string(got.Data), c.want)
			if got.ContentType != c.kind || string(b.Data) != c.in {
				t.Errorf("type %q, input %q", got.ContentType, b.Data)
			}
			if c.in == c.want && len(k.session.Parties) != 0 {
				t.Errorf("a session was made: %+v", k.session)
			}
		})
	}
}

// nested is a description in a multipart in a multipart, each part with its length.
func nested(sdp string, depth int) string {
	inner := fmt.Sprintf("--in\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s\r\n--in--\r\n", len(sdp), sdp)
	return fmt.Sprintf("--out\r\nContent-Type: multipart/alternative; boundary=in\r\nContent-Length: %d\r\n\r\n%s\r\n--out--\r\n", len(inner), inner)
}

func TestBodyRefused(t *testing.T) {
	in, _ := phone()
	sdp := "--b1\r\nContent-Type: application/sdp\r\n\r\n" + in + "\r\n"
	deep, kind := sdp, "multipart/mixed;boundary=b1"
	for i := range maxDepth + 1 {
		deep = fmt.Sprintf("--d%d\r\nContent-Type: %s\r\n\r\n%s\r\n", i, kind, deep)
		kind = fmt.Sprintf("multipart/mixed;boundary=d%d", i)
	}
	for _, c := range []struct{ name, kind, in string }{
		{"two descriptions", "multipart/mixed;boundary=b1", sdp + sdp + "--b1--"},
		{"base64", "multipart/mixed;boundary=b1", "--b1\r\nContent-Type: application/sdp\r\nContent-Transfer-Encoding: base64\r\n\r\ndj0w\r\n--b1--"},
		{"gzip", "multipart/mixed;boundary=b1", "--b1\r\nContent-Type: application/sdp\r\nContent-Encoding: gzip\r\n\r\n???\r\n--b1--"},
		{"too many parts", "multipart/mixed;boundary=b1", strings.Repeat("--b1\r\n\r\nx\r\n", maxParts) + sdp},
		{"too deep", kind, deep},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newCall(t)
			b := Body{ContentType: c.kind, Data: []byte(c.in)}
			if !HasSDP(b) {
				t.Error("has no description")
			}
			if got, err := k.engine.Offer(k.ports, k.session, k.a, k.b, b); !errors.Is(err, ErrUnacceptable) {
				t.Errorf("error %v, %q", err, got.Data)
			}
		})
	}
}
