-- What the reader of the outbox asks. Which rows are new is decided by snapshots alone; see capture/visible.py.

-- name: outbox_installed
-- Whether the outbox is there, whether our role may look into its schema, and whether its function notifies: one row. The
-- catalogs are asked, because to_regclass fails for who may not use the schema.
SELECT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'outbox_reader')
       AND (SELECT count(*) FROM pg_proc p
            WHERE p.pronamespace = n.oid AND p.proname IN ('outbox_write', 'outbox_say', 'outbox_empty')) = 3 AS installed,
       coalesce(has_schema_privilege(n.oid, 'USAGE'), false) AS usage,
       (SELECT position('pg_notify' IN p.prosrc) > 0 FROM pg_proc p
        WHERE p.pronamespace = n.oid AND p.proname = 'outbox_write') AS notifies
FROM (SELECT) AS one LEFT JOIN pg_namespace n ON n.nspname = 'watcher';

-- name: outbox_rights
-- What our role may not do with the outbox; asked where it is there and the schema may be used.
SELECT what FROM (VALUES
    ('SELECT ON watcher.outbox', has_table_privilege('watcher.outbox', 'SELECT')),
    ('SELECT ON watcher.outbox_shape', has_table_privilege('watcher.outbox_shape', 'SELECT')),
    ('SELECT, INSERT, DELETE ON watcher.outbox_batch', has_table_privilege('watcher.outbox_batch', 'SELECT')
     AND has_table_privilege('watcher.outbox_batch', 'INSERT') AND has_table_privilege('watcher.outbox_batch', 'DELETE')),
    ('SELECT, UPDATE ON watcher.outbox_reader', has_table_privilege('watcher.outbox_reader', 'SELECT')
     AND has_table_privilege('watcher.outbox_reader', 'UPDATE')),
    ('EXECUTE ON FUNCTION watcher.outbox_empty(integer)', has_function_privilege('watcher.outbox_empty(integer)', 'EXECUTE'))
) AS rights (what, given)
WHERE NOT given;

-- name: outbox_triggers
-- Our triggers on tables, by the tables' OIDs. `enabled` is A(lways), O(rigin), R(eplica) or D(isabled).
SELECT t.tgrelid::bigint AS relation, t.oid::bigint AS trigger, t.tgname::text AS name, t.tgenabled::text AS enabled
FROM pg_trigger t
WHERE t.tgfoid = to_regprocedure('watcher.outbox_write()') AND t.tgparentid = 0
ORDER BY t.tgrelid, t.tgname;

-- name: outbox_cover
-- The tables named by two arrays, schemas and names, with our triggers on each; and how full the queue of notifications is.
SELECT pg_notification_queue_usage() AS usage,
       (SELECT jsonb_agg(jsonb_build_object(
            'schema', n.nspname, 'name', c.relname, 'oid', c.oid::bigint,
            'triggers', coalesce((
                SELECT jsonb_object_agg(t.tgname, jsonb_build_array(t.oid::bigint, t.tgenabled)) FROM pg_trigger t
                WHERE t.tgrelid = c.oid AND t.tgfoid = to_regprocedure('watcher.outbox_write()')), '{}')))
        FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS w (schema, name)
        JOIN pg_namespace n ON n.nspname = w.schema
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p')) AS tables;

-- name: outbox_triggered
-- The tables that have our triggers, by their names as a statement needs them.
SELECT DISTINCT format('%%I.%%I', n.nspname, c.relname) AS quoted, t.tgname::text AS name
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE t.tgfoid = to_regprocedure('watcher.outbox_write()') AND t.tgparentid = 0
ORDER BY 1, 2;

-- name: outbox_reader
-- In which cluster the outbox was made, who reads it, and what is durable there; and the next transaction id: one row.
SELECT cluster, journal, batch, snapshot::text, end_lsn::text,
       pg_snapshot_xmax(pg_current_snapshot())::text AS next_xid
FROM watcher.outbox_reader;

-- name: outbox_bind
-- Bind the outbox to a journal, unless it is bound to another. One row if that is so now.
UPDATE watcher.outbox_reader SET journal = %(journal)s
WHERE journal IS NULL OR journal = %(journal)s OR %(adopt)s
RETURNING journal;

-- name: outbox_lock
-- Take the outbox for this session. Where it is taken, say by whom; a session that may not write the outbox's state has no
-- business with our lock, and does not count. The key is the outbox's own.
WITH lock AS (
    SELECT hashtextextended(outbox::text, 0) AS key FROM watcher.outbox_reader
), got AS (
    SELECT key, pg_try_advisory_lock(key) AS got FROM lock
)
SELECT got.got, l.pid, a.application_name,
       coalesce(has_table_privilege(a.usesysid, 'watcher.outbox_reader', 'UPDATE'), true) AS entitled
FROM got LEFT JOIN pg_locks l ON NOT got.got AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND ((l.classid::bigint << 32) | l.objid::bigint) = got.key
LEFT JOIN pg_stat_activity a ON a.pid = l.pid;

-- name: outbox_claim
-- Begin a batch, if there is anything that the last snapshot did not see. Rows of transactions it did not see have an xid
-- from its xmax on, or one of those that were in progress.
INSERT INTO watcher.outbox_batch (number, snapshot, start_lsn)
SELECT %(number)s, pg_current_snapshot(), greatest(pg_current_wal_insert_lsn(), %(floor)s::pg_lsn)
FROM watcher.outbox_reader r
WHERE r.journal = %(journal)s AND (
    EXISTS (SELECT FROM watcher.outbox WHERE xid >= %(xmax)s::xid8)
    OR EXISTS (SELECT FROM watcher.outbox WHERE xid = ANY (%(xip)s::xid8[])))
RETURNING number, snapshot::text, start_lsn::text;

-- name: outbox_batches
-- The batches that were begun and are not done.
SELECT b.number, b.snapshot::text, b.start_lsn::text
FROM watcher.outbox_batch b JOIN watcher.outbox_reader r ON b.number > r.batch
ORDER BY b.number;

-- name: outbox_done
-- Note that everything of a batch, and before it, is durable with the reader.
WITH done AS (
    UPDATE watcher.outbox_reader SET batch = %(number)s, snapshot = %(snapshot)s::pg_snapshot, end_lsn = %(end_lsn)s::pg_lsn
    WHERE journal = %(journal)s AND batch < %(number)s
    RETURNING batch
)
DELETE FROM watcher.outbox_batch b USING done WHERE b.number <= done.batch RETURNING b.number;

-- name: outbox_parts
-- The parts that hold something, and the one that is written now.
SELECT part, pg_table_size(format('watcher.outbox_part_%%s', part)::regclass) AS size_bytes,
       ((SELECT last_value FROM watcher.outbox_number) >> 15) & 7 = part AS written
FROM generate_series(0, 7) AS part
WHERE pg_relation_size(format('watcher.outbox_part_%%s', part)::regclass) > 0;

-- name: outbox_empty
-- Empty one part, if nothing of it is needed.
SELECT watcher.outbox_empty(%(part)s) AS emptied;

-- name: outbox_transactions
-- The transactions of a batch, in the order of their last rows. Of the rows themselves only the size is looked at.
SELECT xid::text AS xid, max(number) AS last_number, count(*) AS rows,
       sum(coalesce(octet_length(old_row), 0) + coalesce(octet_length(new_row), 0))::bigint AS size_bytes,
       (extract(epoch FROM max(at) - '2000-01-01 00:00:00+00'::timestamptz) * 1000000)::bigint AS micros
FROM watcher.outbox
WHERE (xid >= %(xmax)s::xid8 OR xid = ANY (%(xip)s::xid8[])) AND pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
GROUP BY xid
ORDER BY max(number)
LIMIT %(limit)s::bigint;

-- name: outbox_rows
-- The rows of some transactions, as they were written.
SELECT xid::text, number, shape, operation::text, old_row, new_row
FROM watcher.outbox
WHERE xid = ANY (%(xids)s::xid8[]) AND number > %(after)s
ORDER BY number
LIMIT %(limit)s::bigint;

-- name: outbox_say
-- Write a message, as a transaction of its own.
SELECT watcher.outbox_say(%(prefix)s::text, %(content)s::text);

-- name: outbox_say_at
-- Write an empty message, as a transaction of its own, and say where the WAL ended before.
SELECT lsn::text FROM (SELECT pg_current_wal_insert_lsn() AS lsn) AS here,
       LATERAL (SELECT watcher.outbox_say(%(prefix)s::text, '')) AS said;

-- name: outbox_shapes
-- How tables looked.
SELECT DISTINCT ON (shape) shape, relation::bigint, schema, name, columns
FROM watcher.outbox_shape
WHERE shape = ANY (%(shapes)s::bigint[]);

-- name: notification_queue
-- How full the queue of notifications is. It belongs to all databases of the cluster, and who sits in a transaction and
-- listens keeps it from being emptied; when it is full, commits that notify fail.
SELECT pg_notification_queue_usage() AS usage;

-- name: commits
-- How many transactions may be prepared for two-phase commit, and how many have been committed in a second, on average
-- since the statistics of this database began. Most of them only read; nobody counts those that write.
SELECT current_setting('max_prepared_transactions')::int AS prepared_max,
       (xact_commit / greatest(extract(epoch FROM now() - coalesce(stats_reset, pg_postmaster_start_time())), 60))::float8
           AS per_second
FROM pg_stat_database WHERE datname = current_database();
