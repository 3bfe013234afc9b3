package sip

import (
	"strconv"
	"strings"
	"testing"
)

// odd are headers as nobody would write them, and as RFC 3261 allows them.
const odd = "sUbJeCt :   Hello\t World  \n" +
	"s: compact\n" +
	"X-Folded: one\n  two\n\tthree \n" +
	"k:\treplaces , 100rel\n" +
	"P-Asserted-Identity: \"A \\\" B\" <sip:a@b;x=%41>, <tel:+1>\n" +
	"Identity: aaaa.bbbb;info=<https://x>;alg=ES256\n" +
	"x-empty:\n" +
	"Refer-To: <sip:c@h;lr?Replaces=abc%3bto-tag%3D1>\n" +
	"History-Info: <sip:x@y>;index=1,\n <sip:z@y>;index=1.1\n" +
	"Allow: INVITE,ACK ,  newMethod\n" +
	"Date: Sat, 01 Jan 2000 00:00:00 GMT\n" +
	"X-Bytes: \xc3\xa4 \xff\n"

// without removes the headers that are ours to change, by the name as it stands in the line.
func without(m string, names ...string) string {
	head, body, _ := strings.Cut(m, "\r\n\r\n")
	var kept []string
	drop := false
	for _, line := range strings.SplitAfter(head+"\r\n", "\r\n") {
		if line == "" {
			continue
		}
		if line[0] != ' ' && line[0] != '\t' {
			name, _, _ := strings.Cut(line, ":")
			drop = false
			for _, n := range names {
				drop = drop || strings.EqualFold(strings.TrimSpace(name), n)
			}
		}
		if !drop {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept[1:], "") + "\r\n" + body
}

// TestBytesAreKept: what we do not change leaves as it came, in its order, in requests and responses.
func TestBytesAreKept(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		body := "opaque \x00 body\r\nwith no sdp"
		sent := crlf("INVITE sip:1000;phone-context=%2b1@198.51.100.1:5060;user=phone;transport=udp SIP/2.0\n"+
			"v: SIP/2.0/UDP 198.51.100.20:5060 ;branch=z9hG4bKx;rport\nVia: SIP/2.0/UDP 1.2.3.4;branch=z9hG4bKold\n"+
			odd+"mAx-FoRwArDs :  10\n"+
			"f: \"Alice, \\\"A\\\"\"  <sip:alice@example.com;x=1>\n ;tag=a1\n"+
			"TO : sip:1000@example.com\n"+
			"i:  c1@phone\n"+
			"cseq:   0001\n\tINVITE\n"+
			"m: \"Me\" <sip:me@198.51.100.20> ;+sip.instance=\"<urn:1>\";expires=5\n"+
			"c: application/x-thing;a=\"b\"\nl:  "+strconv.Itoa(len(body))+"\n\n") + body
		r.wire.carry(phoneAddr, outsideAddr, sent)
		phone.expect("100")
		got := string(pbx.expect("INVITE"))
		ours := []string{"via", "v", "m", "contact", "max-forwards"}
		if a, b := without(sent, ours...), without(got, ours...); a != b {
			t.Errorf("the request was changed:\n%q\n%q", a, b)
		}
		if line := text(got).line(); line != "INVITE sip:1000;phone-context=%2b1@10.9.0.2:5060;user=phone SIP/2.0" {
			t.Errorf("request line: %s", line)
		}
		if !strings.Contains(got, "\r\nmAx-FoRwArDs :  9\r\n") {
			t.Errorf("Max-Forwards:\n%s", got)
		}
		contact := "m: \"Me\" <" + text(got).contactOf("m") + "> ;+sip.instance=\"<urn:1>\";expires=5\r\n"
		if !strings.Contains(got, contact) || !strings.Contains(contact, "@10.9.0.1:5060") {
			t.Errorf("Contact:\n%s", got)
		}
		via := text(got).get("Via")
		res := crlf("SIP/2.0 200 Fine   by me\nVia: "+via+"\n"+odd+"f: \"Alice, \\\"A\\\"\"  <sip:alice@example.com;x=1>\n ;tag=a1\n"+
			"to: <sip:1000@example.com>;tag=b1\ni: c1@phone\nCSEQ: 1 INVITE\ncontact: sip:pbx@10.9.0.2;q=1\n"+
			"l:  "+strconv.Itoa(len(body))+"\n\n") + body
		r.wire.carry(pbxAddr, insideAddr, res)
		back := string(phone.expect("200"))
		if a, b := without(res, ours...), without(back, ours...); a != b {
			t.Errorf("the response was changed:\n%q\n%q", a, b)
		}
		if !strings.HasPrefix(back, "SIP/2.0 200 Fine   by me\r\nv: SIP/2.0/UDP 198.51.100.20:5060;branch=z9hG4bKx;rport=5060;received=198.51.100.20\r\nVia: SIP/2.0/UDP 1.2.3.4;branch=z9hG4bKold\r\n") {
			t.Errorf("Via of the response:\n%s", back)
		}
		if !strings.Contains(back, "\r\ncontact: <"+text(back).contact()+">;q=1\r\n") {
			t.Errorf("Contact of the response:\n%s", back)
		}
		a := &dialog{p: phone, callID: callID, local: "\"Alice, \\\"A\\\"\"  <sip:alice@example.com;x=1>;tag=a1", to: "<sip:1000@example.com>;tag=b1", target: text(back).contact(), cseq: 1, invite: 1}
		a.send("ACK", "", "")
		pbx.expect("ACK")
		a.send("oPtIoNs", odd, "")
		odder := string(pbx.expect("oPtIoNs"))
		if !strings.Contains(odder, crlf(odd)) {
			t.Errorf("request in the dialog:\n%s", odder)
		}
		pbx.answer(text(odder), 200, "", odd, "")
		if m := string(phone.expect("200")); !strings.Contains(m, crlf(odd)) {
			t.Errorf("response in the dialog:\n%s", m)
		}
		a.send("BYE", odd, "")
		bye := pbx.expect("BYE")
		if !strings.Contains(string(bye), crlf(odd)) {
			t.Errorf("BYE:\n%s", bye)
		}
		pbx.answer(bye, 200, "", "", "")
		phone.expect("200 BYE")
	})
}

func (m text) contactOf(name string) string {
	c := m.get(name)
	return c[strings.IndexByte(c, '<')+1 : strings.IndexByte(c, '>')]
}

// TestTrailingBytes: what follows the body within the datagram is not part of the message (RFC 3261 section 18.3).
func TestTrailingBytes(t *testing.T) {
	rigged(t, nil, func(r *rig) {
		phone, pbx := r.phone(), r.pbx()
		r.wire.carry(phoneAddr, outsideAddr, phone.inviteText("z9hG4bKx", 1, "", "")+"INVITE smuggled")
		phone.expect("100")
		inv := pbx.expect("INVITE")
		if strings.Contains(string(inv), "smuggled") {
			t.Errorf("INVITE:\n%s", inv)
		}
		pbx.answer(inv, 486, "b", "", "")
		phone.expect("486")
	})
}

func TestRewrite(t *testing.T) {
	m := &message{raw: crlf("INVITE sip:x SIP/2.0\nVia: SIP/2.0/UDP a;branch=1\nf: <sip:a@b>;tag=abc;x=abc\nTo: <sip:abc@d>\nCall-ID: 1\nCSeq: 7   INVITE\nRAck: 5  7\tINVITE\nContact: <sip:1>, <sip:2>\nContact: <sip:3>\nContent-Type: text/x\nContent-Length: 0003\n\n123")}
	if err := m.index(); err != nil {
		t.Fatal(err)
	}
	m.maxForwards = -1
	for _, c := range []struct {
		name, want string
		w          rewrite
	}{
		{"tags", "f: <sip:a@b>;tag=new;x=abc\r\nTo: <sip:abc@d>;tag=t\r\n", rewrite{maxForwards: -1, fromTag: "new", toTag: "t"}},
		{"Call-ID", "\r\nCall-ID: 2\r\n", rewrite{maxForwards: -1, callID: "2"}},
		{"CSeq", "\r\nCSeq: 12   INVITE\r\n", rewrite{maxForwards: -1, cseq: 12}},
		{"RAck", "\r\nRAck: 5 10 INVITE\r\n", rewrite{maxForwards: -1, rackOffset: 3}},
		{"one Contact of several", "\r\nContact: <sip:me>\r\nContent-Type", rewrite{maxForwards: -1, contact: "sip:me"}},
		{"body", "\r\nContent-Type: text/y\r\nContent-Length: 5\r\n\r\nhello", rewrite{maxForwards: -1, newBody: true, body: []byte("hello"), contentType: "text/y"}},
		{"missing Max-Forwards", "sip:x SIP/2.0\r\nV\r\nMax-Forwards: 70\r\n", rewrite{via: "V\r\n", maxForwards: 70}},
		{"routes", "V\r\nRoute: <r1>\r\nRoute: <r2>\r\nf:", rewrite{via: "V\r\n", maxForwards: -1, routes: []string{"<r1>", "<r2>"}}},
	} {
		if got := string(m.render(nil, &c.w)); !strings.Contains(got, c.want) {
			t.Errorf("%s: want %q in:\n%s", c.name, c.want, got)
		}
	}
}

func TestRetarget(t *testing.T) {
	for _, c := range []struct{ name, uri, want string }{
		{"plain", "sip:1000@old", "sip:1000@h:1"},
		{"user as written", "SIP:%41;x=y:pw@old:99", "sip:%41;x=y:pw@h:1"},
		{"no user", "sip:old;lr", "sip:h:1"},
		{"parameters stay", "sip:u@old;user=phone;foo=\"a;b\"", "sip:u@h:1;user=phone;foo=\"a;b\""},
		{"those of the way go", "sip:u@old;transport=tcp;maddr=1.2.3.4;ttl=3;x", "sip:u@h:1;x"},
		{"headers go", "sip:u@old;x?subject=a", "sip:u@h:1;x"},
		{"IPv6", "sip:u@[2001:db8::1]:5060;x", "sip:u@h:1;x"},
		{"tel", "tel:+49-1;phone-context=a", "sip:+49-1;phone-context=a@h:1;user=phone"},
	} {
		if got := retarget(c.uri, "h:1"); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestUnderstood: messages that are legal, though odd, are understood.
func TestUnderstood(t *testing.T) {
	// After RFC 4475 section 3.1.1.1: white space wherever the grammar allows it.
	m := &message{raw: crlf("INVITE sip:vivekg@chair.example.com;unknownparam SIP/2.0\nTO :\n sip:vivekg@chair.example.com ;   tag    = 1918181833n\n" +
		"from   : \"J Rosenberg \\\\\\\"\"       <sip:jdrosen@example.com>\n  ;\n  tag = 98asjd8\nMaX-fOrWaRdS: 0068\nCall-ID: wsinv.ndaksdj@192.0.2.1\n" +
		"Content-Length   : 0\ncseq: 0009\n  INVITE\nVia  : SIP  /   2.0\n /UDP\n    192.0.2.2:5071 ; branch = 390skdjuw\ns :\nNewFangledHeader:   x\n more\n" +
		"Contact:\n \"Quoted string \\\"\\\"\" <sip:jdrosen@example.com> ; newparam =\n      newvalue ;\n  secondparam ; q = 0.33\n\n")}
	if err := m.index(); err != nil {
		t.Fatal(err)
	}
	if _, f := m.check(newParser(), nil); f != nil {
		t.Fatalf("%d %s", f.status, f.reason)
	}
	if m.toTag != "1918181833n" || m.fromTag != "98asjd8" || m.cseq != 9 || m.maxForwards != 68 || m.topVia.branch != "390skdjuw" ||
		m.topVia.sentBy != "192.0.2.2:5071" || m.contact != "sip:jdrosen@example.com" || m.callID != "wsinv.ndaksdj@192.0.2.1" {
		t.Errorf("%+v", m)
	}
}
