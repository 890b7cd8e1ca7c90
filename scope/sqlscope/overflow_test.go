package sqlscope

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/wasilibs/go-pgquery/parser"
)

// overflowEnv makes the test program run overflow instead: the parser of a
// process that has overflowed is of no more use.
const overflowEnv = "SQLSCOPE_TEST_OVERFLOW"

func terms(n int) string {
	return `SELECT id FROM crm.customers WHERE region = 'EU' AND id < 1` + strings.Repeat("+1", n-1)
}

// overflow gives the parser n terms, past the caps, and says what is left.
func overflow(n string) int {
	count, err := strconv.Atoi(n)
	if err != nil {
		return 2
	}
	e, err := newEngine(1, parser.ParseToProtobuf)
	if err != nil {
		fmt.Println(err)
		return 2
	}
	r := newReader(Config{}, e)
	ctx := context.Background()
	_, err = r.engine.read(ctx, r.now, r.log, terms(count))
	var refused *Error
	if errors.As(err, &refused) {
		fmt.Println("overflow:", refused.Code)
	}
	_, err = r.Read(ctx, base)
	if errors.As(err, &refused) {
		fmt.Println("then:", refused.Code)
	}
	fmt.Println("the process lives; broken:", r.Err() != nil)
	return 0
}

// TestN1Terms: the caps refuse what would overflow the parser's stack, and the
// parser is as it was.
func TestN1Terms(t *testing.T) {
	r := reader(t)
	for _, n := range []int{MaxTokens, 10_000, 64_000} {
		_, err := r.Read(t.Context(), terms(n))
		var refused *Error
		if !errors.As(err, &refused) || refused.Code != CodeTooLong {
			t.Errorf("%d terms: %v", n, err)
		}
	}
	if s, err := r.Read(t.Context(), base); err != nil || s.Canonical() == "" {
		t.Errorf("afterwards: %v", err)
	}
}

// TestN1Overflow: were the caps not there, the process lives, and no instance
// that has overflowed is asked again: all SQL is refused.
func TestN1Overflow(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the parser again")
	}
	for _, n := range []string{"10000", "64000"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), overflowEnv+"="+n)
		out, err := cmd.CombinedOutput()
		const want = "overflow: sql_unavailable\nthen: sql_unavailable\nthe process lives; broken: true\n"
		if err != nil || string(out) != want {
			t.Errorf("%s terms: %v\n%.2000s", n, err, out)
		}
	}
}
