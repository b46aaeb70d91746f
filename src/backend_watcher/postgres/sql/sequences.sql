-- Sequences: logical replication does not carry them, so a replica that takes over would give numbers twice.

-- name: sequences_of_columns
-- The sequences that give columns of some tables their numbers: owned by them (serial, identity), or named in a default.
-- "last_value" is NULL where none was given yet; "readable" and "writable" say what our role may.
WITH named AS (
    SELECT c.oid, u.place
    FROM unnest(%(schemas)s::text[], %(names)s::text[]) WITH ORDINALITY AS u (schema, name, place)
    JOIN pg_namespace n ON n.nspname = u.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = u.name
), used AS (
    SELECT d.refobjid AS relid, d.refobjsubid AS attnum, d.objid AS seqid
    FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    UNION
    SELECT f.adrelid, f.adnum, d.refobjid
    FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid
    WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
)
SELECT named.place::int - 1 AS place, a.attname::text AS column, q.seqrelid::bigint AS oid,
       n.nspname::text AS schema, s.relname::text AS name, q.seqincrement AS increment,
       p.readable, has_sequence_privilege(q.seqrelid, 'UPDATE') AS writable,
       CASE WHEN p.readable THEN pg_sequence_last_value(q.seqrelid) END AS last_value
FROM named
JOIN used ON used.relid = named.oid
JOIN pg_attribute a ON a.attrelid = named.oid AND a.attnum = used.attnum AND NOT a.attisdropped
JOIN pg_sequence q ON q.seqrelid = used.seqid
JOIN pg_class s ON s.oid = q.seqrelid
JOIN pg_namespace n ON n.oid = s.relnamespace
CROSS JOIN LATERAL (SELECT has_sequence_privilege(q.seqrelid, 'SELECT') AS readable) AS p
ORDER BY named.place, a.attnum, n.nspname, s.relname;

-- name: sequence_forward
-- Let a sequence go on behind a number, unless it is there already, whichever way it counts.
SELECT setval(%(oid)s::oid::regclass, %(last_value)s::bigint) AS value
FROM pg_sequence q
WHERE q.seqrelid = %(oid)s::oid
  AND coalesce(sign(%(last_value)s::bigint - pg_sequence_last_value(q.seqrelid)) = sign(q.seqincrement), true);
