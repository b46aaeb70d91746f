-- Replication slots, and who reads from them.

-- name: slot
-- One slot, as JSON: its columns differ from version to version, and a missing one reads as NULL.
SELECT to_jsonb(s) AS slot, age(s.catalog_xmin)::int AS catalog_xmin_age,
       pg_wal_lsn_diff(
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, s.restart_lsn
       )::bigint AS wal_held_bytes
FROM pg_replication_slots s
WHERE s.slot_name = %(name)s;

-- name: create_slot
-- A logical slot for pgoutput. Waits for every transaction that runs now; cancelled, it leaves nothing behind.
SELECT lsn::text AS lsn FROM pg_create_logical_replication_slot(%(name)s::name, 'pgoutput', false, false);

-- name: create_failover_slot
-- The same, copied to standbys: PostgreSQL 17 and later.
SELECT lsn::text AS lsn FROM pg_create_logical_replication_slot(%(name)s::name, 'pgoutput', false, false, true);

-- name: drop_slot
-- Drops a slot; refused while somebody reads from it.
SELECT pg_drop_replication_slot(%(name)s::name);

-- name: end_reader
-- Ends the process that reads a slot, if it is the one we mean.
SELECT pg_terminate_backend(s.active_pid)
FROM pg_replication_slots s
WHERE s.slot_name = %(name)s AND s.active_pid = %(pid)s;

-- name: limit_statement
-- A time limit for the rest of the transaction, instead of the session's; the end of another transaction is waited for
-- as a lock on it.
SELECT set_config('statement_timeout', %(milliseconds)s, true), set_config('lock_timeout', '0', true);

-- name: notice_leaving
-- For the rest of the transaction: end what is waited for when whoever asked is gone. Not every system can tell.
SELECT set_config('client_connection_check_interval', '2s', true) WHERE strpos(version(), 'linux') > 0;

-- name: open_transactions
-- Transactions that write, oldest first: what the creation of a slot waits for. pg_locks shows every one of them
-- to every role; pg_stat_activity knows more, but hides the age from roles without pg_read_all_stats.
SELECT l.pid, a.datname::text AS database, a.usename::text AS role, nullif(a.application_name, '') AS application_name,
       (SELECT p.gid FROM pg_prepared_xacts p WHERE p.transaction = l.transactionid) AS prepared,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS age_seconds
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
  AND l.pid IS DISTINCT FROM pg_backend_pid()
ORDER BY age(l.transactionid) DESC
LIMIT %(limit)s;

-- name: wal_senders
-- Who reads WAL from this server. Without pg_read_all_stats the states and positions are NULL, even our own.
SELECT r.pid, r.usename::text AS role, r.application_name, r.state, r.sync_state, r.sync_priority,
       r.sent_lsn::text AS sent_lsn, r.write_lsn::text AS write_lsn,
       r.flush_lsn::text AS flush_lsn, r.replay_lsn::text AS replay_lsn
FROM pg_stat_replication r
WHERE (%(application_name)s::text IS NULL OR r.application_name = %(application_name)s)
  AND (%(pid)s::int IS NULL OR r.pid = %(pid)s)
ORDER BY r.pid;
