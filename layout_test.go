package lineal

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/lineal-auth/lineal/"

// vocabulary is pure: the standard library, internal/strictjson, and for
// record the two libraries of its encoding.
var vocabulary = []string{"scope", "identity", "delegation", "policy", "record"}

// layout is the whole list of what a package may import from this module,
// internal/strictjson and internal/durable aside. A folder that is not in it
// fails the test: a new room is put on the plan first.
var layout = map[string][]string{
	"internal/strictjson": {},
	"internal/durable":    {},
	"internal/refusal":    {},                   // how an HTTP API of ours says no
	"internal/query":      {},                   // the parameters of a request
	"internal/parallel":   {},                   // the same for many values
	"internal/unverified": {},                   // a JWT as its holder reads it
	"internal/entry":      {"record", "ledger"}, // records as entries of a ledger

	"scope":      {},
	"identity":   {},
	"delegation": {"identity", "scope"},
	"policy":     {"identity", "delegation", "scope"},
	"record":     {"identity", "delegation", "scope", "policy"},

	"token":       {"identity", "delegation", "scope"},
	"ledger":      {},
	"evidence":    {"record", "delegation", "scope", "token", "internal/parallel"},
	"evidence/js": {}, // embeds the verifier in JavaScript
	"registry":    {"identity", "delegation", "scope"},
	"search":      {"record", "policy", "scope", "internal/parallel"},
	"export":      {"record"},                            // forms that other tools read
	"feed":        {"record", "export", "internal/ssrf"}, // sends entries on, each until it is acknowledged

	"sts":          with(vocabulary, "token", "registry", "internal/ssrf", "internal/workloadjwt"),
	"gateway":      with(vocabulary, "token", "registry"),
	"admin":        with(vocabulary, "token", "registry", "internal/refusal", "internal/query"),
	"console":      {"record", "search", "evidence", "policy", "internal/refusal", "internal/query"},
	"console/page": {"console", "search", "record", "evidence/js", "internal/refusal", "internal/query"},
	"client":       {"token", "delegation", "scope", "identity", "identity/spiffe", "gateway"},

	"sidecar": {"client", "token", "delegation", "scope", "identity", "internal/refusal"},

	"config":     {},
	"server":     {"*"},
	"cmd/lineal": {"config", "server", "client", "evidence", "internal/*"},

	"scope/sqlscope": {"scope"}, // a reader of call documents: the parser stays out of the vocabulary

	// Drivers: the package whose interface they implement and what that may
	// import; identity drivers also token.
	"identity/spiffe":     {"identity", "token", "internal/workloadjwt"},
	"identity/oidc":       {"identity", "token", "internal/workloadjwt"},
	"identity/kubernetes": {"identity", "token", "internal/workloadjwt"},
	"identity/aws":        {"identity", "token", "internal/workloadjwt"},
	"identity/azure":      {"identity", "token", "internal/workloadjwt"},
	"identity/gcp":        {"identity", "token", "internal/workloadjwt"},
	"client/mcpauth":      {"client", "token"}, // the client for one SDK
	"client/a2aauth":      {"client"},
	"policy/cedar":        {"policy", "identity", "delegation", "scope"},
	"policy/opa":          {"policy", "internal/pdp"},
	"policy/authzen":      {"policy", "internal/pdp"},
	"gateway/mcp":         with(vocabulary, "gateway", "token", "registry", "scope/sqlscope", "internal/handle"),
	"gateway/a2a":         with(vocabulary, "gateway", "token", "registry", "gateway/grpcstatus", "internal/handle", "internal/ssrf"),
	"gateway/llm":         with(vocabulary, "gateway", "token", "registry"),
	"gateway/rest":        with(vocabulary, "gateway", "token", "registry", "gateway/grpcstatus"),
	"gateway/grpcstatus":  {"gateway"}, // refusals of every protocol over gRPC
	"gateway/broker":      with(vocabulary, "gateway", "token", "registry"),
	"gateway/extauthz":    with(vocabulary, "gateway", "token", "registry"),
	"token/pkcs11":        {}, // gives a crypto.Signer
	"export/ocsf":         {"record", "export"},
	"export/parquet":      {"record", "export"},
	// The engine drives three interfaces: the ledger's store, the registry, and the
	// index of search.
	"storage/sqlite":      {"ledger", "registry", "search", "record", "identity", "delegation", "scope", "storage/row", "storage/groupcommit"},
	"storage/postgres":    {"ledger", "registry", "identity", "delegation", "scope", "storage/row", "storage/groupcommit"},
	"storage/row":         {"ledger", "registry"}, // what a row says, whichever engine has it
	"storage/groupcommit": {},
	"storage/disk":        {"ledger"},
	"storage/storagetest": {"ledger", "registry", "storage/disk"}, // the contract includes what a log leaves on disk

	"internal/workloadjwt":            {"identity"},
	"internal/workloadjwt/issuertest": {"identity"},

	"internal/pdp":     {},
	"internal/sealed":  {},
	"internal/handle":  {},
	"internal/ssrf":    {},
	"internal/devca":   {"identity"},
	"internal/opatest": {}, // a server for tests; TestTestServerStaysInTests
	"internal/pgtest":  {}, // a server for tests; TestTestServerStaysInTests
	"internal/devidp":  {},
	"internal/demo":    {"*"},
	"internal/handout": {"client"},
	"internal/doctor":  {"config", "client", "identity", "identity/spiffe", "token", "gateway", "internal/unverified"},

	"internal/adminclient": {"identity", "identity/spiffe"}, // an operator's commands
	"internal/testenv":     {"*"},
	"internal/scenario":    {"record", "policy", "policy/cedar", "identity", "scope"}, // records for tests and benchmarks

	"test/conformance":     {"*"}, // starts the product for suites of other makes
	"test/llm":             {"*"}, // starts the product for SDKs of other makes
	"test/mcp":             {"*"}, // starts the product for MCP clients of other makes
	"test/mcp/client":      {},
	"test/faults":          {"*"}, // breaks what the ledger stands on
	"test/faults/appender": {"test/faults"},

	// For tests of packages beside them.
	"internal/openapitest":   {},                                                // holds an API to its description
	"policy/cedar/cedartest": {"policy/cedar"},                                  // policy bundles
	"search/searchtest":      {"search", "internal/scenario", "storage/sqlite"}, // a desk over a log

	// A module of its own: what tests need to run, and the product must not carry.
	"test/lossfs":      {},
	"test/opa":         {},
	"test/llm/clients": {},
	"test/tessera":     {},
	"test/witness":     {},
}

// pure packages may also import these from outside of the standard library.
var pure = map[string][]string{
	"scope":      {"golang.org/x/text/unicode/norm"},
	"identity":   {},
	"delegation": {},
	"policy":     {},
	"record":     {"github.com/gowebpki/jcs", "github.com/secure-systems-lab/go-securesystemslib/dsse"},
}

// forbidden is what pure packages may not import even from the standard
// library (log/slog is there for LogValue, which redacts).

var forbidden = []string{"os", "os/exec", "net", "io/ioutil", "log"}

func with(base []string, more ...string) []string { return append(slices.Clone(base), more...) }

// imports reads the import lines of every package itself: a test that asks
// the go command can be served stale from the test cache.
func imports(t *testing.T) map[string]map[string]string {
	t.Helper()
	found := make(map[string]map[string]string)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || name == "tools" || name == "examples") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		if found[dir] == nil {
			found[dir] = make(map[string]string)
		}
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			found[dir][name] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 20 {
		t.Fatalf("read only %d packages: the walk is broken", len(found))
	}
	return found
}

func allowed(rules []string, pkg string) bool {
	for _, r := range rules {
		if r == "*" || r == pkg || (strings.HasSuffix(r, "/*") && strings.HasPrefix(pkg, strings.TrimSuffix(r, "*"))) {
			return true
		}
	}
	return pkg == "internal/strictjson" || pkg == "internal/durable"
}

// TestLayout fails on every edge between packages that is not in the table.
func TestLayout(t *testing.T) {
	for dir, names := range imports(t) {
		if dir == "." {
			continue
		}
		rules, known := layout[dir]
		if !known {
			t.Errorf("%s: this folder is not in the layout", dir)
			continue
		}
		for name, path := range names {
			if pkg, ours := strings.CutPrefix(name, module); ours && !allowed(rules, pkg) {
				t.Errorf("%s imports %s, which the layout does not allow", path, pkg)
			}
		}
	}
}

// TestVocabularyIsPure keeps I/O and foreign code out of the vocabulary.
func TestVocabularyIsPure(t *testing.T) {
	all := imports(t)
	for dir, extra := range pure {
		if len(all[dir]) == 0 {
			t.Errorf("%s: no imports were read", dir)
		}
		for name, path := range all[dir] {
			outside := strings.Contains(strings.Split(name, "/")[0], ".")
			switch {
			case strings.HasPrefix(name, module):
			case outside && !slices.Contains(extra, name):
				t.Errorf("%s imports %s: the vocabulary is standard library only", path, name)
			case slices.Contains(forbidden, name):
				t.Errorf("%s imports %s: the vocabulary does no I/O and starts nothing", path, name)
			}
		}
	}
}

// testServers start a PostgreSQL and an Open Policy Agent, for tests alone.
var testServers = []string{"internal/pgtest", "internal/opatest"}

// TestTestServerStaysInTests: no package that is built into the product imports
// what starts a server of another make.
func TestTestServerStaysInTests(t *testing.T) {
	for _, names := range imports(t) {
		for _, server := range testServers {
			if path, used := names[module+server]; used {
				t.Errorf("%s imports %s", path, server)
			}
		}
	}
}

// TestO1NoProcessFromARequest: nothing that serves requests may start a
// process (threat O1).
func TestO1NoProcessFromARequest(t *testing.T) {
	for dir, names := range imports(t) {
		if path, spawns := names["os/exec"]; spawns && dir != "cmd/lineal" && !slices.Contains(testServers, dir) {
			t.Errorf("%s imports os/exec", path)
		}
	}
}

// TestEvidenceSharesNothingWithTheWriter: the verifier's Merkle and note code
// must not be the writer's, x/mod included, so that one bug cannot hide in both.
func TestEvidenceSharesNothingWithTheWriter(t *testing.T) {
	for name, path := range imports(t)["evidence"] {
		if strings.HasPrefix(name, "golang.org/x/mod") || name == module+"ledger" {
			t.Errorf("%s imports %s", path, name)
		}
	}
}
