-- What each kind of process may do, for the schema that search_path names
-- first. The roles cannot log in; grant them to logins of your own:
--
--   CREATE ROLE gateway_a LOGIN PASSWORD '…' IN ROLE lineal_append;
--
-- Nobody but the owner may change or delete a body, an entry or a checkpoint's
-- note; the sequencer moves rows out of intake and marks what is published.

DO $$
DECLARE
  s TEXT := quote_ident(current_schema());
  r TEXT;
BEGIN
  FOREACH r IN ARRAY ARRAY['lineal_append', 'lineal_sequencer', 'lineal_reader'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', r);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %s TO %I', s, r);
    EXECUTE format('GRANT SELECT ON layout, head, entry, body, checkpoint, blob, data_key, intake TO %I', r);
  END LOOP;
END $$;

GRANT SELECT, INSERT, UPDATE ON writer TO lineal_append;
GRANT INSERT ON body, intake, blob, data_key TO lineal_append;

GRANT UPDATE (epoch, holder, lease_until, size, at) ON head TO lineal_sequencer;
GRANT INSERT ON entry, checkpoint TO lineal_sequencer;
GRANT UPDATE (published, note) ON checkpoint TO lineal_sequencer;
GRANT DELETE ON intake TO lineal_sequencer;
GRANT SELECT, UPDATE (run) ON writer TO lineal_sequencer; -- stops a writer whose record it refuses
