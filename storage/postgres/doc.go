// Package postgres keeps a ledger, and the registries, in PostgreSQL, for any
// number of processes at once.
//
//	gateway A ──┐                    ┌─ schema lineal           the ledger
//	gateway B ──┼── pool ── primary ─┼─ schema lineal_registry  issued, revoked, bound
//	sequencer ──┤                    ├─ schema lineal_proofs    used once
//	            │                    ├─ schema lineal_pins      JWTs and their first keys
//	            │                    └─ schema lineal_logins    logins, codes, families
//	            └── pool ── another  ─── schema lineal_persons  who is behind a reference
//
// It promises the contract of [ledger.Store]: a nil from a write means that
// the server confirmed the commit, with everything its durability rests on
// checked on that very connection (see [ErrUnsafe]). A commit is never
// cancelled, by no context and by no cancel request. When its answer is lost,
// or comes with a warning (the server acknowledges a commit whose standby did
// not confirm it with one), the write is ledger.ErrAmbiguous, and the same
// batch sent again is recognised; recognising it waits for the standby anew.
//
// Processes are kept apart by rows: a writer by its run and next_seq, the
// sequencer by epoch and size. All times are the server's clock.
//
// Connect to the primary itself or through a proxy that pools whole sessions:
// sessions carry settings and prepared statements. Replicas are not read, they
// may be behind or on another branch of history.
//
// # Roles
//
// Open with Config.Create, under the owner, makes and upgrades the tables; it
// belongs into "ledger init". Services run under lesser roles, which
// [Store.Roles] makes: lineal_append for gateways and token services,
// lineal_sequencer, and lineal_reader for auditors and the search index.
//
// It does not make databases, logins or backups, and does not fail over: it
// refuses a server that is in recovery.
package postgres
