-- Questions about the server and its tables. All of them only read.

-- name: server
-- What the server is, how it is set, and what our role may do: one row.
-- The timeline of a primary is that of its current WAL file: its last checkpoint may be from before a promotion.
SELECT current_setting('server_version_num')::int AS version,
       current_setting('server_version') AS version_text,
       (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
       CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END AS timeline,
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_flush_lsn() END::text AS flush_lsn,
       pg_is_in_recovery() AS in_recovery,
       pg_backend_pid() AS backend_pid,
       current_setting('wal_level') AS wal_level,
       current_setting('max_replication_slots')::int AS max_replication_slots,
       (SELECT count(*) FROM pg_replication_slots)::int AS used_replication_slots,
       current_setting('max_wal_senders')::int AS max_wal_senders,
       (SELECT count(*) FROM pg_stat_replication)::int AS used_wal_senders,
       extract(epoch FROM current_setting('wal_sender_timeout')::interval)::float8 AS wal_sender_timeout_seconds,
       nullif(pg_size_bytes(current_setting('max_slot_wal_keep_size')), -1) AS max_slot_wal_keep_bytes,
       nullif(extract(epoch FROM current_setting('idle_replication_slot_timeout', true)::interval), 0)::float8
           AS idle_slot_timeout_seconds,
       current_setting('synchronous_standby_names') AS synchronous_standby_names,
       (SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()) AS encoding,
       current_database()::text AS database,
       current_user::text AS role,
       rolsuper AS is_superuser,
       rolsuper OR rolreplication OR EXISTS (
           SELECT FROM pg_roles granted
           WHERE granted.rolname = 'rds_replication' AND pg_has_role(current_user, granted.oid, 'MEMBER')
       ) AS has_replication,
       has_database_privilege(current_database(), 'CREATE') AS can_create,
       pg_size_bytes(current_setting('logical_decoding_work_mem')) AS decoding_work_mem_bytes,
       current_setting('max_prepared_transactions')::int AS max_prepared_transactions,
       (SELECT setting FROM pg_settings WHERE name = 'output_plugin_libraries') AS output_plugins,
       ARRAY(SELECT name FROM unnest(%(settings)s::text[]) AS name WHERE current_setting(name, true) IS NOT NULL)
           AS marker_settings,
       ARRAY(SELECT known.rolname::text FROM pg_roles known WHERE known.rolname = ANY (%(roles)s::text[]))
           AS marker_roles,
       EXISTS (SELECT FROM pg_stat_activity WHERE application_name ILIKE 'patroni%%') AS patroni
FROM pg_roles
WHERE rolname = current_user;

-- name: tables
-- The tables named by two arrays, schemas and names; a name that is not there gives no row.
-- "parts" are the relations that hold the rows: the table itself, or the leaves of a partitioned one. An UPDATE
-- is refused or allowed by the part's own replica identity, never by that of the root. An index does not serve
-- as the default identity if it is deferrable. The leaves are read from pg_inherits: pg_partition_tree would lock each
-- of them, and wait for whoever rewrites one. A name is three texts: schema, name, and both as SQL writes them.
WITH wished AS (
    SELECT c.oid, c.relkind, c.relowner, c.relnamespace, w.number
    FROM unnest(%(schemas)s::text[], %(names)s::text[]) WITH ORDINALITY AS w (schema, name, number)
    JOIN pg_namespace n ON n.nspname = w.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
), parts AS (
    SELECT w.number, c.relreplident, format('%%I.%%I', n.nspname, c.relname) AS quoted,
           jsonb_build_array(n.nspname, c.relname, format('%%I.%%I', n.nspname, c.relname)) AS name,
           c.relreplident = 'f'
           OR c.relreplident = 'd' AND EXISTS (
               SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid)
           OR c.relreplident = 'i' AND EXISTS (
               SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid) AS identified
    FROM wished w
    LEFT JOIN LATERAL (
        WITH RECURSIVE tree AS (
            SELECT w.oid AS relid
            UNION ALL
            SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.relid
        )
        SELECT tree.relid FROM tree JOIN pg_class branch ON branch.oid = tree.relid WHERE branch.relkind <> 'p'
    ) leaf ON w.relkind = 'p'
    JOIN pg_class c ON c.oid = coalesce(leaf.relid, w.oid)
    JOIN pg_namespace n ON n.oid = c.relnamespace
), judged AS (
    SELECT number,
           jsonb_agg(name ORDER BY quoted) FILTER (WHERE NOT identified) AS unidentified,
           jsonb_agg(name ORDER BY quoted) FILTER (WHERE relreplident <> 'f') AS without_old_values
    FROM parts
    GROUP BY number
)
SELECT w.number::int - 1 AS index, c.oid, n.nspname::text AS schema, c.relname::text AS name,
       format('%%I.%%I', n.nspname, c.relname) AS quoted,
       c.relkind::text AS kind, c.relpersistence::text AS persistence, c.relreplident::text AS replica_identity,
       c.oid < 16384 AS is_system,
       judged.unidentified, judged.without_old_values,
       (SELECT x.relname::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
          AND i.indpred IS NULL AND i.indexprs IS NULL
          AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
                          AND NOT a.attnotnull)
        ORDER BY i.indnkeyatts, x.relname LIMIT 1) AS candidate_index,
       (SELECT array_agg(a.attname::text ORDER BY k.place) FROM pg_index i
        CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts) AS primary_key,
       (SELECT x.relname::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        WHERE i.indrelid = c.oid AND i.indisprimary AND NOT i.indimmediate) AS deferrable_key,
       (SELECT jsonb_agg(jsonb_build_object(
            'name', a.attname, 'type_oid', a.atttypid::bigint, 'modifier', a.atttypmod,
            'type_name', format_type(a.atttypid, a.atttypmod), 'generated', a.attgenerated,
            'not_null', a.attnotnull) ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       pg_get_userbyid(c.relowner)::text AS owner,
       pg_has_role(current_user, c.relowner, 'USAGE') AS owned,
       CASE WHEN c.relkind IN ('r', 'p', 'v', 'm', 'f') THEN
            has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') END AS can_select,
       CASE WHEN c.relkind IN ('r', 'p') THEN row_security_active(c.oid) END AS row_security,
       c.relispartition AS is_partition,
       (SELECT jsonb_build_array(rn.nspname, r.relname, format('%%I.%%I', rn.nspname, r.relname))
        FROM pg_class r JOIN pg_namespace rn ON rn.oid = r.relnamespace
        WHERE c.relispartition AND r.oid = pg_partition_root(c.oid)) AS partition_root
FROM wished w
JOIN pg_class c ON c.oid = w.oid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN judged ON judged.number = w.number
ORDER BY w.number;

-- name: primary_keys
-- The primary key columns of relations, in key order; a relation without one gives no row.
SELECT i.indrelid AS oid, array_agg(a.attname::text ORDER BY k.place) AS columns
FROM pg_index i
CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indisprimary AND k.place <= i.indnkeyatts AND i.indrelid = ANY (%(oids)s::oid[])
GROUP BY i.indrelid;

-- name: table_names
-- Names a person may have meant; asked only when a wished table is not there.
SELECT n.nspname::text AS schema, c.relname::text AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384
  AND n.nspname NOT IN ('information_schema', 'pg_catalog', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_'
ORDER BY n.nspname, c.relname
LIMIT %(limit)s;
