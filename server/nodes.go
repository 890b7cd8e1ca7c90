package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/durable"
)

// Init creates a deployment in an empty data directory: its keys, its log, and
// as the first records the keys of its writers. Only this function creates a
// log; a server that finds none refuses to start (ledger.md §4).
func Init(ctx context.Context, dataDir string, l config.Ledger, now func() time.Time, logger *slog.Logger) error {
	if err := durable.MkdirAll(dataDir, 0o700); err != nil {
		return fmt.Errorf("creating %s: %w", dataDir, err)
	}
	if err := createKeys(dataDir); err != nil {
		return err
	}
	keys, err := loadKeys(dataDir)
	if err != nil {
		return err
	}
	e := newEngine(dataDir, l, engineOptions{create: true, now: now, logger: logger})
	unwitnessed := l // no witness knows the log before its key is there
	unwitnessed.Witnesses, unwitnessed.WitnessQuorum = nil, 0
	s, err := newLedgerService(ctx, e, ledgerConfig{
		Ledger: unwitnessed, dataDir: dataDir, keys: keys, sequences: true, createLog: true, createDir: true, now: now, logger: logger,
	})
	if err != nil {
		return err
	}
	err = s.introduce(ctx)
	if l.Store != "" {
		err = errors.Join(err, prepareRegistries(ctx, e, l))
	}
	return errors.Join(err, s.close(ctx), saveLedger(dataDir, l))
}

// Upgrade brings the tables of a PostgreSQL store up to this version's, and makes
// those that are missing. It needs the rights of their owner. Files it leaves
// alone: every start brings its own up to date.
func Upgrade(ctx context.Context, l config.Ledger, logger *slog.Logger) error {
	if l.Store == "" {
		return nil
	}
	e := newEngine("", l, engineOptions{create: true, logger: logger})
	store, err := e.ledger(ctx)
	if err != nil {
		return fmt.Errorf("upgrading: %w", err)
	}
	if err := errors.Join(prepareRegistries(ctx, e, l), store.Close()); err != nil {
		return fmt.Errorf("upgrading: %w", err)
	}
	return nil
}

// Join creates the data directory of another process of a deployment, one that
// shares its store: keys of its own for its writers, and their introduction in
// the log. member is the data directory of a process with the role ledger, and
// with the role tokens if the new one has that; the new one gets copies of the deployment's keys that it needs for
// its own roles, and no others. So Join is done where those keys are, and the
// directory is then taken to where the process shall run.
func Join(ctx context.Context, cfg config.Config, member string, now func() time.Time, logger *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if cfg.Ledger.Store == "" || cfg.Ledger.Node == "" {
		return errors.New("joining: ledger.store and ledger.node are required: processes share a PostgreSQL store, and each has its name")
	}
	deployment, err := loadKeys(member)
	if err != nil {
		return fmt.Errorf("joining: %w", err)
	}
	if deployment.manifest == nil || deployment.log == nil {
		return fmt.Errorf("joining: %w", errNotHere("manifest or log"))
	}
	theirs, err := readLedger(member)
	if err != nil {
		return fmt.Errorf("joining: %w", err)
	}
	if theirs.Origin() != cfg.Ledger.Origin() {
		return fmt.Errorf("joining: the log there is %s, not %s", theirs.Origin(), cfg.Ledger.Origin())
	}
	e := newEngine(cfg.DataDir, cfg.Ledger, engineOptions{now: now, logger: logger})
	if err := isNew(ctx, e, cfg.Ledger, deployment); err != nil {
		return fmt.Errorf("joining: %w", err)
	}
	if err := joinKeys(cfg, member, deployment); err != nil {
		return fmt.Errorf("joining: %w", err)
	}
	keys, err := loadKeys(cfg.DataDir)
	if err != nil {
		return fmt.Errorf("joining: %w", err)
	}
	keys.manifest, keys.log = deployment.manifest, deployment.log
	s, err := newLedgerService(ctx, e, ledgerConfig{
		Ledger: cfg.Ledger, dataDir: cfg.DataDir, keys: keys, sequences: true, createDir: true, now: now, logger: logger,
	})
	if err != nil {
		return fmt.Errorf("joining: %w", err)
	}
	err = errors.Join(s.introduce(ctx), s.close(ctx), saveLedger(cfg.DataDir, cfg.Ledger))
	if err == nil && !cfg.Runs(config.RoleLedger) {
		err = os.RemoveAll(filepath.Join(cfg.DataDir, "tiles")) // nobody would keep them up
	}
	return err
}

// isNew reads the log for the writers of a node of this name: opening one of
// them would end the process that has it.
func isNew(ctx context.Context, e engine, l config.Ledger, deployment keyRing) error {
	store, err := e.reader(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }() // it only read
	head, err := store.Head(ctx, l.Family)
	if err != nil {
		return err
	}
	known := admissionOf(deployment.manifestPublic, store, head.Origin)
	if err := known.catchUp(ctx, head.Size); err != nil {
		return err
	}
	if known.isThere(l.Node) {
		return fmt.Errorf("a node %q is there already: choose another name, or retire its writers if it left", l.Node)
	}
	return nil
}

// isThere reports whether a node has writers that did not leave: those whose keys
// have all ended did. A node that only ever wrote under the manifest key cannot.
func (a *admission) isThere(node string) bool {
	left := false
	for _, name := range []string{writerGateway, writerTokens} {
		id := writerID(name, node)
		_, wrote := a.tails[id]
		had := slices.ContainsFunc(slices.Collect(maps.Values(a.keys)), func(k writerKey) bool { return k.Writer == id })
		if wrote && !had || len(a.active(id)) > 0 {
			return true
		}
		left = left || had
	}
	_, wrote := a.tails[writerID(writerAdmin, node)]
	return wrote && !left
}

// joinKeys makes the keys of a process's own writers, and copies those of the
// deployment that its roles need.
func joinKeys(cfg config.Config, member string, deployment keyRing) error {
	if err := durable.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return err
	}
	dir, err := makeKeysDir(cfg.DataDir)
	if err != nil {
		return err
	}
	var own, copies []string
	if cfg.Runs(config.RoleGateway) {
		own = append(own, "gateway")
	}
	if cfg.Runs(config.RoleTokens) {
		own = append(own, "tokens")
		if err := copyIssuerKeys(cfg.Tokens.Keys, filepath.Join(member, keysDir), dir); err != nil {
			return err
		}
	}
	if cfg.Runs(config.RoleLedger) {
		copies = append(copies, "manifest", "log", keyDisclosures)
	}
	if err := createSigningKeys(dir, own...); err != nil {
		return err
	}
	for _, name := range copies {
		key, err := readKey(filepath.Join(member, keysDir), name)
		if err != nil {
			return err
		}
		if err := writeKey(dir, name, key); err != nil {
			return err
		}
	}
	if slices.Contains(copies, "manifest") {
		return nil
	}
	if err := writePublic(dir, disclosuresPublicFile, deployment.disclosures); err != nil {
		return err
	}
	return writePublic(dir, manifestPublicFile, deployment.manifestPublic)
}

// copyIssuerKeys copies the key that the issuer began with, and those that the
// configuration lists in the directory of keys. With a list the first may be
// gone.
func copyIssuerKeys(listed []config.Key, from, to string) error {
	files := map[string]bool{"issuer.key": len(listed) == 0} // to whether it must be there
	for _, k := range listed {
		if filepath.IsLocal(k.File) {
			files[k.File] = true
		}
	}
	for file, required := range files {
		key, err := readKeyFile(filepath.Join(from, file))
		if errors.Is(err, fs.ErrNotExist) && !required {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading key of the issuer: %w", err)
		}
		if err := writeKeyFile(filepath.Join(to, file), key); err != nil {
			return fmt.Errorf("copying key of the issuer: %w", err)
		}
	}
	return nil
}
