package config

import (
	"fmt"
	"strings"
	"testing"
)

const shared = `, store: "postgres://lineal@db.test/lineal", persons: "postgres://persons@db.test/persons"}`

// TestSharing: what several processes on one store rest on is checked before any
// of them starts. Each refusal stands beside what passes.
func TestSharing(t *testing.T) {
	const alone = "data_class: internal}"
	sharedText := strings.Replace(minimal, alone, "data_class: internal"+shared, 1)
	for name, c := range map[string]struct{ text, says string }{
		"one process":           {minimal, ""},
		"all roles, by name":    {minimal + "roles: [ledger, tokens, gateway]\n", ""},
		"a shared store":        {sharedText, ""},
		"a check each week":     {strings.Replace(minimal, alone, "data_class: internal, fsck: {interval: 168h, entries_per_second: 500}}", 1), ""},
		"a check each minute":   {strings.Replace(minimal, alone, "data_class: internal, fsck: {interval: 1m}}", 1), "an hour at least"},
		"no check":              {strings.Replace(minimal, alone, "data_class: internal, fsck: {off: true}}", 1), ""},
		"no check each week":    {strings.Replace(minimal, alone, "data_class: internal, fsck: {off: true, interval: 168h}}", 1), "ledger.fsck: off"},
		"a backward check":      {strings.Replace(minimal, alone, "data_class: internal, fsck: {entries_per_second: -1}}", 1), "must be positive"},
		"a node":                {strings.Replace(sharedText, "store:", "node: eu-1, store:", 1), ""},
		"a gateway alone":       {strings.Replace(sharedText+"roles: [gateway]\n", "issuer:", `spiffe_id: "spiffe://acme.test/tokens", issuer:`, 1), ""},
		"tokens alone":          {strings.Replace(sharedText+"roles: [tokens, ledger]\n", "address:", `spiffe_id: "spiffe://acme.test/gateway", address:`, 1), ""},
		"sequencing alone":      {strings.NewReplacer(`, spiffe_socket: "unix:///run/gw.sock"`, "").Replace(sharedText + "roles: [ledger]\n"), ""},
		"an unknown role":       {minimal + "roles: [gatewy]\n", `"gatewy"`},
		"roles on a file":       {minimal + "roles: [gateway, ledger]\n", "without tokens"},
		"a gateway to nobody":   {sharedText + "roles: [gateway]\n", "tokens.spiffe_id"},
		"tokens for nobody":     {sharedText + "roles: [tokens]\n", "gateway.spiffe_id"},
		"a node that is none":   {strings.Replace(sharedText, "store:", "node: EU/1, store:", 1), "ledger.node"},
		"another engine":        {strings.Replace(sharedText, `"postgres://lineal`, `"mysql://lineal`, 1), "ledger.store"},
		"persons on a file":     {strings.Replace(minimal, alone, `data_class: internal, persons: "postgres://p@db.test/p"}`, 1), "ledger.persons"},
		"nobody's person map":   {strings.Replace(sharedText, `, persons: "postgres://persons@db.test/persons"`, "", 1), "ledger.persons"},
		"persons among records": {strings.Replace(sharedText, "postgres://persons@db.test/persons", "postgres://lineal@db.test/lineal", 1), "another database"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.text))
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
		})
	}
}

// TestO4StorePasswordIsRedacted: neither a printed configuration nor the error
// about it shows the password in a URL.
func TestO4StorePasswordIsRedacted(t *testing.T) {
	const secret = "canary-91cc"
	text := strings.Replace(minimal, "data_class: internal}", `data_class: internal, store: "mysql://u:`+secret+`@db.test/l", persons: "postgres://u:`+secret+`@db.test/p"}`, 1)
	cfg, err := Parse([]byte(text))
	if err == nil {
		t.Fatal("another engine passed")
	}
	if out := fmt.Sprintf("%v %+v %#v %v", cfg, cfg, cfg, err); strings.Contains(out, secret) {
		t.Errorf("printed: %s", out)
	}
	if !strings.Contains(cfg.Ledger.Store.Reveal(), secret) {
		t.Error("the secret itself is lost")
	}
}
