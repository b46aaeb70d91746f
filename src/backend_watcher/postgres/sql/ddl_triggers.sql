-- Two event triggers that write a logical message for every DDL, so that capture looks at once instead of after
-- seconds. A script, not a query: run as it stands, in one transaction, by a superuser or who may make event triggers.
-- Take it away again with: DROP FUNCTION watcher.tell_ddl() CASCADE;

CREATE SCHEMA IF NOT EXISTS watcher;

-- It must never be the reason why a statement of the application's fails: whatever goes wrong inside is passed over,
-- and found by the usual look. The message goes with the transaction: what is rolled back is not told.
CREATE OR REPLACE FUNCTION watcher.tell_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$body$
DECLARE
    objects jsonb;
BEGIN
    IF tg_event = 'sql_drop' THEN
        SELECT jsonb_agg(jsonb_build_object('type', object_type, 'name', object_identity)) INTO objects
        FROM (SELECT * FROM pg_event_trigger_dropped_objects() WHERE original AND NOT is_temporary LIMIT 100) AS dropped;
    ELSE
        SELECT jsonb_agg(jsonb_build_object('type', object_type, 'name', object_identity)) INTO objects
        FROM (SELECT * FROM pg_event_trigger_ddl_commands()
              WHERE NOT in_extension AND schema_name IS DISTINCT FROM 'pg_temp' LIMIT 100) AS done;
    END IF;
    IF objects IS NOT NULL THEN
        PERFORM pg_logical_emit_message(
            true, 'backend_watcher.ddl', jsonb_build_object('tag', tg_tag, 'event', tg_event, 'objects', objects)::text);
    END IF;
EXCEPTION WHEN OTHERS THEN
    NULL;
END
$body$;

DROP EVENT TRIGGER IF EXISTS watcher_ddl_end;
DROP EVENT TRIGGER IF EXISTS watcher_ddl_drop;
CREATE EVENT TRIGGER watcher_ddl_end ON ddl_command_end EXECUTE FUNCTION watcher.tell_ddl();
CREATE EVENT TRIGGER watcher_ddl_drop ON sql_drop EXECUTE FUNCTION watcher.tell_ddl();
