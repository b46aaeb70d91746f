-- What can go wrong around a running stream. These only read.

-- name: surroundings
-- The slot, our walsender, the publication and the watched tables, in one question, because it is asked all the
-- time. A table is found by its name and by the OID it was known by. An entry of a publication is never changed in
-- place: another filter or column list is another entry. Entries and tables are put together by who asks: with
-- thousands of both, and catalogs that were never analyzed, the server would compare each with each. "touched"
-- changes with every ALTER of the publication itself, also when it is altered back. A "heartbeat" that is asked for
-- goes along, as the one thing that writes. "fingerprint", where it is asked
-- for, changes when the catalog row of anything does that is said by the query `shapes`: of the same relations, what
-- they consist of, and the user's types in them.
WITH RECURSIVE publication AS (
    SELECT * FROM pg_publication WHERE pubname = %(publication)s
), wished AS (
    SELECT c.oid
    FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS w (schema, name)
    JOIN pg_namespace n ON n.nspname = w.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
    UNION
    SELECT unnest(%(oids)s::oid[])
), related AS (
    (SELECT oid FROM wished UNION SELECT r.prrelid FROM publication p JOIN pg_publication_rel r ON r.prpubid = p.oid)
    UNION
    SELECT i.inhrelid FROM related JOIN pg_inherits i ON i.inhparent = related.oid
    JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
), types (oid) AS (
    SELECT a.atttypid FROM related JOIN pg_attribute a ON a.attrelid = related.oid AND a.attnum > 0
    WHERE a.atttypid >= 16384
    UNION
    SELECT part.oid
    FROM types JOIN pg_type t ON t.oid = types.oid AND t.oid >= 16384
    CROSS JOIN LATERAL (
        SELECT t.typelem WHERE t.typelem <> 0
        UNION ALL SELECT t.typbasetype WHERE t.typbasetype <> 0
        UNION ALL SELECT a.atttypid FROM pg_attribute a
                  WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS part (oid)
), marks AS (
    SELECT concat_ws(' ', 'c', c.oid, n.oid, c.xmin, n.xmin) AS mark
    FROM related JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
    UNION ALL SELECT concat_ws(' ', 'a', attrelid, attnum, a.xmin)
    FROM related JOIN pg_attribute a ON a.attrelid = related.oid AND a.attnum > 0
    UNION ALL SELECT concat_ws(' ', 'i', i.indexrelid, i.xmin) FROM related JOIN pg_index i ON i.indrelid = related.oid
    UNION ALL SELECT concat_ws(' ', 'h', i.inhrelid, i.xmin) FROM related JOIN pg_inherits i ON i.inhrelid = related.oid
    UNION ALL SELECT concat_ws(' ', 'p', t.oid, t.xmin) FROM publication p JOIN pg_publication t ON t.oid = p.oid
    UNION ALL SELECT concat_ws(' ', 'r', r.oid) FROM publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
    UNION ALL SELECT concat_ws(' ', 't', t.oid, t.xmin) FROM types JOIN pg_type t USING (oid)
    UNION ALL SELECT concat_ws(' ', 'e', e.oid, e.xmin) FROM types JOIN pg_enum e ON e.enumtypid = types.oid
    UNION ALL SELECT concat_ws(' ', 'k', a.attrelid, a.attnum, a.xmin)
    FROM types JOIN pg_type t USING (oid) JOIN pg_attribute a ON t.typtype = 'c' AND a.attrelid = t.typrelid
    UNION ALL SELECT concat_ws(' ', 'u', c.oid) FROM publication p CROSS JOIN pg_class c
    WHERE p.puballtables AND c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384 AND NOT (
        c.relreplident = 'f' OR EXISTS (
            SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND (
                c.relreplident = 'd' AND i.indisprimary AND i.indimmediate OR c.relreplident = 'i' AND i.indisreplident)))
)
SELECT s.slot, s.wal_held_bytes, s.catalog_xmin_age, w.sync_state, w.pid IS NOT NULL AS streams,
       current_setting('synchronous_standby_names') AS synchronous_standby_names,
       CASE WHEN %(heartbeat)s::text IS NOT NULL THEN pg_logical_emit_message(true, %(heartbeat)s::text, '') END::text
           AS heartbeat,
       CASE WHEN %(fingerprint)s THEN (SELECT sum(hashtextextended(mark, 0))::text FROM marks) END AS fingerprint,
       (SELECT jsonb_build_object(
            'gid', x.gid, 'database', x.database, 'owner', x.owner,
            'since', to_char(x.prepared, 'YYYY-MM-DD HH24:MI:SS TZH:TZM'),
            'age_seconds', extract(epoch FROM clock_timestamp() - x.prepared)::float8)
        FROM pg_prepared_xacts x ORDER BY x.prepared LIMIT 1) AS prepared,
       (SELECT jsonb_build_object(
            'oid', p.oid::bigint, 'touched', (SELECT xmin::text FROM pg_publication t WHERE t.oid = p.oid),
            'owner', p.pubowner::bigint, 'all_tables', p.puballtables, 'via_root', p.pubviaroot,
            'generated', to_jsonb(p) ->> 'pubgencols', 'insert', p.pubinsert, 'update', p.pubupdate,
            'delete', p.pubdelete, 'truncate', p.pubtruncate)
        FROM publication p) AS publication,
       (SELECT jsonb_agg(jsonb_build_array(r.prrelid::bigint, r.oid::bigint))
        FROM publication p JOIN pg_publication_rel r ON r.prpubid = p.oid) AS entries,
       (SELECT jsonb_agg(jsonb_build_object(
            'oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname,
            'ancestors', (SELECT jsonb_agg(relid::bigint) FROM pg_partition_ancestors(c.oid))))
        FROM wished JOIN pg_class c ON c.oid = wished.oid JOIN pg_namespace n ON n.oid = c.relnamespace) AS tables
FROM (SELECT) AS one
LEFT JOIN (
    SELECT to_jsonb(r) AS slot, age(r.catalog_xmin)::int AS catalog_xmin_age,
           pg_wal_lsn_diff(
               CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
               r.restart_lsn)::bigint AS wal_held_bytes
    FROM pg_replication_slots r
    WHERE r.slot_name = %(slot)s
) AS s ON true
LEFT JOIN pg_stat_replication w ON w.pid = %(pid)s;

-- name: published_schemas
-- The schemas a publication holds as a whole: PostgreSQL 15 and later.
SELECT r.oid, n.nspname::text AS schema
FROM pg_publication_namespace r
JOIN pg_publication p ON p.oid = r.pnpubid
JOIN pg_namespace n ON n.oid = r.pnnspid
WHERE p.pubname = %(publication)s;

-- name: ddl_triggers
-- Our event triggers, as far as they are there and enabled.
SELECT evtname::text AS name FROM pg_event_trigger
WHERE evtname IN ('watcher_ddl_end', 'watcher_ddl_drop') AND evtenabled <> 'D'
ORDER BY evtname;
