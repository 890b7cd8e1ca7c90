package sts_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/sts"
)

// TestX4DisabledByAnotherProcess: what an operator registers, disables or takes
// away through one process counts at the next exchange of another one, over the
// same store.
func TestX4DisabledByAnotherProcess(t *testing.T) {
	w := newWorld(t)
	// Agent 2 and what it serves are of the catalog, the others of the configuration.
	configured := w.directory.all
	configured.Agents = slices.DeleteFunc(slices.Clone(configured.Agents), func(a registry.Agent) bool { return a.URI == agent(2) })
	configured.Audiences = slices.DeleteFunc(slices.Clone(configured.Audiences), func(a registry.Audience) bool { return a.URI == audience(2) })
	here, err := registry.NewLive(t.Context(), configured, w.issued)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := sqlite.OpenRegistry(t.Context(), sqlite.RegistryConfig{Dir: w.dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = elsewhere.Close() })
	operator, err := registry.NewLive(t.Context(), configured, elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	put := func(kind registry.EntryKind, document string) {
		t.Helper()
		e, err := registry.ParseEntry(kind, []byte(document))
		if err != nil {
			t.Fatal(err)
		}
		_, at, err := operator.Entries(t.Context(), kind)
		if err != nil {
			t.Fatal(err)
		}
		if err := operator.Change(t.Context(), at, e, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	two := func(enabled, authority string) string {
		return `{"uri":"` + agent(2).String() + `","profile":"ai_agent","enabled":` + enabled + authority + `}`
	}
	all := `,"authority":` + everything()
	cfg := w.config(w.source)
	cfg.Directory = here
	w.mu.Lock()
	w.service, err = sts.New(cfg)
	w.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}

	root := w.root()
	w.recorder.take()
	w.refused(w.post(w.as(agent(1)), hopForm(root, audience(2)), nil), http.StatusBadRequest, "invalid_target", sts.CodeTargetUnknown)
	put(registry.EntryAgent, two("true", all))
	put(registry.EntryResource, `{"uri":"`+audience(2)+`","enabled":true,"serves":"`+agent(2).String()+`"}`)
	hop := w.hop(agent(1), root, audience(2))
	w.hop(agent(2), hop, toolURI)

	w.recorder.take()
	put(registry.EntryAgent, two("false", all))
	w.refused(w.post(w.as(agent(2)), hopForm(hop, toolURI), nil), http.StatusBadRequest, "unauthorized_client", sts.CodeClientDisabled)
	w.refused(w.post(w.as(agent(1)), hopForm(root, audience(2)), nil), http.StatusBadRequest, "invalid_target", sts.CodeTargetUnknown)
	w.hop(agent(1), root, audience(3)) // the twin: others go on

	put(registry.EntryAgent, two("true", all))
	w.hop(agent(2), hop, toolURI)
	w.recorder.take()
	put(registry.EntryAgent, two("true", "")) // it takes part, and may hold nothing any more
	if got := w.post(w.as(agent(2)), hopForm(hop, toolURI), nil); got.Token != "" {
		t.Error("an agent without authority got a token")
	}
	put(registry.EntryAgent, two("true", all))
	w.hop(agent(2), hop, toolURI)
	if err := w.issued.Close(); err != nil { // a registry that cannot be asked answers nothing
		t.Fatal(err)
	}
	w.recorder.take()
	w.refused(w.post(w.as(agent(1)), hopForm(root, audience(3)), nil), http.StatusServiceUnavailable, "temporarily_unavailable", sts.CodeRegistryUnavailable)
}
