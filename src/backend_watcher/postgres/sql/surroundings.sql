-- What can go wrong around a running stream. These only read.

-- name: surroundings
-- The slot, our walsender, the publication and the watched tables, in one question, because it is asked all the
-- time. A table is found by its name and by the OID it was known by. An entry of a publication is never changed in
-- place: another filter or column list is another entry. "touched" changes with every ALTER of the publication
-- itself, also when it is altered back.
WITH publication AS (
    SELECT * FROM pg_publication WHERE pubname = %(publication)s
), wished AS (
    SELECT c.oid
    FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS w (schema, name)
    JOIN pg_namespace n ON n.nspname = w.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
    UNION
    SELECT unnest(%(oids)s::oid[])
)
SELECT s.slot, s.wal_held_bytes, s.catalog_xmin_age, w.sync_state, w.pid IS NOT NULL AS streams,
       current_setting('synchronous_standby_names') AS synchronous_standby_names,
       (SELECT jsonb_build_object(
            'oid', p.oid::bigint, 'touched', (SELECT xmin::text FROM pg_publication t WHERE t.oid = p.oid),
            'owner', p.pubowner::bigint, 'all_tables', p.puballtables, 'via_root', p.pubviaroot,
            'generated', to_jsonb(p) ->> 'pubgencols', 'insert', p.pubinsert, 'update', p.pubupdate,
            'delete', p.pubdelete, 'truncate', p.pubtruncate)
        FROM publication p) AS publication,
       (SELECT jsonb_agg(jsonb_build_object(
            'oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname, 'entries', (
                SELECT jsonb_agg(r.oid::bigint ORDER BY r.oid)
                FROM publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
                WHERE r.prrelid = c.oid OR r.prrelid IN (SELECT relid FROM pg_partition_ancestors(c.oid)))))
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
