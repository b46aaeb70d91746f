-- The outbox: what watched tables' triggers write, in the application's own transaction. A script, not a query: run as it
-- stands, in one transaction, by who owns the schema `watcher` or may make it. It may be run again, and changes nothing then.

CREATE SCHEMA IF NOT EXISTS watcher;
REVOKE ALL ON SCHEMA watcher FROM PUBLIC;

CREATE SEQUENCE IF NOT EXISTS watcher.outbox_number CACHE 1;

-- One row for one change, or for a message. `number` only orders: a transaction that began later may have committed earlier, so nothing is
-- ever found by a number above the last one, but by the snapshot that sees its `xid`. A part is emptied as a whole once all
-- in it is read: nothing is deleted row by row. Numbers go round the parts, 32,768 to each.
CREATE TABLE IF NOT EXISTS watcher.outbox (
    part smallint NOT NULL,
    number bigint NOT NULL,
    xid xid8 NOT NULL,
    shape bigint NOT NULL,
    operation "char" NOT NULL,
    at timestamptz NOT NULL,
    old_row text,
    new_row text
) PARTITION BY LIST (part);

DO $parts$
BEGIN
    FOR part IN 0..7 LOOP
        EXECUTE format(
            'CREATE TABLE IF NOT EXISTS watcher.outbox_part_%s PARTITION OF watcher.outbox FOR VALUES IN (%s) '
            'WITH (autovacuum_vacuum_insert_threshold = -1)', part, part);
    END LOOP;
END
$parts$;
CREATE INDEX IF NOT EXISTS outbox_xid ON watcher.outbox (xid, number);

-- How a table looked when a row was written. Two transactions may write the same shape down: none waits for the other.
CREATE TABLE IF NOT EXISTS watcher.outbox_shape (
    shape bigint NOT NULL,
    relation oid NOT NULL,
    schema text NOT NULL,
    name text NOT NULL,
    columns jsonb NOT NULL
);
CREATE INDEX IF NOT EXISTS outbox_shape_shape ON watcher.outbox_shape (shape);

-- What the reader has begun to read: everything that `snapshot` sees and the one before it did not.
CREATE TABLE IF NOT EXISTS watcher.outbox_batch (
    number bigint PRIMARY KEY,
    snapshot pg_snapshot NOT NULL,
    start_lsn pg_lsn NOT NULL
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- What the reader's journal has made durable, up to and with `batch`: what `snapshot` sees is not needed any more.
CREATE TABLE IF NOT EXISTS watcher.outbox_reader (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    outbox uuid NOT NULL DEFAULT gen_random_uuid(),
    cluster text NOT NULL DEFAULT (pg_control_system()).system_identifier,
    journal text,
    batch bigint NOT NULL DEFAULT 0,
    snapshot pg_snapshot NOT NULL DEFAULT '1:1:',
    end_lsn pg_lsn NOT NULL DEFAULT pg_current_wal_insert_lsn()
) WITH (fillfactor = 10);
INSERT INTO watcher.outbox_reader DEFAULT VALUES ON CONFLICT DO NOTHING;

-- Writes one change. The texts are those of a logical decoding session, whatever the application has set. `record_out` is
-- called by its name: a cast of a row to text could be somebody else's function, and would run with our rights.
CREATE OR REPLACE FUNCTION watcher.outbox_write() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET "DateStyle" = 'ISO,YMD' SET "IntervalStyle" = postgres SET "TimeZone" = 'UTC' SET extra_float_digits = 3
SET bytea_output = hex SET lc_monetary = 'C' SET quote_all_identifiers = off AS
$body$
DECLARE
    -- Rows of a partition come under the name of what was partitioned, unless the partition itself is watched.
    watched CONSTANT oid := CASE WHEN TG_NARGS > 0 THEN TG_RELID ELSE coalesce(pg_partition_root(TG_RELID), TG_RELID) END;
    mark bigint;
    known boolean;
    -- What the application said of its transaction. Both are forgotten at its end, and the second at a rollback too.
    said CONSTANT text := current_setting('backend_watcher.context', true);
    woken text;
BEGIN
    IF said <> '' AND said IS DISTINCT FROM current_setting('backend_watcher.context_told', true) THEN
        INSERT INTO watcher.outbox (part, number, xid, shape, operation, at, old_row, new_row)
        SELECT (n >> 15) & 7, n, pg_current_xact_id(), 0, 'M', clock_timestamp(), 'backend_watcher.context', said
        FROM nextval('watcher.outbox_number') AS n;
        PERFORM set_config('backend_watcher.context_told', said, true);
    END IF;
    INSERT INTO watcher.outbox AS o (part, number, xid, shape, operation, at, old_row, new_row)
    SELECT (n >> 15) & 7, n, pg_current_xact_id(),
           coalesce((
               SELECT bit_xor(hashint8extended(
                   hashnameextended(a.attname, (a.atttypid::bigint << 32) + a.atttypmod),
                   a.attnum * 256 + ascii(a.attgenerated::text)))
               FROM pg_attribute a WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped), 0)
           # hashtextextended(watched::regclass::text, watched::bigint),
           left(TG_OP, 1)::"char", clock_timestamp(), textin(record_out(OLD)), textin(record_out(NEW))
    FROM nextval('watcher.outbox_number') AS n
    RETURNING o.shape, EXISTS (SELECT FROM watcher.outbox_shape s WHERE s.shape = o.shape) INTO mark, known;
    IF NOT known THEN
        INSERT INTO watcher.outbox_shape (shape, relation, schema, name, columns)
        SELECT mark, c.oid, n.nspname, c.relname, coalesce((
            SELECT jsonb_agg(jsonb_build_array(a.attname, a.atttypid::bigint, a.atttypmod, a.attgenerated) ORDER BY a.attnum)
            FROM pg_attribute a WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped), '[]')
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = watched;
    END IF;
    -- notify: however many a transaction asks for, the server sends one.
    woken := pg_notify('watcher_outbox', '')::text;
    RETURN NULL;
END
$body$;
REVOKE ALL ON FUNCTION watcher.outbox_write() FROM PUBLIC;

-- Writes a message of an application: `operation` is M, `old_row` the prefix and `new_row` the content. Who may use the
-- schema may call it, as everybody may call pg_logical_emit_message; what it writes is read as words, and as nothing else.
CREATE OR REPLACE FUNCTION watcher.outbox_say(prefix text, content text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS
$body$
DECLARE
    woken text;
BEGIN
    IF prefix IS NULL OR prefix = '' OR content IS NULL THEN
        RAISE EXCEPTION 'outbox_say needs a prefix and a content';
    END IF;
    INSERT INTO watcher.outbox (part, number, xid, shape, operation, at, old_row, new_row)
    SELECT (n >> 15) & 7, n, pg_current_xact_id(), 0, 'M', clock_timestamp(), prefix, content
    FROM nextval('watcher.outbox_number') AS n;
    -- notify: as above.
    woken := pg_notify('watcher_outbox', '')::text;
END
$body$;
GRANT EXECUTE ON FUNCTION watcher.outbox_say(text, text) TO PUBLIC;

-- Empties a part of which nothing is needed any more; says whether it did. Waits for nobody for longer than 50 ms, and so
-- nobody waits longer for it. Whoever writes into the part holds a lock on it until the end: once we have ours, all that is
-- in it is committed, and either seen by the reader's snapshot or found here.
CREATE OR REPLACE FUNCTION watcher.outbox_empty(part integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS
$body$
DECLARE
    done pg_snapshot;
    needed boolean;
BEGIN
    IF part IS NULL OR part NOT BETWEEN 0 AND 7 OR current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'outbox_empty is for a part from 0 to 7, in a read committed transaction';
    END IF;
    EXECUTE format('LOCK TABLE ONLY watcher.outbox_part_%s IN ACCESS EXCLUSIVE MODE', part);
    SELECT snapshot INTO STRICT done FROM watcher.outbox_reader;
    EXECUTE format(
        'SELECT EXISTS (SELECT FROM watcher.outbox_part_%1$s WHERE xid >= $1) '
        'OR EXISTS (SELECT FROM watcher.outbox_part_%1$s WHERE xid = ANY ($2))', part)
    INTO needed USING pg_snapshot_xmax(done), ARRAY(SELECT pg_snapshot_xip(done));
    IF NOT needed THEN
        EXECUTE format('TRUNCATE TABLE ONLY watcher.outbox_part_%s', part);
    END IF;
    RETURN NOT needed;
END
$body$;
REVOKE ALL ON FUNCTION watcher.outbox_empty(integer) FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA watcher FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA watcher FROM PUBLIC;
