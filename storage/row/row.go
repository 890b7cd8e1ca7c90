// Package row reads the rows of ledger and registry, whichever engine keeps them:
// each engine has its own SQL, and what a row says is the same.
//
//	SELECT row.Issued ──▶ Scan(row.ScanIssued(&d)...) ──▶ registry.Delegation
//	SELECT … ORDER BY ──▶ row.Receipts(rows)          ──▶ R0…Rn, or a hop is missing
//
// A constant names the columns of a row in the order in which its function scans
// them. Times are Unix seconds, 0 for none (registry.FromUnix).
//
// It sends no statement and closes nothing.
package row

import (
	"database/sql"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/registry"
)

// Scanner is one row, of database/sql or of pgx.
type Scanner interface{ Scan(dest ...any) error }

// Rows are the rows of an answer, of either.
type Rows interface {
	Scanner
	Next() bool
	Err() error
}

// The columns of rows that are read one at a time, by their key.
const (
	Issued  = `txn, parent, depth, audience, exp, receipt`
	Binding = `person, agent, txn, record`
	Person  = `issuer, subject, enabled, created`
	Step    = `exp, body`
	Code    = `family, exp, uses, body`
	Family  = `current, person, client, begun, exp, body`
)

// ScanIssued is where the columns of Issued go.
func ScanIssued(d *registry.Delegation) []any {
	return []any{&d.Txn, &d.Parent, &d.Depth, &d.Audience, unix(&d.Expires), &d.Receipt}
}

// ScanBinding is where the columns of Binding go.
func ScanBinding(p *registry.Principal) []any { return []any{&p.Person, &p.Agent, &p.Txn, &p.Record} }

// ScanPerson is where the columns of Person go.
func ScanPerson(p *registry.Person) []any {
	return []any{&p.Issuer, &p.Subject, &p.Enabled, unix(&p.Created)}
}

// ScanStep is where the columns of Step go.
func ScanStep(s *registry.LoginStep) []any { return []any{unix(&s.Expires), &s.Body} }

// ScanCode is where the columns of Code go.
func ScanCode(c *registry.Code, uses *int) []any {
	return []any{key(&c.Family), unix(&c.Expires), uses, &c.Body}
}

// ScanFamily is where the columns of Family go.
func ScanFamily(f *registry.Family) []any {
	return []any{key(&f.Current), &f.Person, &f.Client, unix(&f.Begun), unix(&f.Expires), &f.Body}
}

// seconds is a time in a column of Unix seconds.
type seconds time.Time

func unix(t *time.Time) sql.Scanner { return (*seconds)(t) }

// Scan implements [sql.Scanner].
func (s *seconds) Scan(src any) error {
	n, ok := src.(int64)
	if !ok {
		return fmt.Errorf("a time is %T, not Unix seconds", src)
	}
	*s = seconds(registry.FromUnix(n))
	return nil
}

// loginKey is a key in a column of bytes.
type loginKey registry.LoginKey

func key(k *registry.LoginKey) sql.Scanner { return (*loginKey)(k) }

// Scan implements [sql.Scanner].
func (k *loginKey) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok || len(b) != len(k) {
		return fmt.Errorf("a key is %d bytes of %T, not %d", len(b), src, len(k))
	}
	copy(k[:], b)
	return nil
}
