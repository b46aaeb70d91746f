"""
What a real target refuses, and what is done about it: the same again only for what passes by itself.

Each ends with every change applied once: the tables have no key, so a change that came twice would be seen.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backend_watcher.contracts import Receipt
from backend_watcher.delivery.retry import Patience, Verdict, decide
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import SinkError, SinkFailed, SinkGone, SinkRejected, SinkUnavailable
from backend_watcher.events.change import Change
from backend_watcher.sinks import PostgresReplica
from backend_watcher.testing.builders import change, table
from backend_watcher.testing.conformance_sink import insert, update
from postgres.conftest import dsn, server  # noqa: F401 fixtures

from .test_postgres_replica import replica, rows, run

BAG = table("public.bag", {"id": "int8", "name": "text"}, (), replica_identity="f")
SECOND = table("public.second", {"id": "int8", "name": "text"})
PATIENCE = Patience()


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the account of a server can reach."""
    folder = Path(tempfile.mkdtemp(prefix="watcher-replica-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def put(lsn: int, name: str = "a") -> Change:
    return change("insert", BAG, new={"id": lsn, "name": name}, lsn=lsn)


def verdict(error: SinkError, attempt: int = 1) -> Verdict:
    return decide(error, attempt, 0.0, 0.5, PATIENCE).verdict


async def refusal(sink: PostgresReplica, kind: type[SinkError], state: str, batch: Sequence[Change]) -> SinkError:
    """Return the error that a batch meets, which has left nothing behind."""
    with pytest.raises(kind, match=state) as caught:
        await sink.write(batch)
    assert type(caught.value) is kind
    return caught.value


@asynccontextmanager
async def blocked(dsn: str, *statements: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:  # noqa: F811
    """Another session of the target's, in a transaction of its own."""
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        for statement in statements:
            await other.execute(statement.encode())
        yield other


async def waits(dsn: str, application: str = "backend_watcher:replica") -> None:  # noqa: F811
    """Return when the replica's session waits for a lock."""
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as watching:
        while await (await watching.execute(query, [application])).fetchone() is None:
            await asyncio.sleep(0)


async def test_a_deadlock_is_tried_again_and_applied_once(dsn: str) -> None:  # noqa: F811
    async with replica(dsn) as sink:
        await sink.write([insert(1, 1, "a"), put(1), change("insert", SECOND, new={"id": 1, "name": "b"}, lsn=2)])
        assert sink._conn is not None
        # It notices first, and so is the one that gives way.
        await sink._conn.execute("SET deadlock_timeout = '20ms'")
        async with blocked(dsn, "SET deadlock_timeout = '60s'", "UPDATE second SET name = 'x'") as other:
            batch = [put(3), update(4, 1, "c"), change("update", SECOND, new={"id": 1, "name": "d"}, lsn=5)]
            writing = asyncio.create_task(sink.write(batch))
            await waits(dsn)
            crossing = asyncio.create_task(other.execute("UPDATE products SET stock = 7 WHERE id = 1"))
            with pytest.raises(SinkUnavailable, match="40P01") as caught:
                await writing
            await crossing
            await other.rollback()
        assert verdict(caught.value, 99) is Verdict.AGAIN
        await sink.write(batch)
    assert rows(dsn) + rows(dsn, "SELECT * FROM second") == [(1, "c"), (1, "d")]
    assert rows(dsn, "SELECT id FROM bag ORDER BY id") == [(1,), (3,)]


async def test_a_serialization_failure_is_tried_again_and_applied_once(dsn: str) -> None:  # noqa: F811
    async with replica(dsn) as sink:
        await sink.write([insert(1, 1, "a"), put(1)])
        assert sink._conn is not None
        await sink._conn.execute("SET default_transaction_isolation = 'repeatable read'")
        async with blocked(dsn, "UPDATE products SET stock = 7 WHERE id = 1") as other:
            batch = [put(2), update(2, 1, "b")]
            writing = asyncio.create_task(sink.write(batch))
            await waits(dsn)
            await other.commit()
            with pytest.raises(SinkUnavailable, match="40001") as caught:
                await writing
        assert verdict(caught.value, 99) is Verdict.AGAIN
        await sink.write(batch)
    assert rows(dsn) == [(1, "b")]
    assert rows(dsn, "SELECT id FROM bag ORDER BY id") == [(1,), (2,)]


@pytest.mark.parametrize(
    ("constraint", "state", "kind", "first", "last"),
    [
        ("CHECK (name <> 'bad')", "23514", SinkRejected, Verdict.PARK, Verdict.PARK),
        ("CHECK (length(name) < 1000 / (length(name) - 3))", "22012", SinkRejected, Verdict.PARK, Verdict.PARK),
        # Somebody's own row has the value: a sequence there that went its own way, say.
        ("UNIQUE (name)", "23505", SinkFailed, Verdict.HOLD, Verdict.PARK),
        ("FOREIGN KEY (name) REFERENCES known", "23503", SinkFailed, Verdict.HOLD, Verdict.PARK),
        ("EXCLUDE USING btree (name WITH =)", "23P01", SinkFailed, Verdict.HOLD, Verdict.PARK),
    ],
)
async def test_a_constraint_is_the_changes_own_matter(
    dsn: str,  # noqa: F811
    constraint: str,
    state: str,
    kind: type[SinkError],
    first: Verdict,
    last: Verdict,
) -> None:
    run(
        dsn,
        "CREATE TABLE known (name text PRIMARY KEY)",
        "INSERT INTO known VALUES ('good'), ('fine')",
        "CREATE TABLE bag (id bigint, name text)",
        f"ALTER TABLE bag ADD {constraint}",
    )
    if kind is SinkFailed:
        run(dsn, "INSERT INTO known VALUES ('taken')", "INSERT INTO bag VALUES (-1, 'taken')")
    bad = "lie" if state == "23503" else "taken" if kind is SinkFailed else "bad"
    async with replica(dsn, fire_triggers=True) as sink:
        error = await refusal(sink, kind, state, [put(1, "good"), put(2, bad)])
        assert (verdict(error), verdict(error, PATIENCE.attempts)) == (first, last)
        assert rows(dsn, "SELECT count(*) FROM bag WHERE id > 0") == [(0,)]
        # Alone it fails alone, as delivery finds out by halving; the others pass, each once.
        await sink.write([put(1, "good")])
        await refusal(sink, kind, state, [put(2, bad)])
        await sink.write([put(1, "good"), put(3, "fine")])
        # It was held meanwhile, the obstacle is gone, and it comes late, twice.
        ((name,),) = rows(dsn, "SELECT conname FROM pg_constraint WHERE conrelid = 'bag'::regclass")
        run(dsn, f'ALTER TABLE bag DROP CONSTRAINT "{name}"')
        await sink.write_late([put(2, bad)])
        await sink.write_late([put(2, bad)])
    assert rows(dsn, "SELECT id FROM bag WHERE id > 0 ORDER BY id") == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("harm", "state", "mend"),
    [
        ("ALTER TABLE bag RENAME TO away", "42P01", "ALTER TABLE away RENAME TO bag"),
        ("ALTER TABLE bag DROP COLUMN name", "42703", "ALTER TABLE bag ADD name text"),
        ("ALTER TABLE bag ALTER name TYPE point USING NULL", "42", "ALTER TABLE bag ALTER name TYPE text USING NULL"),
    ],
)
async def test_what_the_target_lacks_waits_for_a_person(
    dsn: str,  # noqa: F811
    harm: str,
    state: str,
    mend: str,
) -> None:
    async with replica(dsn, create=False) as sink:
        run(dsn, "CREATE TABLE bag (id bigint, name text)")
        await sink.write([put(1)])
        run(dsn, harm)
        if state == "42":
            # A type that does not read the text: once it is known, the value's own matter.
            await refusal(sink, SinkGone, "42804", [put(2, "no point")])
            error = await refusal(sink, SinkRejected, "22P02", [put(2, "no point")])
            assert verdict(error) is Verdict.PARK
        else:
            error = await refusal(sink, SinkGone, state, [put(2, "no point")])
            assert verdict(error, 99) is Verdict.PAUSE
        run(dsn, mend)
    async with replica(dsn, create=False) as sink:
        await sink.write([put(1), put(2, "no point")])
    assert rows(dsn, "SELECT id FROM bag ORDER BY id") == [(1,), (2,)]


async def test_a_target_that_is_restarted_has_each_change_once(home: Path) -> None:
    """Stopped in the middle of a batch, or killed; each batch is asked for until it is taken."""
    with EmbeddedPostgres(home / "target") as own:
        sink = PostgresReplica(own.dsn, create=True)
        sink.belongs_to("copy")
        written = 0
        for end in (own.stop, lambda: own.stop("immediate"), own.kill):
            await sink.write([put(written + 1)])
            batch = [put(written + at) for at in range(2, 52)]
            writing = asyncio.create_task(sink.write(batch))
            await asyncio.sleep(0)
            await asyncio.to_thread(end)
            [ended] = await asyncio.gather(writing, return_exceptions=True)
            assert ended is Receipt.DURABLE or isinstance(ended, SinkUnavailable), ended
            with pytest.raises(SinkUnavailable) as caught:
                await sink.write([put(written + 52)])
            assert verdict(caught.value, 99) is Verdict.AGAIN
            await asyncio.to_thread(own.start)
            await sink.write([*batch, put(written + 52)])
            written += 52
        await sink.close()
        assert rows(own.dsn, "SELECT id FROM bag ORDER BY id") == [(number + 1,) for number in range(written)]
