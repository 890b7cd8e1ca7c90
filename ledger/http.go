package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
)

// HandlerConfig configures [NewHandler]. Reader, Tiles and Origin are required.
type HandlerConfig struct {
	Reader *Reader
	Tiles  TileStore
	Origin string
	// Entries serves entry bundles too. They hold the records: whoever may read
	// them has been decided before the handler is reached.
	Entries bool
	Logger  *slog.Logger // nil discards
}

// NewHandler serves one origin of a log as C2SP tlog-tiles v0.1.0 wants it:
//
//	GET /checkpoint                  the newest published checkpoint
//	GET /tile/<L>/<N>[.p/<W>]        hash tiles under it
//	GET /tile/entries/<N>[.p/<W>]    entry bundles under it, if Entries
//
// The checkpoint comes from the database and not from the tile store, so that a
// process that lost the log cannot roll its readers back (ledger.md 5.4). What
// no published checkpoint covers is not found, whether it is there or not.
func NewHandler(cfg HandlerConfig) (http.Handler, error) {
	if cfg.Reader == nil || cfg.Tiles == nil || cfg.Origin == "" {
		return nil, errors.New("configuring log handler: Reader, Tiles and Origin are required")
	}
	cfg.Logger = orDiscard(cfg.Logger)
	h := handler{cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /checkpoint", h.checkpoint)
	mux.HandleFunc("GET /tile/", h.tile)
	return mux, nil
}

type handler struct{ cfg HandlerConfig }

func (h handler) checkpoint(w http.ResponseWriter, r *http.Request) {
	c, err := h.cfg.Reader.Published(r.Context(), h.cfg.Origin)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(c.Note) // the client has gone, if not nil
}

func (h handler) tile(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	t, err := parseTilePath(path)
	if err == nil && t.level < 0 && !h.cfg.Entries {
		err = fs.ErrNotExist
	}
	if err == nil {
		err = h.published(r, t)
	}
	var data []byte
	if err == nil {
		data, err = h.cfg.Tiles.GetTile(r.Context(), path)
	}
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	_, _ = w.Write(data)
}

// published insists that the newest published checkpoint covers the tile.
func (h handler) published(r *http.Request, t tilePath) error {
	c, err := h.cfg.Reader.Published(r.Context(), h.cfg.Origin)
	if err != nil {
		return err
	}
	hashes := c.Size
	for range t.level {
		hashes /= tileWidth
	}
	if t.n > hashes/tileWidth || t.n*tileWidth+int64(t.width) > hashes {
		return fmt.Errorf("%w: beyond the checkpoint of size %d", fs.ErrNotExist, c.Size)
	}
	return nil
}

func (h handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotFound):
		http.Error(w, "not found", http.StatusNotFound)
	case errors.Is(err, errTilePath):
		http.Error(w, "malformed tile path", http.StatusBadRequest)
	default:
		h.cfg.Logger.ErrorContext(r.Context(), "log not readable", slog.String("path", r.URL.Path), slog.Any("error", err))
		http.Error(w, "the log is not readable now", http.StatusServiceUnavailable)
	}
}

// tilePath is the path of a tile or, at level -1, of an entry bundle.
type tilePath struct {
	level int
	n     int64
	width int
}

var errTilePath = errors.New("malformed tile path")

// String writes the path in its one form.
func (t tilePath) String() string {
	if t.level < 0 {
		return BundlePath(t.n, t.width)
	}
	return TilePath(t.level, t.n, t.width)
}

// parseTilePath is the inverse of TilePath and BundlePath: only the one form
// that those write is accepted.
func parseTilePath(path string) (tilePath, error) {
	malformed := fmt.Errorf("%w: %.80q", errTilePath, path)
	t := tilePath{width: tileWidth}
	level, rest, ok := strings.Cut(strings.TrimPrefix(path, "tile/"), "/")
	if !ok {
		return tilePath{}, malformed
	}
	if t.level = -1; level != "entries" {
		l, err := strconv.ParseUint(level, 10, 8)
		if err != nil || l > 63 { // the limit of the specification
			return tilePath{}, malformed
		}
		t.level = int(l)
	}
	if number, width, partial := strings.Cut(rest, ".p/"); partial {
		w, err := strconv.ParseUint(width, 10, 8)
		if err != nil || w == 0 {
			return tilePath{}, malformed
		}
		rest, t.width = number, int(w)
	}
	groups := strings.Split(rest, "/")
	if len(groups) > 6 { // 256 times a larger number would be no int64
		return tilePath{}, malformed
	}
	for _, g := range groups {
		d, err := strconv.ParseUint(strings.TrimPrefix(g, "x"), 10, 16)
		if err != nil || d > 999 {
			return tilePath{}, malformed
		}
		t.n = t.n*1000 + int64(d)
	}
	if t.n > (1<<62)/tileWidth || t.String() != path {
		return tilePath{}, malformed
	}
	return t, nil
}
