package cedar

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// unknownAge is that of a login nobody knows.
const unknownAge time.Duration = -1

// chain makes the chain that the case tells of. It is built and verified by
// package delegation like any other, but nobody signed it: it serves a question
// put to a policy set, and never a call.
func (c *Case) chain() (delegation.Chain, error) {
	var login time.Time
	if c.authAge != unknownAge {
		login = c.call.Now.Add(-c.authAge).Truncate(time.Second)
	}
	issued := c.call.Now.Truncate(time.Second)
	issuer := c.person.Issuer()
	party := func(a identity.Agent) identity.Party { return identity.Party{Issuer: issuer, Subject: a.String()} }
	var receipts []delegation.Receipt
	var actors []delegation.Actor
	var ancestors []string
	for k, a := range c.agents {
		actors = append([]delegation.Actor{{Party: party(a), Profile: delegation.ProfileAgent}}, actors...)
		hop := delegation.Hop{
			Audience: c.call.Call.Location, Person: c.person, Profile: delegation.ProfileUser, ClientID: a.String(),
			Actors: actors, Details: c.grants[k], ID: fmt.Sprintf("hop-%d", k), Depth: k, MaxDepth: delegation.MaxHops - 1,
			IssuedAt: issued, Expires: issued.Add(time.Hour),
		}
		if k == len(c.agents)-1 {
			leaf := delegation.Leaf{Issuer: issuer, Txn: "case", Hop: hop, Ancestors: ancestors, AuthTime: login, Hash: caseHash("leaf", k)}
			if k > 0 {
				leaf.ParentHash, leaf.ReceiptHash = receipts[k-1].TokenHash, receipts[k-1].Hash
			}
			return delegation.Verify(receipts, leaf, func(int) error { return nil })
		}
		hop.MayAct = party(c.agents[k+1])
		r := delegation.Receipt{Issuer: issuer, Txn: "case", Hop: hop, TokenHash: caseHash("token", k), Hash: caseHash("receipt", k)}
		if k == 0 {
			r.Login = delegation.Login{Issuer: issuer, Hash: caseHash("login", 0), AuthTime: login}
		} else {
			r.ParentHash, r.ReceiptHash = receipts[k-1].TokenHash, receipts[k-1].Hash
		}
		receipts, ancestors = append(receipts, r), append(ancestors, hop.ID)
	}
	return delegation.Chain{}, errors.New("no agent")
}

func caseHash(what string, k int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", what, k))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// grantsOf are grants of exactly one call, passed on whole by every hop. What
// is no call of scope's list, such as discovery, goes with any detail at its
// location.
func grantsOf(call scope.Call, hops int) ([]scope.Grant, error) {
	action, name := call.Action, call.Name
	if policy.KindOf(action) == policy.KindService {
		action, name = scope.A2ASend, "any"
	}
	detail := map[string]any{
		"type": scope.Type, "locations": []string{call.Location}, "actions": []string{action}, "names": []string{name},
	}
	for _, root := range scope.Roots(action) {
		if root == "/args" {
			detail["args"] = scope.ArgsOpen
		}
	}
	grants := make([]scope.Grant, hops)
	for k := range grants {
		if k > 0 {
			detail["from"] = 0
		}
		text, err := json.Marshal([]any{detail})
		if err != nil {
			return nil, err
		}
		if grants[k], err = scope.Parse(text, k == 0); err != nil {
			return nil, fmt.Errorf("call: %w", err)
		}
	}
	return grants, nil
}
