-- What our role may not do, and whose session this is. These only read.

-- name: withheld
-- Of the catalogs and functions whose names are given, those that were taken away from everybody, and so from our role.
SELECT 'EXECUTE ON FUNCTION ' || p.oid::regprocedure AS privilege
FROM pg_proc p
WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY (%(names)s::text[])
  AND NOT 'bytea'::regtype = ANY (p.proargtypes::oid[]) AND NOT has_function_privilege(p.oid, 'EXECUTE')
UNION ALL
SELECT 'SELECT ON ' || c.oid::regclass
FROM pg_class c
WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v') AND c.relname = ANY (%(names)s::text[])
  AND NOT has_table_privilege(c.oid, 'SELECT')
ORDER BY 1;

-- name: session
-- Which process serves this session, and whether it is set as we asked for when it began.
SELECT pg_backend_pid() AS pid, current_setting('search_path') AS search_path;
