-- Questions about publications. All of them only read.

-- name: publication
-- One publication.
SELECT oid, pubname::text AS name, puballtables AS all_tables, pubviaroot AS via_root,
       pubinsert AS insert, pubupdate AS update, pubdelete AS delete, pubtruncate AS truncate,
       pg_get_userbyid(pubowner)::text AS owner, pg_has_role(current_user, pubowner, 'USAGE') AS owned
FROM pg_publication
WHERE pubname = %(name)s;

-- name: publication_tables
-- What a publication holds: the tables it names, and those it publishes (the leaves of a partitioned table, all
-- tables of a schema). Columns that a version does not have are missing from the JSON and come back as NULL.
WITH named AS (
    SELECT prrelid AS oid, to_jsonb(r) -> 'prattrs' AS columns FROM pg_publication_rel r WHERE prpubid = %(oid)s
), published AS (
    SELECT c.oid, to_jsonb(t) ->> 'rowfilter' AS row_filter
    FROM pg_publication_tables t
    JOIN pg_namespace n ON n.nspname = t.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
    WHERE t.pubname = %(name)s
)
SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, format('%%I.%%I', n.nspname, c.relname) AS quoted,
       named.oid IS NOT NULL AS named, published.oid IS NOT NULL AS published,
       coalesce(jsonb_typeof(named.columns) <> 'null', false) AS has_column_list, published.row_filter
FROM named
FULL JOIN published USING (oid)
JOIN pg_class c USING (oid)
JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY n.nspname, c.relname;
