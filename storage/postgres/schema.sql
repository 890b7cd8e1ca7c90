-- The tables of ledger.md section 4. Times are Unix milliseconds of the
-- server's clock; digests and ids are text, compared by bytes, so that no
-- index depends on the collations of an operating system; published is NULL
-- until it is published.

CREATE TABLE writer (
  log      TEXT COLLATE "C" NOT NULL,
  gw_id    TEXT COLLATE "C" NOT NULL,
  run      TEXT COLLATE "C" NOT NULL,
  next_seq BIGINT NOT NULL,
  tail     TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (log, gw_id)
) WITH (fillfactor = 50);

-- Envelopes are base64 and signatures: compressing them only costs time. Most
-- fit beside each other on a page, without the detour of a second table.
CREATE TABLE body (
  record_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  envelope  BYTEA NOT NULL
) WITH (toast_tuple_target = 8160);

-- A queue: every row leaves it soon, so it is vacuumed by number, not by share.
CREATE TABLE intake (
  id        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  log       TEXT COLLATE "C" NOT NULL,
  record_id TEXT COLLATE "C" NOT NULL,
  at        BIGINT NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE head (
  log         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  origin      TEXT COLLATE "C" NOT NULL,
  epoch       BIGINT NOT NULL,
  holder      TEXT COLLATE "C" NOT NULL,
  lease_until BIGINT NOT NULL,
  size        BIGINT NOT NULL,
  at          BIGINT NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE entry (
  origin    TEXT COLLATE "C" NOT NULL,
  idx       BIGINT NOT NULL,
  record_id TEXT COLLATE "C" NOT NULL UNIQUE,
  leaf_hash BYTEA NOT NULL,
  at        BIGINT NOT NULL,
  PRIMARY KEY (origin, idx)
);

CREATE TABLE checkpoint (
  origin    TEXT COLLATE "C" NOT NULL,
  size      BIGINT NOT NULL,
  root      BYTEA NOT NULL,
  note      BYTEA NOT NULL,
  published BIGINT,
  PRIMARY KEY (origin, size)
);

CREATE TABLE blob (
  digest TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  class  TEXT COLLATE "C" NOT NULL,
  bytes  BYTEA NOT NULL
);

CREATE TABLE data_key (
  digest     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  person_ref TEXT COLLATE "C",
  wrapped    BYTEA NOT NULL
);

ALTER TABLE body ALTER COLUMN envelope SET STORAGE EXTERNAL;
ALTER TABLE blob ALTER COLUMN bytes SET STORAGE EXTERNAL;
