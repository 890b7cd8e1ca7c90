package page

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/evidence/js"
	"github.com/lineal-auth/lineal/search"
)

//go:embed templates static
var files embed.FS

// assets are the files of the page, and its templates by name.
type assets struct {
	version string // changes with the files, so that a browser may keep them
	static  map[string][]byte
	pages   map[string]*template.Template
}

func loadAssets() (assets, error) {
	a := assets{static: map[string][]byte{}, pages: map[string]*template.Template{}}
	own, err := fs.Sub(files, "static")
	if err != nil {
		return a, err
	}
	h := sha256.New()
	for _, from := range []fs.FS{own, js.Files} {
		names, err := fs.Glob(from, "*")
		if err != nil {
			return a, err
		}
		for _, name := range names {
			if a.static[name], err = fs.ReadFile(from, name); err != nil {
				return a, err
			}
			h.Write(fmt.Appendf(nil, "%s %d\n", name, len(a.static[name])))
			h.Write(a.static[name])
		}
	}
	a.version = hex.EncodeToString(h.Sum(nil)[:8])
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return a, err
	}
	for _, name := range names {
		base := strings.TrimSuffix(path.Base(name), ".html")
		if base == "frame" || base == "parts" {
			continue
		}
		if a.pages[base], err = template.New("frame.html").Funcs(functions).ParseFS(files, "templates/frame.html", "templates/parts.html", name); err != nil {
			return a, fmt.Errorf("making page: %w", err)
		}
	}
	return a, nil
}

// serve gives a file of the page, which tells nothing of any record.
func (a assets) serve(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	body, known := a.static[name]
	if !known || r.PathValue("version") != a.version {
		http.NotFound(w, r)
		return
	}
	kind := map[string]string{".css": "text/css; charset=utf-8", ".mjs": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}[path.Ext(name)]
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// frame is what every page gets.
type frame struct {
	Title, Page string
	Static      string // where the files are
	Viewer      viewerShown
	Token       string
	Live        bool
	AsOf        search.AsOf
	Complete    bool
	Body        any
}

// viewerShown is what the page says of its viewer.
type viewerShown struct {
	Name, Role, Ref string
	Known, Person   bool
	Session         bool
}

// render writes a page. A template that fails writes nothing of it.
func (x *request) render(ctx context.Context, w http.ResponseWriter, status int, a answer) {
	f := frame{
		Title: a.title, Page: cmp.Or(a.tab, a.template), Static: Prefix + "static/" + x.s.assets.version, Body: a.data,
		Viewer: viewerShown{
			Name: x.viewer.name, Role: x.viewer.role, Ref: x.viewer.ref, Known: x.viewer.by != "" && x.viewer.role != "",
			Person: x.viewer.Person(), Session: x.viewer.session != "",
		},
	}
	if f.Viewer.Known {
		f.Token = x.formToken()
	}
	if x.desk != nil {
		f.AsOf, f.Complete = x.desk.AsOf()
	}
	if l, ok := a.data.(interface{ live() bool }); ok {
		f.Live = l.live()
	}
	var b bytes.Buffer
	if err := x.s.assets.pages[a.template].Execute(&b, f); err != nil {
		x.s.cfg.Logger.ErrorContext(ctx, "a page cannot be made", slog.String("page", a.template), slog.String("cause", err.Error()))
		http.Error(w, "The page cannot be made.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}
