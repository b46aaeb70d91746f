-- What is asked to read the rows of a table. These only read.

-- name: table_to_read
-- One published table, as a walsender would describe it: its columns in their order, with their types and whether they
-- belong to the replica identity, the filter of its rows, and what its rows can be put in order by. "identity" is the
-- index that identifies a row: the primary key, or the one that was chosen; it serves only where it takes no
-- NULL and covers whole columns. "leaves" are the relations that hold the rows, with their size in pages.
-- Without a publication it is the table as the outbox has it: all columns but the generated ones.
-- A server before 15 knows no lists and no filters; generated columns are sent from 18 on, where the publication says so.
WITH RECURSIVE published AS (
    SELECT to_jsonb(p) AS entry FROM pg_publication_tables p
    WHERE p.pubname = %(publication)s::name
      AND (p.schemaname, p.tablename) = (SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n
                                         ON n.oid = c.relnamespace WHERE c.oid = %(oid)s)
), parts AS (
    SELECT %(oid)s::oid AS relid
    UNION ALL
    SELECT i.inhrelid FROM parts JOIN pg_inherits i ON i.inhparent = parts.relid
    JOIN pg_class root ON root.oid = %(oid)s AND root.relkind = 'p'
), index AS (
    SELECT i.indexrelid, i.indkey, i.indnkeyatts, i.indisreplident
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    WHERE i.indrelid = %(oid)s AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
      AND (i.indisprimary OR (c.relreplident = 'i' AND i.indisreplident))
)
SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
       c.relreplident::text AS replica_identity, c.relispartition AS is_partition,
       (SELECT entry ->> 'rowfilter' FROM published) AS filter,
       EXISTS (SELECT FROM published) AS published,
       (SELECT jsonb_agg(jsonb_build_object(
            'name', a.attname, 'type_oid', a.atttypid::bigint, 'modifier', a.atttypmod,
            'identity', c.relreplident = 'f' OR EXISTS (
                SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND a.attnum = ANY (i.indkey)
                AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate
                                        WHEN 'i' THEN i.indisreplident ELSE false END)) ORDER BY a.attnum)
        FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND (a.attgenerated = '' OR (current_setting('server_version_num')::int >= 180000
                                       AND %(publication)s::name IS NOT NULL))
          AND coalesce((SELECT entry -> 'attnames' FROM published) ? a.attname::text, true)) AS columns,
       (SELECT array_agg(a.attname::text ORDER BY k.place)
        FROM index CROSS JOIN unnest(index.indkey) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
        WHERE k.place <= index.indnkeyatts AND index.indexrelid = (
            SELECT indexrelid FROM index ORDER BY (c.relreplident = 'i') = indisreplident DESC LIMIT 1)) AS key,
       (SELECT jsonb_agg(jsonb_build_array(leaf.oid::bigint, s.nspname, leaf.relname,
                                           pg_relation_size(leaf.oid) / current_setting('block_size')::int)
                         ORDER BY leaf.oid)
        FROM parts JOIN pg_class leaf ON leaf.oid = parts.relid JOIN pg_namespace s ON s.oid = leaf.relnamespace
        WHERE leaf.relkind <> 'p') AS leaves,
       (SELECT sum(greatest(leaf.reltuples, 0))::bigint
        FROM parts JOIN pg_class leaf ON leaf.oid = parts.relid WHERE leaf.relkind <> 'p') AS estimated_rows
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = %(oid)s;

-- name: snapshot_now
-- What this transaction sees.
SELECT pg_current_snapshot()::text AS snapshot;

-- name: writing_now
-- The transactions that have an id and are not over. A transaction locks its id and those of its subtransactions, of
-- which its own is the oldest. Only the lower 32 bits are shown; "near" is an id of today with all 64.
SELECT (array_agg(l.transactionid ORDER BY age(l.transactionid) DESC))[1]::text::bigint AS xid,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS near
FROM pg_locks l
WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
GROUP BY l.virtualtransaction;

-- name: not_committing
-- Of some transactions, those that have surely not written their commit yet: their sessions wait for the application.
-- A session shows the lower 32 bits of its transaction's id.
SELECT backend_xid::text::bigint AS xid FROM pg_stat_activity
WHERE backend_xid::text::bigint = ANY (%(xids)s::bigint[]) AND state LIKE 'idle in transaction%%';

-- name: who_runs
-- The sessions of some transactions, for people.
SELECT pid FROM pg_stat_activity WHERE backend_xid::text::bigint = ANY (%(xids)s::bigint[]) ORDER BY pid;

-- name: key_types
-- How the types of some columns are written, in the order of their names, and whether equal values always have the same
-- text: boolean, bytea, "char", name, bigint, smallint, integer, text, oid, varchar, date, timestamps and uuid have.
SELECT format_type(a.atttypid, a.atttypmod) AS type,
       a.atttypid IN (16, 17, 18, 19, 20, 21, 23, 25, 26, 1043, 1082, 1114, 1184, 2950)
       AND coalesce((SELECT c.collisdeterministic FROM pg_collation c WHERE c.oid = a.attcollation), true) AS exact
FROM unnest(%(names)s::text[]) WITH ORDINALITY AS k (name, place)
JOIN pg_attribute a ON a.attrelid = %(oid)s AND a.attname = k.name AND NOT a.attisdropped
ORDER BY k.place;
