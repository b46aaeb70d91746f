-- The other PostgreSQL, where a replica is kept: how far it is, and what its tables look like.

-- name: replica_tables_exist
-- Whether the tables below are there, and whether we may make them.
SELECT to_regclass('watcher.replica_position') IS NOT NULL AND to_regclass('watcher.replica_late') IS NOT NULL AS exist,
       to_regnamespace('watcher') IS NOT NULL AS schema_exists;

-- name: replica_schema
-- A schema of our own, for how far each subscription is.
CREATE SCHEMA IF NOT EXISTS watcher;

-- name: replica_position_table
-- How far each subscription is: everything up to here is applied, or was held because of its key.
CREATE TABLE IF NOT EXISTS watcher.replica_position (
    system_identifier text, slot text, subscription text,
    commit_lsn pg_lsn NOT NULL, ordinal bigint NOT NULL, xid bigint NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (system_identifier, slot, subscription)
);

-- name: replica_late_table
-- What was applied out of order: changes of held keys, each once.
CREATE TABLE IF NOT EXISTS watcher.replica_late (
    system_identifier text, slot text, subscription text,
    commit_lsn pg_lsn, ordinal bigint, part bytea,
    number bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (system_identifier, slot, subscription, commit_lsn, ordinal, part)
);

-- name: replica_late_index
-- What was applied late is forgotten by its age.
CREATE INDEX IF NOT EXISTS replica_late_number ON watcher.replica_late (system_identifier, slot, subscription, number);

-- name: replica_position
-- How far a subscription is; the LSN as a number.
SELECT (commit_lsn - '0/0'::pg_lsn)::numeric::text AS commit_lsn, ordinal, xid
FROM watcher.replica_position
WHERE system_identifier = %(system_identifier)s AND slot = %(slot)s AND subscription = %(subscription)s;

-- name: replica_begin
-- A subscription that comes for the first time begins before everything.
INSERT INTO watcher.replica_position (system_identifier, slot, subscription, commit_lsn, ordinal, xid)
VALUES (%(system_identifier)s, %(slot)s, %(subscription)s, '0/0', -1, 0)
ON CONFLICT DO NOTHING;

-- name: replica_move
-- Moves the position from where we believe it to be; no row where somebody else moved it.
UPDATE watcher.replica_position
SET commit_lsn = %(commit_lsn)s::text::pg_lsn, ordinal = %(ordinal)s, xid = %(xid)s, written_at = now()
WHERE system_identifier = %(system_identifier)s AND slot = %(slot)s AND subscription = %(subscription)s
  AND commit_lsn = %(from_lsn)s::text::pg_lsn AND ordinal = %(from_ordinal)s
RETURNING true AS moved;

-- name: replica_late_ahead
-- What was applied late and is not behind the position.
SELECT (l.commit_lsn - '0/0'::pg_lsn)::numeric::text AS commit_lsn, l.ordinal, l.part
FROM watcher.replica_late l JOIN watcher.replica_position p USING (system_identifier, slot, subscription)
WHERE p.system_identifier = %(system_identifier)s AND p.slot = %(slot)s AND p.subscription = %(subscription)s
  AND (l.commit_lsn, l.ordinal) > (p.commit_lsn, p.ordinal);

-- name: replica_late_add
-- Notes changes as applied late; returns those that were not yet.
INSERT INTO watcher.replica_late (system_identifier, slot, subscription, commit_lsn, ordinal, part)
SELECT %(system_identifier)s, %(slot)s, %(subscription)s, u.lsn::pg_lsn, u.ordinal, u.part
FROM unnest(%(lsns)s::text[], %(ordinals)s::bigint[], %(parts)s::bytea[]) AS u (lsn, ordinal, part)
ON CONFLICT DO NOTHING
RETURNING (commit_lsn - '0/0'::pg_lsn)::numeric::text AS commit_lsn, ordinal, part;

-- name: replica_late_prune
-- Forgets the oldest of them above a number.
DELETE FROM watcher.replica_late
WHERE system_identifier = %(system_identifier)s AND slot = %(slot)s AND subscription = %(subscription)s
  AND number <= (
      SELECT max(number) FROM watcher.replica_late
      WHERE system_identifier = %(system_identifier)s AND slot = %(slot)s AND subscription = %(subscription)s
  ) - %(kept)s::bigint;

-- name: replica_columns
-- The columns of a target table. A type without its modifier: a value that is too long is refused and not cut.
-- "in_array" names the array type where text has a cast to the type by a function: that need not read what the type
-- itself writes ('-'::text::regclass fails), and an element of an array is read by the type. "written" has the modifier.
SELECT a.attname::text AS name, format_type(a.atttypid, -1) AS type, format_type(a.atttypid, a.atttypmod) AS written,
       a.attgenerated <> '' AS generated,
       a.attidentity = 'a' AS always,
       CASE WHEN t.typarray <> 0 AND EXISTS (
           SELECT FROM pg_cast WHERE castsource = 'text'::regtype AND castmethod = 'f'
           AND casttarget IN (t.oid, t.typbasetype)) THEN format_type(t.typarray, -1) END AS in_array
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid
JOIN pg_type t ON t.oid = a.atttypid
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND c.relkind IN ('r', 'p')
  AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;

-- name: replica_unique
-- What could be an arbiter of ON CONFLICT, but for those that are checked at the end of the transaction only.
SELECT (SELECT array_agg(a.attname::text) FROM unnest(i.indkey[0 : i.indnkeyatts - 1]) AS k (number)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number) AS columns,
       i.indimmediate AS immediate
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND i.indisunique AND i.indisvalid
  AND i.indpred IS NULL AND i.indexprs IS NULL;

-- name: replica_orders
-- The columns of each unique index in their order there, the primary key's first: what rows can be read in order by.
SELECT (SELECT array_agg(a.attname::text ORDER BY k.place)
        FROM unnest(i.indkey[0 : i.indnkeyatts - 1]) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number) AS columns
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND i.indisunique AND i.indisvalid
  AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indisprimary DESC, i.indexrelid;

-- name: replica_type_names
-- How this server writes types that every PostgreSQL has under the same number.
SELECT u.number::int AS number, format_type(u.oid::oid, u.modifier) AS type
FROM unnest(%(oids)s::bigint[], %(modifiers)s::int[]) WITH ORDINALITY AS u (oid, modifier, number)
WHERE u.oid < 16384;

-- name: replica_origin
-- Marks what this session writes as replicated, so that nobody sends it back.
SELECT pg_replication_origin_session_setup(%(name)s::text);

-- name: replica_origin_known
-- Whether our replication origin is there.
SELECT pg_replication_origin_oid(%(name)s::text) IS NOT NULL AS known;

-- name: replica_origin_create
-- What marks our writes as replicated, for who replicates from there.
SELECT pg_replication_origin_create(%(name)s::text);

-- name: replica_schema_exists
-- Whether a schema is there.
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s) AS exists;
