-- What the watched tables look like. These only read, and take no lock on any table: a migration that holds one for
-- long must not hold us up. So the partitions are found in pg_inherits, and not by pg_partition_tree.

-- name: shapes
-- Every relation that matters: the watched tables by name and by the OID they were known by, what the publication
-- names (of all tables: those whose UPDATEs would fail), and all their partitions, at any depth. "identified" says
-- that an UPDATE can be published. "touched" changes when the catalog row of any column does: a relation that has
-- other storage, and in which no column was touched, was truncated or only moved; otherwise it was rewritten.
-- "born" says that a partition was made in the transaction that attached it. "altered" says that a column was touched
-- after the relation was made: the rows of its system columns never are.
WITH RECURSIVE publication AS (
    SELECT * FROM pg_publication WHERE pubname = %(publication)s
), wished AS (
    SELECT c.oid
    FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS w (schema, name)
    JOIN pg_namespace n ON n.nspname = w.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
    UNION
    SELECT unnest(%(oids)s::oid[])
), identity AS (
    SELECT c.oid, c.relreplident = 'f'
        OR c.relreplident = 'd' AND EXISTS (
            SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid)
        OR c.relreplident = 'i' AND EXISTS (
            SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid) AS identified
    FROM pg_class c
    WHERE c.relkind IN ('r', 'p')
), published AS (
    SELECT r.prrelid AS oid FROM publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
    UNION
    SELECT c.oid
    FROM publication p CROSS JOIN pg_class c JOIN identity ON identity.oid = c.oid
    WHERE p.puballtables AND c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384 AND NOT identity.identified
), related AS (
    (SELECT oid FROM wished UNION SELECT oid FROM published)
    UNION
    SELECT i.inhrelid FROM related JOIN pg_inherits i ON i.inhparent = related.oid
    JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
)
SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name,
       format('%%I.%%I', n.nspname, c.relname) AS quoted, c.relkind::text AS kind,
       c.relreplident::text AS replica_identity, identity.identified, c.relfilenode::bigint AS storage,
       (SELECT i.inhparent::bigint FROM pg_inherits i WHERE c.relispartition AND i.inhrelid = c.oid) AS parent,
       published.oid IS NOT NULL AS published,
       EXISTS (SELECT FROM pg_inherits i JOIN pg_type t ON t.oid = c.reltype
               WHERE c.relispartition AND i.inhrelid = c.oid AND i.xmin = t.xmin) AS born,
       (SELECT array_agg(k.attnum::int ORDER BY k.place) FROM pg_index i
        CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
        WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts) AS key,
       (SELECT sum(hashtextextended(concat_ws(' ', a.attnum, a.xmin), 0))::text
        FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0) AS touched,
       EXISTS (SELECT FROM pg_attribute a JOIN pg_attribute s ON s.attrelid = a.attrelid AND s.attname = 'tableoid'
               WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.xmin <> s.xmin) AS altered,
       (SELECT jsonb_agg(jsonb_build_object(
            'number', a.attnum, 'name', a.attname, 'type_oid', a.atttypid::bigint,
            'type_name', format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull, 'generated', a.attgenerated,
            'filled', a.atthasdef OR a.atthasmissing OR a.attidentity <> '') ORDER BY a.attnum)
        FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT c.relispartition) AS columns
FROM related
JOIN pg_class c ON c.oid = related.oid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN identity ON identity.oid = c.oid
LEFT JOIN published ON published.oid = c.oid
ORDER BY c.oid;

-- name: shape_types
-- The types of the user's that these types are made of, and those themselves: labels of enums, attributes of
-- composites, what arrays and domains stand for. "altered" says that one of them was touched after the type was made.
WITH RECURSIVE used (oid) AS (
    SELECT unnest(%(types)s::oid[])
    UNION
    SELECT part.oid
    FROM used JOIN pg_type t ON t.oid = used.oid AND t.oid >= 16384
    CROSS JOIN LATERAL (
        SELECT t.typelem WHERE t.typelem <> 0
        UNION ALL SELECT t.typbasetype WHERE t.typbasetype <> 0
        UNION ALL SELECT a.atttypid FROM pg_attribute a
                  WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS part (oid)
)
SELECT t.oid::bigint AS oid, format_type(t.oid, NULL) AS name,
       array_remove(ARRAY[t.typelem, t.typbasetype]::bigint[], 0) AS within,
       (SELECT jsonb_agg(jsonb_build_array(e.oid::bigint, e.enumlabel) ORDER BY e.enumsortorder)
        FROM pg_enum e WHERE e.enumtypid = t.oid) AS labels,
       (SELECT jsonb_agg(jsonb_build_array(
            a.attnum, a.attname, a.atttypid::bigint, format_type(a.atttypid, a.atttypmod)) ORDER BY a.attnum)
        FROM pg_attribute a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS attributes,
       EXISTS (SELECT FROM pg_enum e WHERE e.enumtypid = t.oid AND e.xmin <> t.xmin)
       OR EXISTS (SELECT FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0
                  AND a.xmin <> t.xmin) AS altered
FROM used JOIN pg_type t ON t.oid = used.oid
WHERE t.oid >= 16384
ORDER BY t.oid;

-- name: sent
-- Every table that a publication sends, a partition by its root. "schemas" are those that it holds as a whole.
SELECT DISTINCT rn.nspname::text AS schema, root.relname::text AS name
FROM pg_publication p
CROSS JOIN pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class root ON root.oid = coalesce(pg_partition_root(c.oid), c.oid)
JOIN pg_namespace rn ON rn.oid = root.relnamespace
WHERE p.pubname = %(publication)s AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384
  AND (p.puballtables OR n.nspname = ANY (%(schemas)s::text[])
       OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid))
ORDER BY 1, 2;

-- name: partition_sizes
-- How much partitions hold. This waits for whoever has locked one, as long as lock_timeout says.
SELECT c.oid::bigint AS oid, pg_relation_size(c.oid) AS size_bytes FROM pg_class c WHERE c.oid = ANY (%(oids)s::oid[]);
