package sts

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
)

const style = `body{font:1rem/1.5 system-ui;max-width:34rem;margin:3rem auto;padding:0 1rem}` +
	`.warn{border-left:.3rem solid #b45309;padding-left:.8rem}code{overflow-wrap:anywhere}button{font:inherit;padding:.4rem 1.2rem;margin-right:.6rem}`

var styleHash = func() string {
	sum := sha256.Sum256([]byte(style))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}()

// pageHeaders let a page load nothing but its style, be framed by nobody and
// send its form here. Browsers hold the redirect that answers the form to
// form-action, too, so that formTo names where that leads; "": no form.
func pageHeaders(h http.Header, formTo string) {
	forms := "'none'"
	if formTo != "" {
		forms = "'self' " + formTo
	}
	h.Set("Content-Security-Policy", "default-src 'none'; style-src "+styleHash+"; form-action "+forms+"; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Referrer-Policy", "same-origin") // not no-referrer: browsers would hide the form's Origin, too
	h.Set("Cache-Control", "no-store")
}

var pages = template.Must(template.New("").Parse(`
{{define "head"}}<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.}}</title><style>` + style + `</style></head><body>{{end}}
{{define "refused"}}{{template "head" "Login refused"}}
<h1>This login cannot go on</h1>
<p role="alert">{{.Sentence}}</p>
<p>Reference: <code>{{.Reference}}</code></p>
</body></html>{{end}}
{{define "consent"}}{{template "head" "Allow access?"}}
<h1>Allow access?</h1>
<p>{{if .Name}}An application that calls itself <strong>{{.Name}}</strong>{{else}}An application{{end}}
{{if .Document}}from <strong>{{.Host}}</strong>{{else}}registered here as <code>{{.ID}}</code>{{end}}
asks to act for you at <code>{{.Resource}}</code>.</p>
<p>It would be allowed to:</p>
<ul>{{range .Words}}<li>{{.}}</li>{{end}}</ul>
<details><summary>Exactly</summary><code>{{.Exactly}}</code></details>
<p>The answer goes to <strong>{{.Redirect}}</strong>.</p>
{{if .Loopback}}<p class="warn" role="note">That is this computer. Any program that runs on it could be the one that asks. Go on only if you have just started this yourself.</p>{{end}}
<p>It can go on for {{.Refresh}} without asking you again. You signed in at {{.Provider}}.</p>
<form method="post" action="{{.Action}}">
<input type="hidden" name="id" value="{{.Secret}}">
<button name="decision" value="allow">Allow</button><button name="decision" value="deny">Refuse</button>
</form>
</body></html>{{end}}
`))

type consentPage struct {
	Name, ID, Host, Resource, Exactly, Redirect, Refresh, Provider, Action, Secret string
	Words                                                                          []string
	Document, Loopback                                                             bool
}

// showConsent asks the person, in words.
func (v *visit) showConsent(client loginClient, target registry.Audience, granted scope.Grant, secret string) {
	p := consentPage{
		Name: client.name, ID: client.ID.String(), Document: client.document, Resource: target.URI,
		Exactly: string(v.asked.Details), Words: words(granted), Refresh: v.s.cfg.Login.Refresh.String(),
		Provider: v.s.cfg.Login.Provider.Issuer(), Action: v.s.base + "/consent", Secret: secret,
	}
	if u, err := url.Parse(p.ID); err == nil {
		p.Host = u.Host
	}
	formTo := ""
	if u, err := url.Parse(v.asked.Redirect); err == nil { // it passed registry.CheckRedirect: its host ends no directive
		p.Redirect, formTo = u.Scheme+"://"+u.Host, u.Scheme+"://"+u.Host
		if p.Loopback = u.Scheme == "http"; u.Scheme != "http" && u.Scheme != "https" {
			p.Redirect, formTo = "the application for "+u.Scheme+": links on this computer", u.Scheme+":"
			p.Loopback = true
		}
	}
	pageHeaders(v.w.Header(), formTo)
	v.show(http.StatusOK, "consent", p)
}

// showRefusal is the page of a refusal: its fixed sentence and its reference.
func (v *visit) showRefusal(a Answer) {
	pageHeaders(v.w.Header(), "")
	if a.Status == http.StatusServiceUnavailable {
		v.w.Header().Set("Retry-After", "1")
	}
	status := a.Status
	if status == http.StatusUnauthorized { // there is no challenge to a person
		status = http.StatusBadRequest
	}
	v.show(status, "refused", struct{ Sentence, Reference string }{a.Description, v.id})
}

func (v *visit) show(status int, name string, data any) {
	var page bytes.Buffer
	if err := pages.ExecuteTemplate(&page, name, data); err != nil {
		v.w.WriteHeader(http.StatusInternalServerError)
		return
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.WriteHeader(status)
	_, _ = v.w.Write(page.Bytes())
}

// actionWords say what each action of scope is, to a person.
var actionWords = map[string]string{
	scope.MCPToolsCall: "use the tools", scope.MCPTasksUse: "follow tasks of the tools", scope.MCPResourcesRead: "read the resources",
	scope.MCPPromptsGet: "get the prompts", scope.A2ASend: "hand work to the agents", scope.A2ATask: "follow tasks of the agents",
	scope.A2ACancel: "cancel tasks of the agents", scope.A2APush: "be told about tasks of the agents",
	scope.LLMChat: "put questions to the models", scope.LLMEmbed: "make embeddings with the models",
	scope.HTTPGet: "read", scope.HTTPHead: "look up", scope.HTTPPost: "send to", scope.HTTPPut: "replace",
	scope.HTTPPatch: "change", scope.HTTPDelete: "delete",
}

// words says each detail in a sentence.
func words(g scope.Grant) []string {
	var out []string
	for _, d := range g.Details() {
		var does []string
		for _, a := range d.Actions() {
			w, ok := actionWords[a]
			if !ok {
				w = a
			}
			if !slices.Contains(does, w) {
				does = append(does, w)
			}
		}
		s := fmt.Sprintf("%s %s at %s", strings.Join(does, " and "), strings.Join(d.Names(), ", "), strings.Join(d.Locations(), ", "))
		switch paths := d.Paths(); {
		case d.Args() == scope.ArgsOpen && len(paths) == 0:
			s += ", with any input"
		case len(paths) > 0:
			s += ", with input that is limited in " + strings.Join(paths, ", ")
		}
		out = append(out, s)
	}
	return out
}

// withScope is the part of a grant whose details need no other verbs than those
// that a scope value names; all of it if there is no value.
func withScope(g scope.Grant, value string) (scope.Grant, error) {
	if value == "" {
		return g, nil
	}
	asked := strings.Split(value, " ")
	for _, verb := range asked {
		if !slices.Contains(verbs(), verb) {
			return scope.Grant{}, refuse(CodeScopeMismatch, "scope %.200q holds an unknown verb", value)
		}
	}
	raw, err := g.MarshalJSON()
	if err != nil {
		return scope.Grant{}, refuse(CodeDetailsMalformed, "%w", err)
	}
	all, err := strictjson.Parse(raw, strictjson.Limits{})
	if err != nil {
		return scope.Grant{}, refuse(CodeDetailsMalformed, "%w", err)
	}
	var kept []strictjson.Value
	for i, d := range g.Details() {
		if !slices.ContainsFunc(d.Actions(), func(a string) bool {
			verb, ok := scope.Verb(a)
			return !ok || !slices.Contains(asked, verb)
		}) {
			kept = append(kept, all.Index(i))
		}
	}
	if len(kept) == 0 {
		return scope.Grant{}, refuse(CodeScopeMismatch, "nothing of the default is within scope %.200q", value)
	}
	out, err := scope.Parse(strictjson.Array(kept...).AppendJSON(nil), true)
	if err != nil {
		return scope.Grant{}, refuse(CodeDetailsMalformed, "%w", err)
	}
	return out, nil
}
