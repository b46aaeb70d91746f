"""Keys that no row has take their place in the stream as deletes, on a real server, while others write."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from backend_watcher import probes
from backend_watcher.capture import pace
from backend_watcher.capture.backfill_jobs import BackfillState
from backend_watcher.events.change import Operation
from backend_watcher.events.row import ABSENT
from backend_watcher.testing.chunks import read_all

from .street import App, Street, eventually
from .test_backfill import ask, committed_and_unseen, ended, meanwhile, mirror, quick, source, waits

__all__ = ["quick"]
REMOVES: dict[str, Any] = {"repair": True, "removes": True}


def keys(*numbers: int) -> tuple[tuple[str, ...], ...]:
    return tuple((str(number),) for number in numbers)


async def test_a_key_without_a_row_comes_as_a_delete(app: App, street: Street) -> None:
    await app.run("INSERT INTO products SELECT n, 'p', n FROM generate_series(1, 9) n")
    async with street.listening():
        number = await ask(street.journal, keys=keys(3, 20, 7, 21), **REMOVES)
        job = await ended(street.journal, number)
    changes = await read_all(street.journal)
    assert (job.state, job.rows, job.stale, job.detail) == (BackfillState.DONE, 4, 0, "")
    assert sorted((change.key[0], str(change.operation)) for change in changes) == [
        (3, "read"),
        (7, "read"),
        (20, "delete"),
        (21, "delete"),
    ]
    assert {change.context["repair"] for change in changes} == {str(number)}
    (gone, *_) = [change for change in changes if change.operation is Operation.DELETE]
    assert gone.old == {"id": gone.key[0], "name": ABSENT, "stock": ABSENT}
    assert gone.derived


async def test_a_backfill_says_nothing_of_keys_that_no_row_has(app: App, street: Street) -> None:
    async with street.listening():
        job = await ended(street.journal, await ask(street.journal, keys=keys(3, 20)))
    assert (job.state, job.rows) == (BackfillState.DONE, 0)
    assert await read_all(street.journal) == []


async def test_a_row_that_comes_meanwhile_stays(app: App, street: Street) -> None:
    await app.run("INSERT INTO products SELECT n, 'old', n FROM generate_series(1, 9) n")
    # It was read that they are gone, or there, and that is not yet in the stream.
    meanwhile(
        app,
        "backfill.before_mark",
        "INSERT INTO products VALUES (20, 'new', 20)",
        "INSERT INTO products VALUES (21, 'new', 21)",
        "DELETE FROM products WHERE id = 21",
        "UPDATE products SET id = 22 WHERE id = 4",
        "DELETE FROM products WHERE id = 5",
    )
    async with street.listening():
        job = await ended(
            street.journal, await ask(street.journal, keys=keys(*range(1, 10), 20, 21, 22, 23), **REMOVES)
        )
    changes = await read_all(street.journal)
    assert (job.state, job.stale) == (BackfillState.DONE, 5)
    assert mirror(changes) == await source(app)
    assert [change.key[0] for change in changes if change.derived] == [23]


async def test_a_truncate_meanwhile_has_it_read_again(app: App, street: Street) -> None:
    await app.run("INSERT INTO products SELECT n, 'old', n FROM generate_series(1, 9) n")
    meanwhile(app, "backfill.before_mark", "TRUNCATE products", "INSERT INTO products VALUES (20, 'new', 1)")
    async with street.listening():
        job = await ended(street.journal, await ask(street.journal, keys=keys(1, 20), **REMOVES))
    changes = await read_all(street.journal)
    assert job.again >= 1
    assert mirror(changes) == await source(app)
    assert [change.key[0] for change in changes if change.derived] == [1]


async def test_a_row_that_is_committed_and_not_seen_yet_is_waited_for(app: App, street: Street) -> None:
    await app.run("INSERT INTO products SELECT n, 'old', n FROM generate_series(1, 9) n")
    async with street.listening():
        async with committed_and_unseen(app, street, "UPDATE products SET id = 20 WHERE id = 5"):
            number = await ask(street.journal, keys=keys(5, 20, 21), **REMOVES)
            await eventually(lambda: waits(street.journal, number))
        job = await ended(street.journal, number)
    changes = await read_all(street.journal)
    assert (job.state, job.detail) == (BackfillState.DONE, "")
    # The key that the row had is gone, the one that it has is not.
    assert sorted(change.key[0] for change in changes if change.derived) == [5, 21]
    assert [change.key[0] for change in changes if change.operation is Operation.READ] == [20]


@pytest.mark.parametrize("identity", ["FULL", "DEFAULT", "USING INDEX pairs_b_key"])
async def test_every_identity_names_the_row(app: App, street: Street, identity: str) -> None:
    await app.run(
        "CREATE TABLE pairs (a text, b int NOT NULL UNIQUE, note text, PRIMARY KEY (a))",
        f"ALTER TABLE pairs REPLICA IDENTITY {identity}",
        "INSERT INTO pairs VALUES ('x', 1, 'n')",
    )
    street.change(tables=("public.pairs",))
    by_index = identity.startswith("USING")
    async with street.listening():
        wished = ("1", "2") if by_index else ("x", "it's\t\\")
        job = await ended(
            street.journal, await ask(street.journal, "public.pairs", keys=tuple((key,) for key in wished), **REMOVES)
        )
        await app.run("DELETE FROM pairs")
        await eventually(lambda: _counts(street, 3))
    changes = await read_all(street.journal)
    assert job.state is BackfillState.DONE, job.detail
    made, read, deleted = changes
    assert [change.operation for change in (made, read, deleted)] == ["delete", "read", "delete"]
    assert read.key_bytes() == deleted.key_bytes()
    assert made.key_bytes() == wished[1].encode()
    assert made.row["note"] is ABSENT


async def _counts(street: Street, count: int) -> bool:
    return len(await read_all(street.journal)) == count


@pytest.mark.parametrize(("table", "said"), [("public.log", "has no key"), ("public.words", "invalid input syntax")])
async def test_what_cannot_be_asked_fails_by_itself(app: App, street: Street, table: str, said: str) -> None:
    await app.run(
        "CREATE TABLE log (line text)",
        "ALTER TABLE log REPLICA IDENTITY FULL",
        "CREATE TABLE words (id int PRIMARY KEY)",
    )
    street.change(tables=("public.log", "public.words"))
    async with street.listening():
        job = await ended(street.journal, await ask(street.journal, table, keys=(("x",),), **REMOVES))
    assert job.state is BackfillState.FAILED
    assert said in job.detail


async def test_a_restart_may_say_it_twice_and_never_later_than_it_was_true(app: App, street: Street) -> None:
    await app.run("INSERT INTO products SELECT n, 'p', n FROM generate_series(1, 9) n")
    stopped = itertools.count(1)

    def fails_once() -> None:
        if next(stopped) == 1:
            raise TimeoutError

    probes.arm("backfill.before_note", fails_once)
    async with street.listening():
        number = await ask(street.journal, keys=keys(1, 20), **REMOVES)
        await eventually(lambda: _counts(street, 4))
        job = await ended(street.journal, number)
    changes = await read_all(street.journal)
    assert job.state is BackfillState.DONE
    assert [change.operation for change in changes] == ["delete", "read"] * 2
    assert mirror(changes) == {key: row for key, row in (await source(app)).items() if key == (1,)}


async def test_rows_come_and_go_while_it_is_read_that_there_is_none(
    app: App, street: Street, dice: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a sink holds at the end is what the source has, whatever it held at first."""
    for name in ("ROWS_FIRST", "ROWS_MIN", "ROWS_MAX"):
        monkeypatch.setattr(pace, name, 3)
    many = range(1, 31)
    await app.run("INSERT INTO products SELECT n, 'p', n FROM generate_series(1, 30, 2) n")

    def one() -> str:
        key = dice.choice(many)
        is_free = f"NOT EXISTS (SELECT FROM products p WHERE p.id = {key + 1})"
        return dice.choice(
            (
                f"INSERT INTO products VALUES ({key}, 'new', {dice.randrange(1000)}) ON CONFLICT DO NOTHING",
                f"DELETE FROM products WHERE id = {key}",
                f"UPDATE products SET stock = stock + 1 WHERE id = {key}",
                f"UPDATE products SET id = id + 1 WHERE id = {key} AND {is_free}",
            )
        )

    held: dict[Any, dict[str, Any]] = {
        (key,): {"id": key, "name": "by hand", "stock": -1} for key in many if dice.random() < 0.7
    }
    async with street.listening():
        for _ in range(8):
            number = await ask(street.journal, keys=keys(*many), **REMOVES)
            for _ in range(40):
                await app.run(one())
            job = await ended(street.journal, number)
            assert job.state is BackfillState.DONE, job.detail
        await app.insert(1000)

        async def arrived() -> bool:
            return any(change.key == (1000,) for change in await read_all(street.journal))

        await eventually(arrived)
        changes = await read_all(street.journal)
    for change in changes:
        if change.key_before is not None:
            held.pop(change.key_before, None)
        if change.operation is Operation.DELETE:
            held.pop(change.key, None)
        else:
            held[change.key] = dict(change.row)
    assert held == await source(app)
    assert any(change.derived for change in changes)
