package devidp

import (
	"bytes"
	"context"
	"html/template"
	"log/slog"
	"net/http"
)

const loginPath = "/login"

// loginPage shows the form and takes it. The random id of the authorization
// request, which only the browser that started it knows, is what a forged
// request lacks.
type loginPage struct {
	storage  *storage
	callback func(context.Context, string) string
	logger   *slog.Logger
}

type loginForm struct{ ID, Username, Problem string }

func (l *loginPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	// No form-action: browsers apply it to the redirect back to the application too.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
	switch r.Method {
	case http.MethodGet:
		l.render(w, http.StatusOK, loginForm{ID: r.URL.Query().Get("id")})
	case http.MethodPost:
		l.submit(w, r)
	default:
		h.Set("Allow", "GET, POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	}
}

func (l *loginPage) submit(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "the form cannot be read", http.StatusBadRequest)
		return
	}
	id, username := r.PostForm.Get("id"), r.PostForm.Get("username")
	if problem := l.storage.authenticate(id, username, r.PostForm.Get("password")); problem != "" {
		l.logger.InfoContext(r.Context(), "login refused", slog.String("problem", problem))
		l.render(w, http.StatusUnauthorized, loginForm{ID: id, Username: username, Problem: problem})
		return
	}
	l.logger.InfoContext(r.Context(), "login", slog.String("username", username))
	http.Redirect(w, r, l.callback(r.Context(), id), http.StatusSeeOther)
}

func (l *loginPage) render(w http.ResponseWriter, status int, form loginForm) {
	var page bytes.Buffer
	if err := loginTemplate().Execute(&page, form); err != nil {
		http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(page.Bytes())
}

func loginTemplate() *template.Template { return template.Must(template.New("login").Parse(loginHTML)) }

const loginHTML = `<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Sign in (development)</title>
<style>body{font:1rem system-ui;max-width:22rem;margin:4rem auto;padding:0 1rem}label{display:block;margin:.8rem 0}input{width:100%;font:inherit}</style></head>
<body>
<h1>Sign in</h1>
<p>Development provider. Test people only.</p>
{{with .Problem}}<p role="alert">{{.}}</p>{{end}}
<form method="post" action="` + loginPath + `">
<input type="hidden" name="id" value="{{.ID}}">
<label>Email <input name="username" type="email" autocomplete="username" required value="{{.Username}}"></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button type="submit">Sign in</button>
</form>
</body>
</html>
`
