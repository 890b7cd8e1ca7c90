package sqlscope

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// grantEU is the delegation of these tests: some columns of one table, where
// region is EU.
const grantEU = `[{"type":"urn:lineal:call:v1","locations":["https://db.example/mcp"],"actions":["mcp:tools/call"],"names":["run_sql"],
  "args":"closed","where":{"/args":{"op":"fields","keys":["query"]},
   "/sql/tables":{"op":"each","max_items":1,"of":{"op":"one_of","values":["crm.customers"]}},
   "/sql/columns/crm.customers":{"op":"each","max_items":8,"of":{"op":"one_of",
     "values":["id","name","region","status","amount","created","active","day"]}},
   "/sql/pred/crm.customers/region":{"op":"one_of","values":["EU"]}}}]`

// base is a text within grantEU.
const base = `SELECT id, name FROM crm.customers WHERE region = 'EU'`

// schema is the same in both databases. That a = of text costs much makes the
// server evaluate the predicate last, which it may do at any time: conditions
// run in the order of their cost, and nothing promises that the predicate is the
// cheapest.
const schema = `
ALTER FUNCTION pg_catalog.texteq(text, text) COST 1000;
CREATE SCHEMA crm;
CREATE TABLE crm.customers (secret text, id int, name text, region varchar(8), status text, amount numeric, created timestamptz,
  active bool, day date, pin int, ` + longName + ` text, "Region" text);
CREATE VIEW crm.everyone AS SELECT id, name, text 'EU' AS region FROM crm.customers;
CREATE FUNCTION public.leak(crm.customers) RETURNS text LANGUAGE sql AS 'SELECT $1.secret';
CREATE FUNCTION crm.everything() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT string_agg(secret, '','') FROM crm.customers';
CREATE FUNCTION crm.spy(text) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''%'', crm.everything(); RETURN true; END';
CREATE DOMAIN crm.spied AS text CHECK (crm.spy(VALUE));
CREATE TYPE crm.mood AS ENUM ('sad', 'ok');
CREATE PROCEDURE crm.purge() LANGUAGE sql AS 'DELETE FROM crm.customers';
CREATE SEQUENCE crm.numbers;
CREATE TABLE crm.parts (id int, name text, region text) PARTITION BY LIST (region);
CREATE TABLE crm.parts_us PARTITION OF crm.parts FOR VALUES IN ('US');
CREATE TABLE crm.parent (id int, name text, region text);
CREATE TABLE crm.child () INHERITS (crm.parent);
CREATE TABLE crm."Customers" (id int, name text, region text);
CREATE SCHEMA other;
CREATE TABLE other.customers (id int, name text, region text);
CREATE SCHEMA evil;
CREATE FUNCTION evil.yes(varchar, varchar) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION evil.yes(text, text) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR evil.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = evil.yes);
CREATE OPERATOR evil.=== (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = evil.yes);
CREATE EXTENSION dblink;
CREATE EXTENSION postgres_fdw;
`

// longName is as long as a name can be: one letter more is cut off.
const longName = "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg"

// The rows that grantEU reaches are the same in both databases, as far as it
// reaches. Everything else differs: so a text within the grant gives the same in
// both, and one that does not tells something beyond it.
const (
	shared = `
INSERT INTO crm.customers (secret, id, name, region, status, amount, created, active, day, pin, ` + longName + `, "Region") VALUES
 ('%[1]s1', 1, 'Ada', 'EU', 'open', 10.50, '2024-01-01', true, '2024-01-01', %[2]d, '%[1]s', 'EU'),
 ('%[1]s2', 2, 'Émile', 'EU', 'closed', 0, '2025-06-01', false, '2025-06-01', %[2]d, '%[1]s', '%[1]s'),
 ('%[1]s3', 3, 'O''Hara', 'EU', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
 ('%[1]s4', 4, 'a--b', 'EU', 'open', 99.99, '%[4]s', true, '%[4]s', %[2]d, '%[1]s', 'EU');
INSERT INTO crm."Customers" VALUES (1, '%[1]s', 'EU');
INSERT INTO other.customers VALUES (1, '%[1]s', 'EU');
INSERT INTO crm.parts VALUES (1, '%[1]s', 'US');
INSERT INTO crm.child VALUES (1, '%[1]s', 'EU');
SELECT setval('crm.numbers', %[2]d);
CREATE TABLE crm.payroll_%[1]s (salary int);
CREATE MATERIALIZED VIEW crm.everyone_stored AS SELECT * FROM crm.everyone;
CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%[3]s', dbname '%[1]s');
CREATE USER MAPPING FOR lineal SERVER loop OPTIONS (user 'lineal', password_required 'false');
CREATE FOREIGN TABLE crm.remote (id int, name text, region text) SERVER loop OPTIONS (schema_name 'crm', table_name 'everyone');
ANALYZE`
	onlyA = `
INSERT INTO crm.customers (secret, id, name, region, status, amount, created, active, day, pin) VALUES
 ('a5', 5, 'abc', 'US', 'us', 1000, '2020-01-01', true, '2020-01-01', 5),
 ('a6', 6, 'abd', 'ET', 'et', 2000, '2020-01-01', true, '2020-01-01', 6),
 ('a7', 7, 'x', 'US', 'us', 3000, '2030-01-01', false, '2030-01-01', 7)`
	onlyB = `
INSERT INTO crm.customers (secret, id, name, region, status, amount, created, active, day, pin) VALUES
 ('b8', 8, 'bcd', 'US', 'b', -1, NULL, NULL, NULL, NULL),
 ('b9', 9, 'xyz', 'ET', 'c', 1e100, '1999-01-01', true, '1999-01-01', 9),
 ('b10', 10, '12', 'US', 'open', 0, '2024-01-01', false, '2024-01-01', 9),
 ('b11', 11, '', 'US', 'open', 5, '2024-01-01', false, '2024-01-01', 9)`
)

// fill makes the databases a and b.
func (p *postgres) fill() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	exec := func(database string, texts ...string) error {
		s, err := p.connect(ctx, database)
		if err != nil {
			return err
		}
		defer s.close()
		for _, text := range texts {
			if o := s.run(ctx, text); o.Code != "" {
				return fmt.Errorf("filling %s: %s %s", database, o.Code, o.Message)
			}
		}
		return nil
	}
	if err := exec("postgres", "CREATE DATABASE a", "CREATE DATABASE b"); err != nil {
		return err
	}
	recent := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	// b moves its rows on the page and its objects' numbers.
	const shift = `CREATE TABLE public.shift (); INSERT INTO crm.customers (id) VALUES (0); DELETE FROM crm.customers`
	if err := exec("a", schema, fmt.Sprintf(shared, "a", 5, p.dir, recent), onlyA, "REFRESH MATERIALIZED VIEW crm.everyone_stored", "ANALYZE"); err != nil {
		return err
	}
	return exec("b", "CREATE TABLE public.first ()", schema, shift, fmt.Sprintf(shared, "b", 6, p.dir, recent), onlyB, "REFRESH MATERIALIZED VIEW crm.everyone_stored", "ANALYZE")
}

// theReader is shared: its parser is that of the process.
var theReader = sync.OnceValues(func() (*Reader, error) { return New(Config{}) })

func reader(t testing.TB) *Reader {
	t.Helper()
	r, err := theReader()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// permits asks a grant about a statement, as a gateway does. It returns "" or
// the path that refused.
func permits(t testing.TB, grant string, s Statement) string {
	t.Helper()
	g, err := scope.Parse([]byte(grant), true)
	if err != nil {
		t.Fatal(err)
	}
	c := scope.Call{Location: "https://db.example/mcp", Action: scope.MCPToolsCall, Name: "run_sql"}
	c.Doc.Set("/args/query", strictjson.String(s.Canonical()))
	s.AddTo(&c.Doc)
	v := g.Permits(c)
	if v.Permitted() {
		return ""
	}
	return v.Failures[0].Path
}
