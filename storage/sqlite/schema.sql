-- The tables of ledger.md section 4, in SQLite's types. STRICT makes the engine
-- refuse a value of another type. Times are Unix milliseconds of the database
-- clock; digests and ids are text; published is NULL until it is published.

CREATE TABLE writer (
  log      TEXT    NOT NULL,
  gw_id    TEXT    NOT NULL,
  run      TEXT    NOT NULL,
  next_seq INTEGER NOT NULL,
  tail     TEXT    NOT NULL,
  PRIMARY KEY (log, gw_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE body (
  record_id TEXT NOT NULL PRIMARY KEY,
  envelope  BLOB NOT NULL
) STRICT;

CREATE TABLE intake (
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  log       TEXT    NOT NULL,
  record_id TEXT    NOT NULL,
  at        INTEGER NOT NULL
) STRICT;

CREATE TABLE head (
  log         TEXT    NOT NULL PRIMARY KEY,
  origin      TEXT    NOT NULL,
  epoch       INTEGER NOT NULL,
  holder      TEXT    NOT NULL,
  lease_until INTEGER NOT NULL,
  size        INTEGER NOT NULL,
  at          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE entry (
  origin    TEXT    NOT NULL,
  idx       INTEGER NOT NULL,
  record_id TEXT    NOT NULL UNIQUE,
  leaf_hash BLOB    NOT NULL,
  at        INTEGER NOT NULL,
  PRIMARY KEY (origin, idx)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoint (
  origin    TEXT    NOT NULL,
  size      INTEGER NOT NULL,
  root      BLOB    NOT NULL,
  note      BLOB    NOT NULL,
  published INTEGER,
  PRIMARY KEY (origin, size)
) STRICT, WITHOUT ROWID;

CREATE TABLE blob (
  digest TEXT NOT NULL PRIMARY KEY,
  class  TEXT NOT NULL,
  bytes  BLOB NOT NULL
) STRICT;

CREATE TABLE data_key (
  digest     TEXT NOT NULL PRIMARY KEY,
  person_ref TEXT,
  wrapped    BLOB NOT NULL
) STRICT;
