package demo

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/internal/unverified"
	"github.com/lineal-auth/lineal/token"
)

// loot is what an attacker finds in the memory of the agents after a question.
type loot struct {
	research exchange // research to the database agent
	query    exchange // the database agent to the tool
	crm      exchange // the orchestrator to the CRM
	direct   string   // the orchestrator's own token for the database

	leaf     token.Verified // the query's token, verified, with its receipts
	crmUntil time.Time
}

// anyUse verifies a token for no use at all.
var anyUse = token.Want{Audience: token.AnyAudience, Binding: token.BindingUnchecked}

// takeLoot takes the tokens of the question just answered.
func (w *world) takeLoot(ctx context.Context) (loot, error) {
	p := w.places
	l := loot{
		research: w.agents[nameResearch].tap.at(p.agent(nameDatabase)),
		query:    w.agents[nameDatabase].tap.at(p.mcp(routeDB)),
		crm:      w.agents[nameOrchestrator].tap.at(p.mcp(routeCRM)),
	}
	// The receipts: the database agent may read those of the delegation that
	// was given to it, and they are the ones that its own token builds on.
	thief := w.agents[nameDatabase]
	jti, err := claim(l.research.token, "jti")
	if err != nil {
		return l, err
	}
	hash, err := token.HashOf(l.research.token)
	if err != nil {
		return l, err
	}
	chains := token.NewRemoteChains(token.RemoteConfig{HTTP: thief.tokens, Now: w.opts.Now})
	receipts, err := chains.Chain(ctx, w.issuer, jti)
	if err != nil {
		return l, err
	}
	if _, err := thief.verifier.VerifyClosed(ctx, receipts, hash); err != nil {
		return l, err
	}
	if l.leaf, err = thief.verifier.Verify(ctx, l.query.token, anyUse); err != nil {
		return l, err
	}
	if l.direct, err = w.takeDirect(ctx); err != nil {
		return l, err
	}
	crm, err := claims(l.crm.token)
	if err != nil {
		return l, err
	}
	if l.crmUntil, err = unverified.Expiry(crm); err != nil {
		return l, fmt.Errorf("the CRM's token: %w", err)
	}
	return l, nil
}

// takeDirect gets the token that the orchestrator could have for the database:
// it holds "read database", to hand it on.
func (w *world) takeDirect(ctx context.Context) (string, error) {
	orchestrator := w.agents[nameOrchestrator].lineal
	root := w.agents[nameApp].tap.at(w.places.agent(nameOrchestrator))
	d, err := orchestrator.Accept(ctx, root.token, root.id)
	if err != nil {
		return "", err
	}
	t, err := orchestrator.Exchange(ctx, d, client.Call{Audience: w.places.mcp(routeDB), Details: details(w.places.readDatabase())})
	return string(t.Raw), err
}

// attacks is the list, in the order of the story. mine is Alice's question,
// other is Lee's.
func (w *world) attacks(mine, other loot) ([]attack, error) {
	spliced, forged, err := w.splice(mine, other)
	if err != nil {
		return nil, err
	}
	stranger := w.newStranger()
	w.atClose(func(context.Context) error { stranger.CloseIdleConnections(); return nil })
	all := w.stolenTokens(mine, stranger)
	all = append(all, w.broken(mine, spliced, forged)...)
	all = append(all, w.tooFar(mine)...)
	return append(all, w.late(mine)), nil
}

// euCustomers are arguments within the delegated bounds, changed by a copy.
func euCustomers(change map[string]any) map[string]any {
	args := map[string]any{"table": "customers", "columns": []string{"id", "name"}, "where": map[string]any{"region": "EU"}, "limit": 10}
	maps.Copy(args, change)
	return args
}

// query tries the database tool with a token, as somebody on a connection.
func (w *world) query(c *http.Client, raw string, change map[string]any) func(context.Context) (attempt, error) {
	return w.tool(c, raw, toolQuery, euCustomers(change))
}

func (w *world) tool(c *http.Client, raw, tool string, args any) func(context.Context) (attempt, error) {
	return func(ctx context.Context) (attempt, error) {
		return callWith(ctx, c, w.places.mcp(routeDB), raw, tool, args)
	}
}

// stolenTokens are attacks with tokens in the wrong hands, or none.
func (w *world) stolenTokens(mine loot, stranger *http.Client) []attack {
	intruder := w.agents[nameIntruder]
	return []attack{
		{
			name: "stolen-token", text: "Another agent presents the database agent's token, on its own connection",
			try:  w.query(intruder.gateway, mine.query.token, nil),
			want: wanted{status: 401, code: "proof_invalid", reason: "binding_mismatch", claimed: nameDatabase, proven: nameIntruder},
		},
		{
			name: "leaked-token", text: "A process without the key presents the same token, leaked from a log",
			try:  w.query(stranger, mine.query.token, nil),
			want: wanted{status: 401, code: "proof_invalid", reason: "binding_missing", claimed: nameDatabase},
		},
		{
			name: "no-token", text: "The intruder calls the tool with no token at all",
			try:  w.query(intruder.gateway, "", nil),
			want: wanted{status: 401, code: "token_missing", reason: "token_missing", proven: nameIntruder},
		},
		{
			name: "stolen-delegation", text: "The intruder exchanges the delegation that was meant for the database agent",
			try: func(ctx context.Context) (attempt, error) {
				return exchangeFor(ctx, intruder.tokens, w.issuer, mine.research.token, w.places.mcp(routeDB), `[`+withFrom(w.places.readDatabase(), 1)+`]`)
			},
			want: wanted{status: 401, code: "invalid_client", reason: "client_unknown", exchange: true},
		},
	}
}

// broken are attacks with tokens that are none, or not what they say.
func (w *world) broken(mine loot, spliced, forged string) []attack {
	database := w.agents[nameDatabase]
	want := func(reason, claimed string) wanted {
		return wanted{status: 401, code: "token_invalid", reason: reason, claimed: claimed, proven: nameDatabase}
	}
	return []attack{
		{
			name: "spliced-chain", text: "A token service that skips its checks puts Alice's token on top of Lee's delegations",
			try: w.query(database.gateway, spliced, nil), want: want("chain_link", ""),
		},
		{
			name: "forged-chain", text: "The database agent signs such a token itself, with a key of its own under the name of the issuer's",
			try: w.query(database.gateway, forged, nil), want: want("signature_invalid", ""),
		},
		{
			name: "receipt-as-token", text: "The database agent presents a receipt in the place of a token",
			try: w.query(database.gateway, mine.leaf.Receipts[len(mine.leaf.Receipts)-1], nil), want: want("token_type", ""),
		},
	}
}

// tooFar are attacks with good tokens that reach beyond what was delegated.
func (w *world) tooFar(mine loot) []attack {
	database, research, orchestrator := w.agents[nameDatabase], w.agents[nameResearch], w.agents[nameOrchestrator]
	denied := func(reason string) wanted {
		return wanted{status: 200, code: "policy_denied", reason: reason, claimed: nameDatabase, proven: nameDatabase}
	}
	unapproved := denied("scope_exceeded")
	unapproved.policyDenies = true
	past := denied("policy_denied")
	past.claimed, past.proven = nameOrchestrator, nameOrchestrator
	past.policyDenies = true
	return []attack{
		{
			name: "wider-exchange", text: "The database agent, which was given “read database”, asks the token service for “read CRM” on top",
			try: func(ctx context.Context) (attempt, error) {
				return exchangeFor(ctx, database.tokens, w.issuer, mine.research.token, w.places.mcp(routeCRM), `[`+withFrom(w.places.readCRM(), 0)+`]`)
			},
			want: wanted{status: 400, code: "invalid_authorization_details", reason: "details_widened", exchange: true},
		},
		{
			name: "other-table", text: "The database agent asks for table orders, with the token for table customers",
			try:  w.query(database.gateway, mine.query.token, map[string]any{"table": "orders", "columns": []string{"id"}}),
			want: denied("scope_exceeded"),
		},
		{
			name: "other-region", text: "The database agent asks for region US, with Alice's token for region EU",
			try:  w.query(database.gateway, mine.query.token, map[string]any{"where": map[string]any{"region": "US"}}),
			want: denied("scope_exceeded"),
		},
		{
			name: "too-many-rows", text: fmt.Sprintf("The database agent asks for %d rows, with the token for at most %d", maxRows+1, maxRows),
			try:  w.query(database.gateway, mine.query.token, map[string]any{"limit": maxRows + 1}),
			want: denied("scope_exceeded"),
		},
		{
			name: "unapproved-tool", text: "The database agent calls the tool export, which the server offers and nobody approved",
			try:  w.tool(database.gateway, mine.query.token, toolExport, map[string]any{"table": "customers"}),
			want: unapproved,
		},
		{
			name: "undelegated-callee", text: "Research, which was given “read database”, takes its token to the CRM",
			try: func(ctx context.Context) (attempt, error) {
				return callWith(ctx, research.gateway, w.places.mcp(routeCRM), mine.research.token, toolLookup, map[string]any{"customer": "C-0001"})
			},
			want: wanted{status: 401, code: "token_invalid", reason: "audience_mismatch", proven: nameResearch},
		},
		{
			name: "around-research", text: "The orchestrator, which holds “read database” too, asks the database past research: scope permits, policy forbids",
			try:  w.query(orchestrator.gateway, mine.direct, nil),
			want: past,
		},
	}
}

// late is the attack that must wait for a token to end.
func (w *world) late(mine loot) attack {
	orchestrator := w.agents[nameOrchestrator]
	return attack{
		name: "expired-token", text: fmt.Sprintf("The orchestrator presents its token for the CRM again, after the end of its %s", crmLifetime),
		try: func(ctx context.Context) (attempt, error) {
			return callWith(ctx, orchestrator.gateway, w.places.mcp(routeCRM), mine.crm.token, toolLookup, map[string]any{"customer": "C-0001"})
		},
		want:  wanted{status: 401, code: "token_expired", reason: "token_expired", proven: nameOrchestrator},
		after: mine.crmUntil.Add(clockLeeway + 200*time.Millisecond),
	}
}

// withFrom adds the witness of a later hop to a line of authority.
func withFrom(line string, from int) string {
	return fmt.Sprintf(`%s,"from":%d}`, line[:len(line)-1], from)
}

// splice makes two tokens that put Alice's leaf on top of Lee's receipts. The
// first is signed with the issuer's own key, as by a token service that skips
// its checks; the second with a key of the attacker's, under the same name.
func (w *world) splice(mine, other loot) (spliced, forged string, err error) {
	key, err := readIssuerKey(w.dir)
	if err != nil {
		return "", "", err
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	genuine, err := token.NewES256("", key)
	if err != nil {
		return "", "", err
	}
	leaf := mine.leaf.Leaf
	leaf.ReceiptHash = other.leaf.Leaf.ReceiptHash
	sign := func(key *ecdsa.PrivateKey) (string, error) {
		signer, err := token.NewES256(genuine.KeyID(), key)
		if err != nil {
			return "", err
		}
		issuer, err := token.NewIssuer(w.issuer, signer)
		if err != nil {
			return "", err
		}
		signed, err := issuer.SignToken(leaf, other.leaf.Receipts)
		return string(signed.Raw), err
	}
	if spliced, err = sign(key); err != nil {
		return "", "", fmt.Errorf("splicing: %w", err)
	}
	if forged, err = sign(own); err != nil {
		return "", "", fmt.Errorf("forging: %w", err)
	}
	return spliced, forged, nil
}

// readIssuerKey reads the key of the deployment's token service from its file.
func readIssuerKey(dataDir string) (*ecdsa.PrivateKey, error) {
	text, err := os.ReadFile(filepath.Join(dataDir, "keys", "issuer.key")) //nolint:gosec // the demo's own directory
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("reading issuer key: no PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading issuer key: %w", err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("reading issuer key: not an ECDSA key")
	}
	return ec, nil
}
