package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/internal/devidp"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/internal/unverified"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/search"
)

// maxRows is how many rows the database agent lets itself have.
const maxRows = 100

// person is someone who asks.
type person struct {
	name, username, password string
	task                     task
}

var (
	alice = person{
		name: "Alice", username: "alice@example.com", password: "alice",
		task: task{Question: "How are our customers in the EU doing, and what do we know of C-0001?", Region: "EU", Customer: "C-0001"},
	}
	lee = person{
		name: "Lee", username: "lee@example.com", password: "lee",
		task: task{Question: "And our customers in the US, and C-0002?", Region: "US", Customer: "C-0002"},
	}
)

// signIn logs a person in at the application, by a code flow with PKCE.
func (w *world) signIn(ctx context.Context, p person) (idToken string, err error) {
	if idToken, err = w.signInAt(ctx, nameApp, p); err != nil {
		return "", err
	}
	w.tell(Event{Type: TypeLogin, Person: p.name, Text: fmt.Sprintf(
		"%s signed in at the application %s: authorization code flow with PKCE, in a browser of the demo's own.", p.name, nameApp)})
	return idToken, nil
}

func (w *world) signInAt(ctx context.Context, application string, p person) (idToken string, err error) {
	hc := newPlainClient()
	defer hc.CloseIdleConnections()
	login, err := devidp.Login(ctx, hc, devidp.LoginConfig{
		Issuer: w.idp.Issuer(), ClientID: application, RedirectURI: redirect, Username: p.username, Password: p.password, Now: w.opts.Now,
	})
	return login.IDToken, err
}

// authorise exchanges the login for the root of a chain: what the orchestrator
// may do for this person.
func (w *world) authorise(ctx context.Context, p person, idToken string) (client.Token, error) {
	at := w.places
	root, err := w.agents[nameApp].lineal.Root(ctx, idToken, client.Call{
		Audience: at.agent(nameOrchestrator),
		Details:  details(at.askAgents(nameOrchestrator, nameResearch, nameDatabase), at.readCRM(), at.readDatabase(), at.callModel()),
	})
	if err != nil {
		return client.Token{}, err
	}
	ref, err := claim(string(root.Raw), "sub")
	if err != nil {
		return client.Token{}, err
	}
	w.mu.Lock()
	w.people[ref] = p.name
	w.mu.Unlock()
	held := w.places.authority(root.Details)
	w.tell(Event{
		Type: TypeRoot, Person: p.name, Chain: []string{nameApp}, Callee: nameOrchestrator, Authority: held, Decision: permitted,
		Text: fmt.Sprintf("%s authorised %s, through %s, with %s, and to hand work to %s and %s: %s. In tokens and records %s is a random reference.",
			p.name, nameOrchestrator, nameApp, duties(held), nameResearch, nameDatabase, permitted, p.name),
	})
	return root, nil
}

// question runs one person's question to its answer, which is told from
// chapter next on.
func (w *world) question(ctx context.Context, p person, next int) error {
	idToken, err := w.signIn(ctx, p)
	if err != nil {
		return err
	}
	root, err := w.authorise(ctx, p, idToken)
	if err != nil {
		return err
	}
	w.chapter(next)
	answer, err := w.agents[nameApp].hand(client.WithToken(ctx, root), w.places.agent(nameOrchestrator), p.task)
	if err := errors.Join(err, w.problemsSoFar()); err != nil {
		return err
	}
	w.tell(Event{Type: TypeAnswer, Person: p.name, Callee: nameApp, Text: fmt.Sprintf("%s reads: %s", p.name, answer)})
	return nil
}

// orchestrate is the orchestrator's work: it asks the CRM, has the rest found
// out, and lets the model put it into words.
func (w *world) orchestrate(ctx context.Context, call string, t task) (string, error) {
	if err := w.arrived(ctx, call, nameOrchestrator, fmt.Sprintf("asked %s “%s”", nameOrchestrator, t.Question)); err != nil {
		return "", err
	}
	a := w.agents[nameOrchestrator]
	var known note
	if err := w.called(ctx, a, routeCRM, "looked up customer "+t.Customer+" in the CRM", func(ctx context.Context) error {
		return a.useTools(ctx, w.places.mcp(routeCRM), func(s *mcp.ClientSession) error {
			return callTool(ctx, s, toolLookup, map[string]any{"customer": t.Customer}, &known)
		})
	}); err != nil {
		return "", err
	}
	found, err := a.hand(ctx, w.places.agent(nameResearch), task{Question: "Which customers are in " + t.Region + "?", Region: t.Region})
	if err != nil {
		return "", err
	}
	if known.Customer != t.Customer || found == "" {
		return "", errors.New("CRM or research gave no answer")
	}
	var answer string
	err = w.called(ctx, a, w.places.model, "had the model "+w.places.model+" put it into words", func(ctx context.Context) (err error) {
		answer, err = w.summarise(ctx, a, fmt.Sprintf("%s Of %s the CRM says: %s (owner %s).", found, known.Name, known.Note, known.Owner))
		return err
	})
	return answer, err
}

// summarise asks the model, with OpenAI's client.
func (w *world) summarise(ctx context.Context, a *agent, facts string) (string, error) {
	chat := openai.NewChatCompletionService(
		option.WithBaseURL(w.places.llm()), option.WithHTTPClient(a.calls), option.WithMaxRetries(0),
		option.WithAPIKey("the gateway has the key"))
	answer, err := chat.New(ctx, openai.ChatCompletionNewParams{
		Model: w.places.model,
		Messages: []openai.ChatCompletionMessageParamUnion{
			openai.SystemMessage("Answer in one short sentence, from the facts alone."), openai.UserMessage(facts),
		},
	})
	if err != nil {
		return "", fmt.Errorf("%s asking the model: %w", a.name, err)
	}
	if len(answer.Choices) == 0 {
		return "", errors.New("the model gave no answer")
	}
	return answer.Choices[0].Message.Content, nil
}

// research is the research agent's work. It holds "read database" and nothing
// else but the way to the one agent that can.
func (w *world) research(ctx context.Context, call string, t task) (string, error) {
	if err := w.arrived(ctx, call, nameResearch, "delegated to research"); err != nil {
		return "", err
	}
	return w.agents[nameResearch].hand(ctx, w.places.agent(nameDatabase), t)
}

// askDatabase is the database agent's work. It asks for a token that is good
// for this very question and no other.
func (w *world) askDatabase(ctx context.Context, call string, t task) (string, error) {
	if err := w.arrived(ctx, call, nameDatabase, "delegated to database"); err != nil {
		return "", err
	}
	a := w.agents[nameDatabase]
	ctx = client.WithDetails(ctx, details(w.places.readRegion(t.Region, maxRows)))
	q := question{Table: "customers", Columns: []string{"id", "name", "revenue_eur"}, Where: map[string]any{"region": t.Region}, Limit: maxRows}
	var got rows
	did := fmt.Sprintf("called %s on table %s, region %s, at most %d rows", toolQuery, q.Table, t.Region, q.Limit)
	if err := w.called(ctx, a, routeDB, did, func(ctx context.Context) error {
		return a.useTools(ctx, w.places.mcp(routeDB), func(s *mcp.ClientSession) error {
			if err := onlyApproved(ctx, s); err != nil {
				return err
			}
			return callTool(ctx, s, toolQuery, q, &got)
		})
	}); err != nil {
		return "", err
	}
	if want := min(countIn(t.Region), maxRows); len(got.Rows) != want {
		return "", fmt.Errorf("the tool returned %d rows, not %d", len(got.Rows), want)
	}
	var revenue float64
	for _, r := range got.Rows {
		n, _ := r[2].(float64)
		revenue += n
	}
	return fmt.Sprintf("%d customers in %s with a revenue of %.1f million EUR.", len(got.Rows), t.Region, revenue/1e6), nil
}

// onlyApproved checks that the gateway hides the tool that nobody approved.
func onlyApproved(ctx context.Context, s *mcp.ClientSession) error {
	got, err := s.ListTools(ctx, nil)
	if err != nil {
		return fmt.Errorf("listing tools: %w", err)
	}
	if len(got.Tools) != 1 || got.Tools[0].Name != toolQuery {
		return fmt.Errorf("the gateway shows %d tools, not %s alone", len(got.Tools), toolQuery)
	}
	return nil
}

// arrived tells of a call that reached an agent, in the words of the caller's
// verified delegation. The record must be in the ledger already.
func (w *world) arrived(ctx context.Context, call, callee, did string) error {
	chain := client.FromContext(ctx).Verified().Chain
	return w.permitted(ctx, chain.Person().Ref(), actors(chain), call, callee, did, chain.Leaf().Details)
}

// called does something that calls a tool or the model, and tells of it.
func (w *world) called(ctx context.Context, a *agent, callee, did string, do func(context.Context) error) error {
	chain := client.FromContext(ctx).Verified().Chain
	ctx, seen := withSeen(ctx)
	if err := do(ctx); err != nil {
		return err
	}
	held, err := held(seen.last().token)
	if err != nil {
		return err
	}
	return w.permitted(ctx, chain.Person().Ref(), append(actors(chain), a.name), seen.last().id, callee, did, held)
}

// actors names who acted in a chain, the application first.
func actors(c delegation.Chain) []string {
	out := make([]string, c.Len())
	for k := range out {
		out[k] = shortName(c.Hop(k).Actor().Subject)
	}
	return out
}

// permitted tells of a call that was permitted, after finding its record.
func (w *world) permitted(ctx context.Context, ref string, chain []string, call, callee, did string, held scope.Grant) error {
	e, err := w.decision(ctx, call)
	if err != nil {
		return err
	}
	verdict := e.Record.Decision.Verdict
	if verdict.Effect != record.Permit {
		return fmt.Errorf("call %s went on, and its record says %s", call, verdict.Reason)
	}
	who, words := w.firstName(ref), w.places.authority(held)
	text := sentence(who, chain, did)
	if strings.HasPrefix(did, "delegated") {
		text += " with " + duties(words) + " only"
	}
	w.tell(Event{
		Type: TypeCall, Person: who, Chain: chain, Callee: callee, Authority: words, Decision: permitted, Call: call, Record: e.Record.ID,
		Reason: verdict.Reason, Text: text + ": " + permitted + ".",
	})
	return nil
}

// decision finds the one decision about a call in the ledger.
func (w *world) decision(ctx context.Context, call string) (search.Entry, error) {
	x, err := w.server.Records(ctx)
	if err != nil {
		return search.Entry{}, err
	}
	found, err := x.Find(call)
	if err != nil {
		return search.Entry{}, fmt.Errorf("call %q has no record: %w", call, err)
	}
	i := slices.IndexFunc(found, func(e search.Entry) bool { return e.Record.Decision != nil && e.Record.Decision.CallID == call })
	if i < 0 {
		return search.Entry{}, fmt.Errorf("call %q has no decision record", call)
	}
	return found[i], nil
}

func (w *world) firstName(ref string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if name, ok := w.people[ref]; ok {
		return name
	}
	return "somebody"
}

// claims are those of a token that came from the token service itself, over a
// connection that proved it: nobody needs to check them again to speak of them.
func claims(raw string) (strictjson.Value, error) {
	v, err := unverified.Claims(raw)
	if err != nil {
		return strictjson.Value{}, fmt.Errorf("reading token: %w", err)
	}
	return v, nil
}

// claim is one claim that is text.
func claim(raw, name string) (string, error) {
	all, err := claims(raw)
	if err != nil {
		return "", err
	}
	v, _ := all.Get(name)
	s, ok := v.Text()
	if !ok {
		return "", fmt.Errorf("reading token: no claim %s", name)
	}
	return s, nil
}

// held is the authority of a token after the first hop.
func held(raw string) (scope.Grant, error) {
	all, err := claims(raw)
	if err != nil {
		return scope.Grant{}, err
	}
	v, _ := all.Get("authorization_details")
	return scope.ParseValue(v, false)
}
