// Command mutants shows that the tests of package scope have teeth: it breaks
// the package in known ways, one at a time, and runs the tests on each.
//
//	go -C tools run ./mutants -module ..
//
// Each mutant is an edit of the text of a source file, given to the compiler as
// an overlay; nothing in the tree changes. It meets two suites:
//
//	properties   soundness over random pairs and over all pairs of a small
//	             universe, and the oracle: what is claimed of ⊑ in general
//	others       every other test of the package, the table of ⊑ among them
//
// A mutant that the properties let live must be one that says why it is sound;
// the run fails if another lives, if one that is sound is killed by them, if the
// text of an edit is not there exactly once (a stale mutant proves nothing), if
// the package as it is does not pass, and if a suite fails without naming a test.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"
)

// edit replaces text that stands exactly once in a file of the package.
type edit struct{ file, old, replacement string }

// mutant is one way to be wrong.
type mutant struct {
	name  string
	edits []edit
	// sound says why the mutant is not wrong, "" if it is.
	sound string
	// listed is that the design names it.
	listed bool
}

const properties = `^(TestX2SoundOverPool|TestX2SmallUniverse|TestReflexiveAndTransitive|TestC2GrantsOnlyNarrow)$`

// suites are the tests that a mutant meets, by patterns of their names.
var suites = [2]struct{ run, skip string }{{properties, "^$"}, {"^Test", properties}}

const pkg = "scope"

func main() {
	module := flag.String("module", ".", "directory of the module")
	limit := flag.Duration("timeout", 3*time.Minute, "how long one suite may take")
	flag.Parse()
	if err := run(*module, *limit); err != nil {
		log.SetFlags(0)
		log.Fatalln("mutants:", err)
	}
}

func run(module string, limit time.Duration) error {
	module, err := filepath.Abs(module)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	g := gate{module: module, work: work, limit: limit}
	switch got := g.try(mutant{name: "none"}); {
	case got.err != nil:
		return fmt.Errorf("the package as it is: %w", got.err)
	case got.killers[0] != nil || got.killers[1] != nil:
		return fmt.Errorf("the package as it is does not pass: %q", got.killers)
	}
	fmt.Println("the package as it is passes")
	return report(g.all())
}

// gate compiles and runs mutants of one package.
type gate struct {
	module, work string
	limit        time.Duration
}

// result is what became of one mutant.
type result struct {
	mutant
	// killers are, for each suite, the tests that failed.
	killers [2][]string
	err     error
}

// all tries every mutant, as many at once as there are processors.
func (g gate) all() []result {
	results := make([]result, len(mutants))
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, m := range mutants {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i] = g.try(m)
		})
	}
	wg.Wait()
	return results
}

func (g gate) try(m mutant) result {
	r := result{mutant: m}
	dir, err := os.MkdirTemp(g.work, "")
	if err != nil {
		r.err = err
		return r
	}
	binary := filepath.Join(dir, "test")
	if r.err = g.compile(m, dir, binary); r.err != nil {
		return r
	}
	for i, s := range suites {
		if r.killers[i], r.err = g.test(binary, s.run, s.skip); r.err != nil {
			return r
		}
	}
	return r
}

// compile makes the test program of the package with m in it.
func (g gate) compile(m mutant, dir, binary string) error {
	texts := make(map[string]string)
	for _, e := range m.edits {
		path := filepath.Join(g.module, pkg, e.file)
		text, read := texts[path]
		if !read {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = string(b)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return fmt.Errorf("stale: %d times in %s, want once:\n%s", n, e.file, e.old)
		}
		texts[path] = strings.Replace(text, e.old, e.replacement, 1)
	}
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	for path, text := range texts {
		mutated := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(mutated, []byte(text), 0o600); err != nil {
			return err
		}
		overlay.Replace[path] = mutated
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		return err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, b, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", list, "-o", binary, "./"+pkg)
	cmd.Dir = g.module
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("does not compile: %w\n%s", err, out)
	}
	return nil
}

var failed = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)

// test runs one suite and names the tests that failed.
func (g gate) test(binary, pattern, skip string) (killers []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), g.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run", pattern, "-test.skip", skip, "-test.v", "-rapid.nofailfile", "-rapid.shrinktime=0s")
	cmd.Dir = filepath.Join(g.module, pkg)
	out, err := cmd.CombinedOutput()
	for _, m := range failed.FindAllSubmatch(out, -1) {
		killers = append(killers, string(m[1]))
	}
	switch {
	case killers != nil:
		return killers, nil
	case err != nil:
		return nil, fmt.Errorf("no test failed, and yet: %w\n%.2000s", err, out)
	case bytes.Count(out, []byte("\n--- PASS: ")) < 4:
		return nil, fmt.Errorf("hardly a test ran:\n%.2000s", out)
	default:
		return nil, nil
	}
}

// report prints the table and says what is wrong with it.
func report(results []result) error {
	var wrong []error
	var listed, killed, more, moreKilled int
	var sound []string
	for _, r := range results {
		lives, fate := r.killers[0] == nil, "killed by "+strings.Join(r.killers[0], ", ")
		switch {
		case r.err != nil:
			fate = "error"
			wrong = append(wrong, fmt.Errorf("%s: %w", r.name, r.err))
		case lives && r.sound == "":
			fate = "SURVIVED"
			wrong = append(wrong, fmt.Errorf("%s: the properties let it live", r.name))
		case !lives && r.sound != "":
			wrong = append(wrong, fmt.Errorf("%s: said to be sound, and killed", r.name))
		case lives:
			fate = "survived, and is sound: " + r.sound
			sound = append(sound, r.name)
		}
		fmt.Printf("%-30s %s\n%-30s   of the other tests, %d fail\n", r.name, fate, "", len(r.killers[1]))
		count(r, &listed, &killed, &more, &moreKilled)
	}
	fmt.Printf("mutants of the design: %d applied, %d killed by the properties; survived: %s\n", listed, killed, strings.Join(sound, ", "))
	fmt.Printf("mutants beyond it: %d applied, %d killed by the properties\n", more, moreKilled)
	return errors.Join(wrong...)
}

func count(r result, listed, killed, more, moreKilled *int) {
	if !r.listed {
		listed, killed = more, moreKilled
	}
	if r.err == nil {
		*listed++
	}
	if r.killers[0] != nil {
		*killed++
	}
}
