"""What reading an outbox begins with: the triggers each table needs, the keys, the grants, the binding."""

from __future__ import annotations

from backend_watcher.capture.outbox_prepare import MARK, OutboxSettings, prepare
from backend_watcher.errors import PreflightFailed, SourceRefused
from backend_watcher.journal import MemoryJournal
from backend_watcher.postgres.connect import connect

from .outbox_street import OutboxStreet, install
from .street import App

EVENTS = "CREATE TABLE events (id uuid PRIMARY KEY, aggregatetype text, aggregateid text, type text, payload jsonb)"


def test_an_outbox_table_of_the_application_needs_one_trigger_and_others_two() -> None:
    settings = OutboxSettings("", ("public.a", "events"), event_table="events")
    assert {name: len(triggers) for name, triggers in settings.wanted.items()} == {"public.a": 2, "public.events": 1}


async def test_a_new_journal_is_bound_once_and_begins_where_the_outbox_does(app: App, journal: MemoryJournal) -> None:
    await app.insert(1)
    await install(app.dsn, "public.products")
    settings = OutboxSettings(app.dsn, ("public.products",))
    async with await connect(app.dsn, purpose="test") as conn:
        first = await prepare(conn, settings, journal)
        again = await prepare(conn, settings, journal)
    assert first == again
    assert (first.batch, str(first.snapshot), first.begun) == (0, "1:1:", ())
    assert first.mark == await journal.get_note(MARK) == await app.ask("SELECT journal FROM watcher.outbox_reader")
    assert list(first.keys.values()) == [("id",)]


async def test_events_are_in_order_by_their_aggregate(app: App, journal: MemoryJournal) -> None:
    await app.run(EVENTS)
    await install(app.dsn, "public.events", event_table="public.events")
    street = OutboxStreet(app.dsn, journal, "public.events", event_table="public.events")
    async with street.listening():
        insert = "INSERT INTO events VALUES (gen_random_uuid(), 'order', {}, 'placed', '{{\"n\": {}}}')"
        await app.run(insert.format("'7'", 1))
        await app.run("BEGIN; " + insert.format("'8'", 2) + "; DELETE FROM events; COMMIT")
        await app.run("ALTER TABLE events ADD COLUMN tenant text", insert.format("'7'", 3))
        changes = await street.changes(3)
    assert [(one.key, one.new["payload"]["n"]) for one in changes] == [(("7",), 1), (("8",), 2), (("7",), 3)]
    assert changes[0].key_bytes() == changes[2].key_bytes() != changes[1].key_bytes()


async def test_a_role_without_the_grants_is_told_which(app: App, journal: MemoryJournal) -> None:
    await install(app.dsn, "public.products")
    await app.run(
        "DROP ROLE IF EXISTS weak", "CREATE ROLE weak LOGIN PASSWORD 'x'", "GRANT USAGE ON SCHEMA watcher TO weak"
    )
    try:
        street = OutboxStreet(f"postgresql://weak:x@{app.dsn.rpartition('@')[2]}", journal)
        error = await street.refusal()
        assert isinstance(error, PreflightFailed | SourceRefused)
        assert "SELECT ON watcher.outbox" in error.message
    finally:
        await app.run("DROP OWNED BY weak", "DROP ROLE weak")
