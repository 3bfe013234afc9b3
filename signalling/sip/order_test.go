package sip

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

// TestOrder: messages of one call keep their order, however fast they follow each other: 180 and 200, ACK and BYE, INVITE and
// CANCEL.
func TestOrder(t *testing.T) {
	rigged(t, func(c *Config) { c.Limits.Queue = 4096 }, func(r *rig) {
		r.stop()
		r.pairs = 2000
		r.boot(nil, 0)
		phone, pbx := r.phone(), r.pbx()
		const calls = 400
		text1 := func(method string, i, cseq int, uri, to, branch, extra, body string) string {
			return phone.requestVia(branch, method, uri, fmt.Sprintf("<sip:a@x>;tag=a%d", i), to, fmt.Sprintf("call-%d", i), cseq, extra, body)
		}
		body := description("198.51.100.20", 4000)
		for i := range calls {
			inv := text1("INVITE", i, 1, "sip:1@198.51.100.1", "<sip:1@x>", fmt.Sprintf("z9hG4bKi%d", i), phone.contactLine(), body)
			phone.send(inv)
			if i%4 == 3 {
				phone.send(text1("CANCEL", i, 1, "sip:1@198.51.100.1", "<sip:1@x>", fmt.Sprintf("z9hG4bKi%d", i), "", ""))
			}
		}
		synctest.Wait()
		take := func(p *peer) []text {
			synctest.Wait()
			var all []text
			for len(p.conn.in) > 0 {
				all = append(all, text((<-p.conn.in).b))
			}
			return all
		}
		for _, m := range take(pbx) {
			if !m.is("INVITE") {
				t.Fatalf("before any answer: %s", m)
			}
			pbx.answer(m, 180, "b", pbx.contactLine(), "")
			pbx.answer(m, 200, "b", pbx.contactLine(), description("10.9.0.2", 6000))
		}
		order := map[string]string{}
		contacts := map[string]text{}
		for _, m := range take(phone) {
			order[m.get("Call-ID")] += fmt.Sprintf(" %d", m.status())
			if m.is("200 INVITE") {
				contacts[m.get("Call-ID")] = m
			}
		}
		for i := range calls {
			id := fmt.Sprintf("call-%d", i)
			want := " 100 180 200"
			if i%4 == 3 {
				want = " 100 200 487"
			}
			if order[id] != want {
				t.Errorf("%s: got%s, want%s", id, order[id], want)
			}
			if res, ok := contacts[id]; ok {
				phone.send(text1("ACK", i, 1, res.contact(), res.get("To"), id+"ack", "", ""))
				phone.send(text1("BYE", i, 2, res.contact(), res.get("To"), id+"bye", "", ""))
			}
		}
		order = map[string]string{}
		for _, m := range take(pbx) {
			order[m.get("Call-ID")] += " " + m.method()
			if m.is("BYE") {
				pbx.answer(m, 200, "", "", "")
			}
		}
		for i := range calls {
			// What was cancelled answered all the same: ACK, BYE of our own.
			if got := order[fmt.Sprintf("call-%d", i)]; !strings.HasPrefix(got, " ACK BYE") && !strings.HasPrefix(got, " CANCEL ACK BYE") {
				t.Errorf("call %d: got%s", i, got)
			}
		}
		take(phone)
	})
}
