package scope

import (
	"errors"
	"testing"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// FuzzParseGrant reads the details of a parent and a child. Nothing panics;
// what is accepted is re-serialised to what parses to itself; narrowing and
// deciding agree with each other.
func FuzzParseGrant(f *testing.F) {
	for _, pair := range [][3]string{
		{exampleT0, exampleT1, `{}`},
		{exampleT1, exampleT2, `{"customer_id":"C-4711"}`},
		{grantOrchestrator, grantRead, `{"query":"x"}`},
		{grantPay, grantPay, `{"amount":5,"currency":"EUR"}`},
		{grantPeer, grantPeer, `[]`},
		{at(`{"op":"cidr","prefixes":["10.0.0.0/8"]}`), at(`{"op":"host","value":"*.a.b"}`), `{"x":"10.0.0.1"}`},
		{at(`{"op":"path","value":"/data"}`), at(`{"op":"one_of","values":["/data/x",1e0]}`), `{"x":"/data/x"}`},
		{at(`{"op":"each","max_items":2,"of":{"op":"prefix","value":"a"}}`), at(`{"op":"absent"}`), `{"x":["ab"]}`},
	} {
		f.Add([]byte(pair[0]), []byte(pair[1]), []byte(pair[2]))
	}
	f.Fuzz(func(t *testing.T, parent, child, args []byte) {
		p, perr := Parse(parent, true)
		if perr != nil {
			p, perr = Parse(parent, false)
		}
		c, cerr := Parse(child, false)
		for _, err := range []error{perr, cerr} {
			var bad *MalformedError
			if err != nil && !errors.As(err, &bad) {
				t.Fatalf("untyped error %v", err)
			}
		}
		for _, g := range []Grant{p, c} {
			if g.IsZero() {
				continue
			}
			_, hop := g.Details()[0].From()
			raw, err := g.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Parse(raw, !hop)
			if err != nil || !again.Equal(g) || again.Scope() != g.Scope() {
				t.Fatalf("%s does not parse to itself: %v", raw, err)
			}
			if err := CheckScope(g.Scope(), g); err != nil {
				t.Fatal(err)
			}
			// A grant that names itself detail by detail is within itself.
			for i := range g.details {
				if err := g.details[i].within(&g.details[i]); err != nil {
					t.Fatalf("%s is not within itself: %v", raw, err)
				}
			}
		}
		v, err := strictjson.Parse(args, strictjson.Limits{})
		if err != nil || c.IsZero() || p.IsZero() {
			return
		}
		below := Subsumes(p, c) == nil
		for _, d := range c.Details() {
			call := Call{Location: d.locations[0], Action: d.actions[0], Name: d.names[0]}
			for r := range numRoots {
				if actions[call.Action].roots.has(r) {
					call.Doc.Set("/"+rootNames[r], v)
				}
			}
			inC, inP := c.Permits(call), p.Permits(call)
			if below && inC.Permitted() && !inP.Permitted() {
				t.Fatalf("unsound: %s below %s on %s", child, parent, args)
			}
			if !inC.Permitted() && len(inC.Failures) == 0 {
				t.Fatal("a refusal without failure")
			}
			if inC.Permitted() && !c.Covers(call.Location, call.Action, call.Name) {
				t.Fatal("permitted, not covered")
			}
		}
	})
}
