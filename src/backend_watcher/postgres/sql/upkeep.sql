-- What a running stream asks now and then.

-- name: emit_message
-- A transactional logical message: a commit that every slot of this database sees.
SELECT pg_logical_emit_message(true, %(prefix)s::text, %(content)s::text)::text AS lsn;

-- name: commit_locally
-- A message of ours protects nobody's data: no standby has to have it.
SELECT set_config('synchronous_commit', 'local', false) AS setting;

-- name: existing_tables
-- Those of some tables that were not dropped.
SELECT c.oid::regclass::text AS name FROM pg_class c WHERE c.oid = ANY (%(oids)s::oid[]) ORDER BY 1;
