package sqlscope

import (
	"path/filepath"
	"strings"
	"testing"
)

const (
	noPred   = "/sql/pred/crm.customers/region"
	noColumn = "/sql/columns/crm.customers"
	noTable  = noColumn // the first path that another table does not have

	from   = ` FROM crm.customers`
	fromEU = ` FROM crm.customers WHERE region = 'EU'`
	us     = ` FROM crm.customers WHERE region = 'US'`

	unprovable = "it stays within the predicate, by a way that is not read"
	pgComment  = "a comment in PostgreSQL; another dialect executes it or reads on"
)

func code(c Code) string { return string(c) }

// evasions is the table of the design, class by class.
func evasions(t *testing.T) map[string][]evasion {
	return map[string][]evasion{
		"predicate":  predicateEvasions(),
		"names":      nameEvasions(),
		"columns":    columnEvasions(),
		"rows":       rowEvasions(server(t).version),
		"objects":    objectEvasions(),
		"statements": statementEvasions(server(t).dir),
		"functions":  functionEvasions(server(t).dir),
		"text":       textEvasions(server(t).version),
		"mysql":      mysqlEvasions(),
	}
}

func predicateEvasions() []evasion {
	where := `SELECT id, name` + from + ` WHERE `
	return []evasion{
		{name: "none", sql: `SELECT id, name` + from, refused: noPred},
		{name: "other value", sql: where + `region = 'US'`, refused: noPred},
		{name: "or", sql: where + `region = 'EU' OR true`, refused: noPred},
		{name: "or precedence", sql: where + `region = 'EU' AND id > 0 OR status = 'us'`, refused: noPred},
		{name: "not", sql: where + `NOT region = 'EU'`, refused: noPred},
		{name: "not in parentheses", sql: where + `NOT (region = 'EU' AND id = 1)`, refused: noPred},
		{name: "in", sql: where + `region IN ('EU', 'US')`, refused: noPred},
		{name: "having only", sql: `SELECT sum(amount)` + from + ` HAVING min(region) = 'ET'`, refused: noPred},
		{name: "having only, by group", sql: `SELECT region, count(id)` + from + ` GROUP BY region HAVING region = 'EU'`, refused: noPred, shown: harmless, why: unprovable},
		{name: "itself", sql: where + `region = region`, refused: code(CodeExpression)},
		{name: "bind parameter", sql: where + `region = $1`, refused: code(CodeNode), shown: rejected, code: "42P02"},
		{name: "cast of the column", sql: where + `CAST(region AS text) >= 'EU'`, refused: code(CodeExpression)},
		{name: "cast with length", sql: where + `region::varchar(1) = 'E'`, refused: code(CodeType)},
		{name: "cast of the constant", sql: where + `region = 'EU'::varchar`, refused: noPred, shown: harmless, why: "a cast can change the constant"},
		{name: "two constants", sql: where + `region = 'EU' AND region = 'US'`, refused: code(CodePredicate), shown: harmless, why: "which of the two is the predicate?"},
		{name: "the same twice", sql: where + `region = 'EU' AND region = 'EU'`, refused: code(CodePredicate), shown: harmless, why: "which of the two is the predicate?"},
		{name: "escape that is another value", sql: where + `region = E'\x45\x54'`, refused: noPred},
		{name: "prefix", sql: where + `region LIKE 'E%'`, refused: noPred},
		{name: "collation", sql: where + `region = 'EU' COLLATE "C"`, refused: code(CodeNode), shown: harmless, why: "a collation can make other values equal"},
		{name: "any", sql: where + `region = ANY (ARRAY['EU', 'US'])`, refused: code(CodeOperator)},
		{name: "row", sql: where + `(region, status) = ('US', 'us')`, refused: code(CodeNode)},
		{name: "is true", sql: where + `(region = 'EU') IS NOT NULL`, refused: code(CodeExpression)},
		{name: "is not false", sql: where + `(region = 'EU') IS NOT UNKNOWN`, refused: code(CodeNode)},
		{name: "distinct from", sql: where + `region IS DISTINCT FROM 'EU'`, refused: code(CodeOperator)},
		{name: "division in where", sql: where + `region = 'EU' AND 1 / (id - 5) < 9`, refused: code(CodeExpression)},
		{name: "division in having", sql: `SELECT id` + fromEU + ` GROUP BY id, region HAVING 1 / (id - 5) < 9`, refused: code(CodeExpression)},
		{name: "cast in where", sql: where + `region = 'EU' AND name::int4 <> 5`, refused: code(CodeExpression), shown: rejected, code: "22P02"},
		{name: "pattern that ends early", sql: where + `status LIKE 'u\' AND region = 'EU'`, refused: code(CodeLiteral)},
		{name: "pattern from a column", sql: where + `'us' LIKE status AND region = 'EU'`, refused: code(CodeExpression), setup: `UPDATE crm.customers SET status = 'u\' WHERE secret = 'a5'`},
		{name: "late failure", sql: where + `(id <> 5 OR now() > date_trunc('bogus', now())) AND region = 'EU'`, refused: code(CodeExpression)},
		{name: "late overflow", sql: where + `(id <> 5 OR now() > now() + interval '300000 years') AND region = 'EU'`, refused: code(CodeExpression)},
		{name: "late cast", sql: where + `(id <> 5 OR now() > CAST(lower('X') AS timestamptz)) AND region = 'EU'`, refused: code(CodeExpression)},
	}
}

func nameEvasions() []evasion {
	const search = `SET search_path = evil, pg_catalog`
	return []evasion{
		{name: "another table by case", sql: `SELECT id, name FROM crm."Customers" WHERE region = 'EU'`, refused: code(CodeName)},
		{name: "another column by case", sql: `SELECT "Region"` + fromEU, refused: code(CodeName)},
		{name: "no schema", sql: `SELECT id, name FROM customers WHERE region = 'EU'`, setup: `SET search_path = other`, refused: code(CodeTable)},
		{name: "other schema", sql: `SELECT id, name FROM other.customers WHERE region = 'EU'`, refused: noTable},
		{name: "three parts", sql: `SELECT id FROM postgres.crm.customers WHERE region = 'EU'`, refused: code(CodeTable), shown: rejected, code: "0A000"},
		{name: "cte shadowing", sql: `WITH customers AS (SELECT id, secret AS name, text 'EU' AS region` + from + `) SELECT id, name FROM customers WHERE region = 'EU'`, refused: code(CodeClause)},
		{name: "operator of a schema", sql: `SELECT id, name` + from + ` WHERE region OPERATOR(evil.=) 'EU'::varchar`, refused: code(CodeOperator)},
		{name: "operator by search_path", sql: `SELECT id, name` + from + ` WHERE region === 'EU'`, setup: search, refused: code(CodeOperator)},
		{name: "escaped name", sql: `SELECT U&"secre\0074"` + fromEU, refused: code(CodeName)},
		{name: "escaped name, other escape", sql: `SELECT u&"!0073ecret" UESCAPE '!'` + fromEU, refused: code(CodeName)},
		{name: "name cut at 63 bytes", sql: `SELECT ` + longName + `x` + fromEU, refused: code(CodeName)},
		{name: "name of 63 bytes", sql: `SELECT ` + longName + fromEU, refused: code(CodeName)},
		{name: "long s", sql: `SELECT ſecret` + fromEU, refused: code(CodeName), shown: rejected, code: "42703"},
		{name: "kelvin sign", sql: "SELECT id FROM crm.customers WHERE \u212A = 'EU'", refused: code(CodeName), shown: rejected, code: "42703"},
		{name: "dollar in a name", sql: `SELECT id AS a$b` + fromEU, refused: code(CodeName), shown: harmless, why: "no name that a scope can hold"},
		{name: "upper-case alias", sql: `SELECT id AS "ID"` + fromEU, refused: code(CodeName), shown: harmless, why: "no name that a scope can hold"},
		{name: "order by two names", sql: `SELECT id, name AS id` + fromEU + ` ORDER BY customers.id`, refused: code(CodeName), shown: harmless, why: "without the qualifier it would be another column"},
	}
}

func columnEvasions() []evasion {
	// The first hidden value of one database becomes the last.
	const last = `UPDATE crm.customers SET secret = 'z' WHERE secret = 'a1'`
	return []evasion{
		{name: "star", sql: `SELECT *` + fromEU, refused: code(CodeColumn)},
		{name: "qualified star", sql: `SELECT customers.*` + fromEU, refused: code(CodeColumn)},
		{name: "star as text", sql: `SELECT (c.*)::text FROM crm.customers c WHERE region = 'EU'`, refused: code(CodeColumn)},
		{name: "count star", sql: `SELECT count(*)` + fromEU, refused: code(CodeColumn), shown: harmless, why: "a star; count(1) counts the same"},
		{name: "whole row", sql: `SELECT customers` + fromEU, refused: code(CodeColumn)},
		{name: "whole row by alias", sql: `SELECT c::text FROM crm.customers c WHERE region = 'EU'`, refused: code(CodeColumn)},
		{name: "whole row as an argument", sql: `SELECT row_to_json(c) FROM crm.customers c WHERE region = 'EU'`, refused: code(CodeFunction)},
		{name: "whole row counted", sql: `SELECT max(c::text) FROM crm.customers c WHERE region = 'EU'`, refused: code(CodeColumn)},
		{name: "whole row in order by", sql: `SELECT id` + fromEU + ` ORDER BY customers::text`, refused: code(CodeColumn), setup: last},
		{name: "hidden", sql: `SELECT secret` + fromEU, refused: noColumn},
		{name: "hidden in where", sql: `SELECT id` + fromEU + ` AND pin = 5`, refused: noColumn},
		{name: "hidden in order by", sql: `SELECT id` + fromEU + ` ORDER BY pin = 5, id DESC`, refused: noColumn, setup: `UPDATE crm.customers SET pin = 0 WHERE secret = 'a1'`},
		{name: "hidden in group by", sql: `SELECT count(id)` + fromEU + ` GROUP BY pin = 5 ORDER BY 1`, refused: noColumn, setup: `UPDATE crm.customers SET pin = 0 WHERE secret = 'a1'`},
		{name: "hidden in having", sql: `SELECT count(id)` + fromEU + ` HAVING max(pin) = 5`, refused: noColumn},
		{name: "field of the row", sql: `SELECT (c).secret FROM crm.customers c WHERE region = 'EU'`, refused: code(CodeNode)},
		{name: "function as a column", sql: `SELECT c.leak FROM crm.customers c WHERE region = 'EU'`, refused: noColumn},
		{name: "alias with columns", sql: `SELECT id FROM crm.customers AS c (id, x, name) WHERE region = 'EU'`, refused: code(CodeTable)},
		{name: "window over hidden", sql: `SELECT id, sum(pin) OVER ()` + fromEU, refused: code(CodeClause)},
		{name: "named window", sql: `SELECT id, sum(pin) OVER w` + fromEU + ` WINDOW w AS ()`, refused: code(CodeClause)},
		{name: "case over hidden", sql: `SELECT CASE WHEN pin = 5 THEN 1 ELSE 0 END` + fromEU, refused: code(CodeNode)},
		{name: "division by hidden", sql: `SELECT 1 / (pin - 5)` + fromEU, refused: noColumn},
		{name: "ctid", sql: `SELECT ctid` + fromEU, refused: code(CodeColumn)},
		{name: "tableoid", sql: `SELECT tableoid` + fromEU, refused: code(CodeColumn)},
		{name: "xmin", sql: `SELECT xmin` + fromEU, refused: code(CodeColumn)},
		{name: "foreign qualifier", sql: `SELECT other.secret` + fromEU, refused: code(CodeColumn), shown: rejected, code: "42P01"},
		{name: "distinct on hidden", sql: `SELECT DISTINCT ON (pin = 5) id` + fromEU, refused: code(CodeClause), setup: `UPDATE crm.customers SET pin = 0 WHERE secret = 'a1'`},
		{name: "greatest", sql: `SELECT greatest(secret, '')` + fromEU, refused: code(CodeNode)},
		{name: "array", sql: `SELECT ARRAY[secret]` + fromEU, refused: code(CodeNode)},
		{name: "aggregate order", sql: `SELECT string_agg(name, ',' ORDER BY secret)` + fromEU, refused: code(CodeClause), setup: last},
	}
}

func rowEvasions(version int) []evasion {
	jsonTable := evasion{name: "json_table", sql: `SELECT j.s FROM JSON_TABLE((SELECT to_jsonb(max(secret))` + from + `), '$' COLUMNS (s text PATH '$')) j`, refused: code(CodeTable)}
	if version < 170000 {
		jsonTable.shown, jsonTable.code = rejected, "42601"
	}
	return []evasion{
		{name: "union", sql: base + ` UNION SELECT id, secret` + from, refused: code(CodeClause)},
		{name: "union all", sql: base + ` UNION ALL SELECT id, secret` + from, refused: code(CodeClause)},
		{name: "intersect", sql: `SELECT id, name` + from + ` INTERSECT SELECT id, name` + us, refused: code(CodeClause)},
		{name: "except", sql: `SELECT id, name` + from + ` EXCEPT ` + base, refused: code(CodeClause)},
		{name: "sub-select in the list", sql: `SELECT id, (SELECT max(secret)` + from + `)` + fromEU, refused: code(CodeNode)},
		{name: "sub-select in where", sql: base + ` AND EXISTS (SELECT 1` + from + ` WHERE pin = 5)`, refused: code(CodeNode)},
		{name: "sub-select in order by", sql: base + ` ORDER BY id * (SELECT 1 - 2 * (count(*) % 2)` + us + `)`, refused: code(CodeNode)},
		{name: "sub-select in limit", sql: base + ` LIMIT (SELECT count(*)` + us + `)`, refused: code(CodeClause)},
		{name: "sub-select in offset", sql: base + ` OFFSET (SELECT count(*)` + us + `)`, refused: code(CodeClause)},
		{name: "sub-select in from", sql: `SELECT id, name FROM (SELECT id, secret AS name` + from + `) AS customers`, refused: code(CodeTable)},
		{name: "lateral", sql: `SELECT c.id, x.secret FROM crm.customers c, LATERAL (SELECT secret` + from + `) x WHERE c.region = 'EU'`, refused: code(CodeTable)},
		{name: "join", sql: `SELECT c.id, d.secret FROM crm.customers c JOIN crm.customers d ON true WHERE c.region = 'EU'`, refused: code(CodeTable)},
		{name: "self-join by comma", sql: `SELECT c.id, d.secret FROM crm.customers c, crm.customers d WHERE c.region = 'EU'`, refused: code(CodeTable)},
		{name: "natural join", sql: `SELECT id FROM crm.customers NATURAL JOIN crm.everyone WHERE region = 'EU'`, refused: code(CodeTable), shown: harmless, why: "a second table"},
		{name: "table", sql: `TABLE crm.customers`, refused: code(CodeColumn)},
		{name: "values", sql: `VALUES ((SELECT max(secret)` + from + `))`, refused: code(CodeClause)},
		{name: "tablesample", sql: `SELECT id, name FROM crm.customers TABLESAMPLE SYSTEM (100) WHERE region = 'EU'`, refused: code(CodeTable), shown: harmless, why: "a sample depends on rows outside"},
		{name: "generate_series", sql: `SELECT g FROM generate_series(1, (SELECT count(*)` + from + `)) g`, refused: code(CodeTable)},
		{name: "rows from", sql: `SELECT g FROM ROWS FROM (generate_series(1, (SELECT count(*)` + from + `))) g`, refused: code(CodeTable)},
		{name: "set-returning function", sql: `SELECT generate_series(1, pin)` + fromEU, refused: code(CodeFunction)},
		{name: "xmltable", sql: `SELECT x.s FROM XMLTABLE('/r' PASSING (SELECT xmlelement(NAME r, max(secret))` + from + `) COLUMNS s text PATH '.') x`, refused: code(CodeTable)},
		jsonTable,
		{name: "filter", sql: `SELECT count(id) FILTER (WHERE pin = 5)` + fromEU, refused: code(CodeClause)},
		{name: "within group", sql: `SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY pin)` + fromEU, refused: code(CodeClause)},
		{name: "grouping sets", sql: `SELECT count(id), pin` + fromEU + ` GROUP BY GROUPING SETS ((pin), ())`, refused: code(CodeNode)},
		{name: "rollup", sql: `SELECT count(id), pin` + fromEU + ` GROUP BY ROLLUP (pin)`, refused: code(CodeNode)},
		{name: "with ties", sql: base + ` ORDER BY pin = 5 FETCH FIRST 1 ROW WITH TIES`, refused: code(CodeClause), setup: `UPDATE crm.customers SET pin = 0 WHERE secret = 'a1'`},
		{name: "recursion", sql: `WITH RECURSIVE r AS (SELECT secret` + from + ` UNION SELECT secret FROM r) SELECT secret FROM r`, refused: code(CodeClause)},
	}
}

func objectEvasions() []evasion {
	read := func(table string) string { return `SELECT id, name FROM ` + table + ` WHERE region = 'EU'` }
	return []evasion{
		{name: "view", sql: read("crm.everyone"), refused: noTable},
		{name: "materialized view", sql: read("crm.everyone_stored"), refused: noTable},
		{name: "security definer function", sql: `SELECT crm.everything()` + fromEU, refused: code(CodeFunction)},
		{name: "foreign table", sql: read("crm.remote"), refused: noTable},
		{name: "sequence", sql: `SELECT last_value FROM crm.numbers`, refused: noTable},
		{name: "temporary table", sql: read("pg_temp.customers"), setup: `CREATE TEMP TABLE customers AS SELECT id, secret AS name, text 'EU' AS region` + from, refused: code(CodeTable)},
		{name: "partition child", sql: `SELECT id, name FROM crm.parts_us`, refused: noTable},
		{name: "partitioned parent", sql: `SELECT id, name FROM crm.parts`, refused: noTable},
		{name: "inheritance parent", sql: read("crm.parent"), refused: noTable},
		{name: "inheritance parent with star", sql: read("crm.parent*"), refused: noTable},
		{name: "only", sql: read("ONLY crm.customers"), refused: code(CodeTable), shown: harmless, why: "another set of rows than the table's"},
		{name: "pg_catalog", sql: `SELECT relname FROM pg_catalog.pg_class WHERE relname LIKE 'payroll%'`, refused: code(CodeTable)},
		{name: "pg_stats", sql: `SELECT histogram_bounds, most_common_vals FROM pg_catalog.pg_stats WHERE schemaname = 'crm'`, refused: code(CodeTable)},
		{name: "information_schema", sql: `SELECT table_name FROM information_schema.tables WHERE table_schema = 'crm'`, refused: code(CodeTable)},
	}
}

func statementEvasions(dir string) []evasion {
	rows := `SELECT count(*), min(name), max(region)` + from
	file := filepath.Join(dir, "stolen")
	read := `SELECT pg_read_file('` + file + `')`
	kind := code(CodeKind)
	return []evasion{
		{name: "several", sql: base + `; SELECT secret` + from, refused: code(CodeStatements)},
		{name: "several, the first empty", sql: `; SELECT secret` + from, refused: noColumn},
		{name: "none", sql: ` ; -- nothing`, refused: code(CodeStatements), shown: harmless, why: "no statement"},
		{name: "write after read", sql: base + `; DELETE` + from, refused: code(CodeStatements), shown: changes, after: rows},
		{name: "insert", sql: `INSERT INTO crm.customers (id) VALUES (99)`, refused: kind, shown: changes, after: rows},
		{name: "update returning", sql: `UPDATE crm.customers SET name = name RETURNING secret`, refused: kind},
		{name: "delete", sql: `DELETE` + fromEU, refused: kind, shown: changes, after: rows},
		{name: "truncate", sql: `TRUNCATE crm.customers`, refused: kind, shown: changes, after: rows},
		{name: "drop", sql: `DROP TABLE crm.numbers_of_nobody, crm.child`, refused: kind, shown: rejected, code: "42P01"},
		{name: "create table as", sql: `CREATE TABLE crm.copy AS SELECT secret` + from, refused: kind, shown: leaks, after: `SELECT secret FROM crm.copy`},
		{name: "cte that writes", sql: `WITH d AS (DELETE` + from + ` RETURNING secret) SELECT secret FROM d`, refused: code(CodeClause)},
		{name: "into", sql: `SELECT secret INTO crm.copy` + from, refused: code(CodeClause), after: `SELECT secret FROM crm.copy`},
		{name: "for update", sql: base + ` FOR UPDATE`, refused: code(CodeClause), shown: changes, after: `SELECT count(*) FROM pg_locks WHERE mode = 'RowShareLock' AND pid = pg_backend_pid()`},
		{name: "merge", sql: `MERGE INTO crm.customers c USING crm.everyone e ON c.id = e.id WHEN MATCHED THEN DELETE`, refused: kind, shown: changes, after: rows},
		{name: "explain analyze delete", sql: `EXPLAIN ANALYZE DELETE` + from, refused: kind, shown: changes, after: rows},
		{name: "explain", sql: `EXPLAIN SELECT id` + from, refused: kind},
		{name: "copy to a file", sql: `COPY crm.customers (secret) TO '` + file + `'`, refused: kind, after: read},
		{name: "copy to stdout", sql: `COPY crm.customers (secret) TO STDOUT`, refused: kind},
		{name: "copy to a program", sql: `COPY crm.customers (secret) TO PROGRAM 'cat >` + file + `2'`, refused: kind, after: `SELECT pg_read_file('` + file + `2')`},
		{name: "copy from a file", sql: `COPY crm.customers (name) FROM 'PG_VERSION'`, refused: kind, shown: changes, after: rows},
		{name: "copy from a program", sql: `COPY crm.customers (secret) FROM PROGRAM 'echo hello'`, refused: kind, shown: changes, after: rows},
		{name: "do", sql: `DO 'BEGIN RAISE NOTICE ''%'', (SELECT max(secret) FROM crm.customers); END'`, refused: kind},
		{name: "call", sql: `CALL crm.purge()`, refused: kind, shown: changes, after: rows},
		{name: "prepare", sql: `PREPARE p AS SELECT secret` + from, refused: kind, after: `EXECUTE p`},
		{name: "execute", sql: `EXECUTE p`, setup: `PREPARE p AS SELECT secret` + from, refused: kind},
		{name: "declare cursor", sql: `DECLARE c CURSOR FOR SELECT secret` + from, refused: kind, after: `FETCH ALL c`},
		{name: "listen", sql: `LISTEN ch`, refused: kind, bare: true, after: `NOTIFY ch, 'from another call'`, shown: holds, why: "from another call"},
		{name: "notify", sql: `NOTIFY ch, 'to another call'`, setup: `LISTEN ch`, refused: kind, bare: true, shown: holds, why: "to another call"},
		{name: "set search_path", sql: `SET search_path = evil`, refused: kind, shown: changes, after: `SHOW search_path`},
		{name: "set role", sql: `SET ROLE pg_monitor`, refused: kind, shown: changes, after: `SELECT current_user`},
		{name: "set session authorization", sql: `SET SESSION AUTHORIZATION pg_monitor`, refused: kind, shown: changes, after: `SELECT session_user`},
		{name: "set row_security", sql: `SET row_security = off`, refused: kind, shown: changes, after: `SHOW row_security`},
		{name: "reset", sql: `RESET statement_timeout`, setup: `SET statement_timeout = '7s'`, refused: kind, shown: changes, after: `SHOW statement_timeout`},
		{name: "reset all", sql: `RESET ALL`, setup: `SET statement_timeout = '7s'`, refused: kind, shown: changes, after: `SHOW statement_timeout`},
		{name: "discard all", sql: `DISCARD ALL`, setup: `SET statement_timeout = '7s'`, refused: kind, bare: true, shown: changes, after: `SHOW statement_timeout`},
		{name: "set transaction read write", sql: `SET TRANSACTION READ WRITE`, setup: `SET TRANSACTION READ ONLY`, refused: kind, shown: changes, after: `SHOW transaction_read_only`},
		{name: "commit", sql: `COMMIT`, setup: `SET LOCAL row_security = off`, refused: kind, shown: changes, after: `SHOW row_security`},
		{name: "lock", sql: `LOCK crm.customers`, refused: kind, shown: changes, after: `SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND pid = pg_backend_pid()`},
		{name: "vacuum", sql: `VACUUM crm.child`, refused: kind, bare: true, shown: harmless, why: "work without bound"},
		{name: "load", sql: `LOAD '/nowhere/evil'`, refused: kind, shown: rejected, code: "58P01"},
	}
}

func functionEvasions(dir string) []evasion {
	f := code(CodeFunction)
	call := func(expression string) string { return `SELECT ` + expression + fromEU }
	file := filepath.Join(dir, "object")
	dblink := `dblink('host=` + dir + ` user=lineal dbname=' || current_database(), 'SELECT secret FROM crm.customers')`
	return []evasion{
		{name: "set_config", sql: call(`set_config('search_path', 'evil', false)`), refused: f, shown: changes, after: `SHOW search_path`},
		{name: "current_setting", sql: call(`current_setting('port')`), refused: f, shown: holds, why: "5432"},
		{name: "query_to_xml", sql: call(`query_to_xml('SELECT secret FROM crm.customers', true, true, '')`), refused: f},
		{name: "database_to_xml", sql: call(`database_to_xml(true, true, '')`), refused: f, setup: `DROP SERVER loop CASCADE`},
		{name: "dblink", sql: `SELECT x FROM ` + dblink + ` AS t (x text)`, refused: code(CodeTable)},
		{name: "dblink_exec", sql: call(`dblink_exec('host=` + dir + ` user=lineal dbname=a', 'SET x.y = 1')`), refused: f, shown: holds, why: "SET"},
		{name: "pg_read_file", sql: call(`pg_read_file('PG_VERSION')`), refused: f, shown: holds, why: "1"},
		{name: "pg_ls_dir", sql: `SELECT pg_ls_dir('.')`, refused: code(CodeTable), shown: holds, why: "pg_wal"},
		{name: "lo_export", sql: call(`lo_export(4711, '` + file + `')`), setup: `SELECT lo_from_bytea(4711, (SELECT secret::bytea FROM crm.customers WHERE id > 4 ORDER BY id LIMIT 1))`, refused: f, after: `SELECT pg_read_file('` + file + `')`},
		{name: "pg_sleep", sql: `SELECT pg_sleep(0.01)` + fromEU, refused: f, shown: harmless, why: "it holds a connection"},
		{name: "pg_notify", sql: call(`pg_notify('ch', secret)`), setup: `LISTEN ch`, refused: f, bare: true},
		{name: "pg_advisory_lock", sql: call(`pg_advisory_lock(1)`), refused: f, shown: changes, after: `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'`},
		{name: "pg_logical_emit_message", sql: call(`pg_logical_emit_message(false, 'a', 'b')`), refused: f, shown: changes, after: `SELECT pg_current_wal_insert_lsn()`},
		{name: "pg_stat_reset", sql: call(`pg_stat_reset()`), refused: f, bare: true, shown: changes, after: `SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()`},
		{name: "pg_terminate_backend", sql: call(`pg_terminate_backend(0)`), refused: f, shown: holds, why: "[[f]"},
		{name: "nextval", sql: call(`nextval('crm.numbers')`), refused: f, shown: changes, after: `SELECT last_value, is_called FROM crm.numbers`},
		{name: "current_user", sql: call(`current_user`), refused: code(CodeNode), shown: holds, why: superuser},
		{name: "version", sql: call(`version()`), refused: f, shown: holds, why: "PostgreSQL"},
		{name: "xmlparse", sql: call(`XMLPARSE(CONTENT secret)`), refused: code(CodeNode)},
		{name: "xmlelement", sql: call(`XMLELEMENT(NAME a, secret)`), refused: code(CodeNode)},
		{name: "extract", sql: call(`EXTRACT(epoch FROM created) + pin`), refused: f},
		{name: "regclass", sql: call(`'crm.payroll_a'::regclass`), refused: code(CodeType)},
		{name: "user type", sql: call(`'sad'::crm.mood`), refused: code(CodeType), shown: harmless, why: "a type's input function runs"},
		{name: "domain", sql: call(`'x'::crm.spied`), refused: code(CodeType)},
		{name: "array type", sql: call(`'{1}'::int4[]`), refused: code(CodeType), shown: harmless, why: "a type that is not listed"},
		{name: "function by search_path", sql: call(`everything()`), setup: `SET search_path = crm`, refused: f},
		{name: "function of a schema", sql: call(`public.lower(secret)`), refused: f, setup: `CREATE OR REPLACE FUNCTION public.lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1'`},
		{name: "quoted coalesce", sql: call(`"coalesce"(secret)`), refused: f, setup: `CREATE OR REPLACE FUNCTION public."coalesce"(text) RETURNS text LANGUAGE sql AS 'SELECT $1'`},
		{name: "variadic", sql: call(`count(VARIADIC ARRAY[1])`), refused: code(CodeClause), shown: harmless, why: "a call in another form"},
	}
}

func textEvasions(version int) []evasion {
	junk := evasion{name: "digit before a word", sql: `SELECT id, name` + from + ` WHERE id=1OR 1=1`, refused: code(CodeSyntax), shown: rejected, code: "42601"}
	if version < 150000 {
		junk.shown = leaks
	}
	return []evasion{
		{name: "backslash before a quote", sql: `SELECT id, name` + from + ` WHERE name <> 'a\' AND region = $$EU$$ -- ' OR true --`, setup: `SET standard_conforming_strings = off`, refused: code(CodeLiteral)},
		{name: "comment ended by CR", sql: base + " -- \r OR true", refused: noPred},
		{name: "comment ended by LF", sql: base + " -- \n OR true", refused: noPred},
		{name: "comment with U+2028", sql: base + " -- \u2028 OR true", refused: code(CodeText), shown: harmless, why: "others end a line there"},
		{name: "comment with U+0085", sql: base + " -- \u0085 OR true", refused: code(CodeText), shown: harmless, why: "others end a line there"},
		{name: "direction override", sql: base + " -- \u202E OR true", refused: code(CodeText), shown: harmless, why: "it reads differently than it is"},
		{name: "NUL", sql: base + "\x00 OR true", refused: code(CodeText), shown: rejected, code: "08P01"},
		{name: "bad UTF-8", sql: base + " AND name = '\xff'", refused: code(CodeText), shown: rejected, code: "22021"},
		{name: "escaped bad UTF-8", sql: base + ` AND name = E'\xff'`, refused: code(CodeSyntax), shown: rejected, code: "22021"},
		{name: "escaped control character", sql: base + ` AND name = E'\x01'`, refused: code(CodeLiteral), shown: harmless, why: "a constant that cannot be shown"},
		{name: "byte order mark", sql: "\uFEFF" + base, refused: code(CodeText), shown: rejected, code: "42601"},
		junk,
		{name: "hexadecimal", sql: base + ` AND id < 0x1FFFFFFFFFF`, refused: code(CodeLiteral), shown: rejected, code: "42601"},
		{name: "bit string", sql: base + ` AND id = B'1'::int4`, refused: code(CodeLiteral), shown: harmless, why: "a constant that is not listed"},
		{name: "8 KiB and one byte", sql: base + " -- " + strings.Repeat("a", MaxBytes-len(base)-3), refused: code(CodeTooLong), shown: harmless, why: "the cap"},
		{name: "501 tokens", sql: base + " --" + strings.Repeat(" a", MaxTokens+1-countTokens(base+" --")), refused: code(CodeTooLong), shown: harmless, why: "the cap"},
		{name: "canonical form too long", sql: base + ` AND id IN (1` + strings.Repeat(`, 1`, 200) + `)`, refused: code(CodeTooLong), shown: harmless, why: "the cap"},
		{name: "brackets", sql: base + ` AND ` + strings.Repeat("(", 300) + `id` + strings.Repeat(")", 300) + ` = 1`, refused: code(CodeTooLong), shown: harmless, why: "the cap"},
	}
}

func mysqlEvasions() []evasion {
	return []evasion{
		{name: "executable comment", sql: base + ` /*!50000 OR 1=1 */`, refused: code(CodeComment), shown: harmless, why: pgComment},
		{name: "mariadb comment", sql: base + ` /*M!100000 OR 1=1 */`, refused: code(CodeComment), shown: harmless, why: pgComment},
		{name: "dashes without space", sql: base + ` --1`, refused: code(CodeComment), shown: harmless, why: pgComment},
		{name: "hash comment", sql: base + ` # OR 1=1`, refused: code(CodeSyntax), shown: rejected, code: "42601"},
		{name: "backslash", sql: `SELECT id FROM crm.customers WHERE region = 'EU' AND name <> 'a\'' OR name <> '''`, refused: code(CodeLiteral), shown: harmless, why: "another dialect ends the constant elsewhere"},
		{name: "double quotes", sql: `SELECT id FROM crm.customers WHERE region = "EU"`, refused: code(CodeName), shown: rejected, code: "42703"},
		{name: "backticks", sql: "SELECT `id` FROM crm.customers WHERE region = 'EU'", refused: code(CodeSyntax), shown: rejected, code: "42601"},
		{name: "into outfile", sql: base + ` INTO OUTFILE '/srv/x'`, refused: code(CodeSyntax), shown: rejected, code: "42601"},
		{name: "variable", sql: `SELECT @a:=name FROM crm.customers WHERE region = 'EU'`, refused: code(CodeSyntax), shown: rejected, code: "42601"},
		{name: "load_file", sql: `SELECT LOAD_FILE('/etc/passwd')` + fromEU, refused: code(CodeFunction), shown: rejected, code: "42883"},
		{name: "hint", sql: `SELECT /*+ SET_VAR(sql_mode='') */ id` + fromEU, refused: code(CodeComment), shown: harmless, why: pgComment},
		{name: "handler", sql: `HANDLER crm.customers OPEN`, refused: code(CodeSyntax), shown: rejected, code: "42601"},
	}
}
