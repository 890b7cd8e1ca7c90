-- What package search asks a log of records by. All of it can be made again from
-- the ledger (ledger.md §4). The indexes that order it are made apart, so
-- that they can be made after a long log was read.

-- Texts that many records share.
CREATE TABLE ix_name (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;

-- One row for each entry. Ids are the 16 bytes of UUIDs; person, callee and so on
-- are of ix_name.
CREATE TABLE ix_record (
  idx INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind INTEGER NOT NULL, writer INTEGER NOT NULL,
  record_id BLOB NOT NULL, call_id BLOB, txn BLOB, parent_call BLOB,
  person INTEGER, callee_kind INTEGER, resource INTEGER, tool INTEGER, op INTEGER,
  effect INTEGER, reason INTEGER, bundle INTEGER) STRICT;

-- Who a record names: hop 0 and up are the chain, -1 and down everybody else.
-- hash is the first 8 bytes of the hash of the receipt or token.
CREATE TABLE ix_hop (idx INTEGER NOT NULL, hop INTEGER NOT NULL, actor INTEGER, audience INTEGER, hash INTEGER,
  PRIMARY KEY (idx, hop)) STRICT, WITHOUT ROWID;

-- The digest of the rules that were asked, and the rules that determined.
CREATE TABLE ix_policy (policy INTEGER NOT NULL, idx INTEGER NOT NULL, PRIMARY KEY (policy, idx)) STRICT, WITHOUT ROWID;

CREATE TABLE ix_issuance (idx INTEGER PRIMARY KEY, result INTEGER NOT NULL, jti BLOB, receipt INTEGER, token INTEGER, parent INTEGER) STRICT;
CREATE TABLE ix_outcome (idx INTEGER PRIMARY KEY, decision BLOB NOT NULL, status INTEGER NOT NULL, forwarded INTEGER NOT NULL) STRICT;

-- The earliest and the latest time that 4,096 entries assert: times are the
-- writers' and need not ascend.
CREATE TABLE ix_span (block INTEGER PRIMARY KEY, earliest INTEGER NOT NULL, latest INTEGER NOT NULL) STRICT;

CREATE TABLE cursor (one INTEGER PRIMARY KEY CHECK (one = 1), origin TEXT NOT NULL, next INTEGER NOT NULL, tail TEXT NOT NULL,
  generation INTEGER NOT NULL) STRICT;
INSERT INTO cursor VALUES (1, '', 0, '', 0);

-- For those who ask in SQL.
CREATE VIEW records AS SELECT r.idx, strftime('%Y-%m-%dT%H:%M:%fZ', r.at / 1000.0, 'unixepoch') AS time, k.text AS kind, w.text AS writer,
  lower(hex(r.record_id)) AS record_id, lower(hex(r.call_id)) AS call_id, lower(hex(r.txn)) AS txn, lower(hex(r.parent_call)) AS parent_call,
  p.text AS person, ck.text AS callee_kind, c.text AS resource, t.text AS tool, o.text AS op, e.text AS effect, z.text AS reason, b.text AS bundle
  FROM ix_record r JOIN ix_name k ON k.id = r.kind JOIN ix_name w ON w.id = r.writer
  LEFT JOIN ix_name p ON p.id = r.person LEFT JOIN ix_name ck ON ck.id = r.callee_kind LEFT JOIN ix_name c ON c.id = r.resource
  LEFT JOIN ix_name t ON t.id = r.tool LEFT JOIN ix_name o ON o.id = r.op LEFT JOIN ix_name e ON e.id = r.effect
  LEFT JOIN ix_name z ON z.id = r.reason LEFT JOIN ix_name b ON b.id = r.bundle;
CREATE VIEW hops AS SELECT h.idx, h.hop, a.text AS actor, u.text AS audience FROM ix_hop h
  LEFT JOIN ix_name a ON a.id = h.actor LEFT JOIN ix_name u ON u.id = h.audience;
CREATE VIEW policies AS SELECT p.idx, n.text AS policy FROM ix_policy p JOIN ix_name n ON n.id = p.policy;
CREATE VIEW issuances AS SELECT i.idx, n.text AS result, lower(hex(i.jti)) AS jti, a.text AS actor, u.text AS audience FROM ix_issuance i
  JOIN ix_name n ON n.id = i.result LEFT JOIN ix_hop h ON h.idx = i.idx AND h.hop = -1
  LEFT JOIN ix_name a ON a.id = h.actor LEFT JOIN ix_name u ON u.id = h.audience;
CREATE VIEW outcomes AS SELECT o.idx, d.idx AS decision, s.text AS status, o.forwarded FROM ix_outcome o
  JOIN ix_name s ON s.id = o.status LEFT JOIN ix_record d ON d.record_id = o.decision;
