"""Logical messages and what is said of transactions, from a real server into the journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend_watcher import probes
from backend_watcher.capture import logical
from backend_watcher.capture.prepare import NUMBERED
from backend_watcher.context import context_sql
from backend_watcher.errors import SourceUnavailable
from backend_watcher.events.message import FULL_NAME, Message
from backend_watcher.journal import MemoryJournal, SqliteJournal
from backend_watcher.testing.chunks import read_all

from .street import App, Street, eventually


def say(prefix: str, content: str, transactional: bool = True) -> str:
    return f"SELECT pg_logical_emit_message({str(transactional).lower()}, '{prefix}', '{content}')"


async def test_a_message_has_its_place_among_the_changes(app: App, street: Street) -> None:
    street.change(messages=True)
    async with street.listening():
        await app.run(
            "BEGIN", "INSERT INTO products VALUES (1)", say("shop", "sold"), "INSERT INTO products VALUES (2)", "COMMIT"
        )
        await app.run("BEGIN", say("shop", "never"), "ROLLBACK")
        await app.run(say("shop", "at once", transactional=False), say("backend_watcher.mine", "not for you"))
        await app.run(say("shop", "alone"))
        changes = await street.changes(4)
    assert [change.table.full_name for change in changes] == [
        "public.products",
        FULL_NAME,
        "public.products",
        FULL_NAME,
    ]
    sold, alone = Message(changes[1]), Message(changes[3])
    assert [(said.prefix, said.text) for said in (sold, alone)] == [("shop", "sold"), ("shop", "alone")]
    assert changes[0].position < sold.position < changes[2].position
    assert sold.transaction.xid == changes[0].transaction.xid


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_what_is_said_of_a_transaction_is_with_every_change_after_it(
    app: App, street: Street, tmp_path: Path, kind: str
) -> None:
    street.journal = MemoryJournal() if kind == "memory" else SqliteJournal(tmp_path / "j.db")
    await street.journal.open()
    rows = 40_000
    async with street.listening():
        await app.run("INSERT INTO products VALUES (1)")
        fill = f"INSERT INTO products SELECT g, repeat('x', 100) FROM generate_series(2, {rows}) g"
        await app.run("BEGIN", context_sql(user="ann", request_id=7), fill, "COMMIT")
        await app.run("INSERT INTO products VALUES (0)")
        changes = await street.changes(rows + 1)
    assert [dict(change.transaction.context) for change in (changes[0], changes[-1])] == [{}, {}]
    # Also where the journal's blocks begin in the middle of the transaction.
    assert all(change.transaction.context == {"user": "ann", "request_id": 7} for change in changes[1:-1])
    await street.journal.close()


async def test_in_a_transaction_in_parts_only_what_is_said_of_it_comes(
    app: App, street: Street, tmp_path: Path
) -> None:
    """The server does not say which savepoint a message belongs to, so one could be heard that was undone."""
    street.change(spill_folder=tmp_path / "spill", messages=False)
    await app.run("ALTER SYSTEM SET logical_decoding_work_mem = '64kB'", "SELECT pg_reload_conf()")
    parts = []
    probes.arm("capture.before_streamed", lambda: parts.append(1))
    try:
        async with street.listening():
            fill = "INSERT INTO products SELECT g, repeat('x', 200) FROM generate_series({}, {}) g"
            await app.run("BEGIN", context_sql(user="ann"), fill.format(1, 1000), say("shop", "half"))
            await app.run("SAVEPOINT a", say("shop", "undone"), fill.format(5000, 6000))
            await app.run("ROLLBACK TO a", fill.format(1001, 2000), "COMMIT")
            changes = await street.changes(2000)
    finally:
        await app.run("ALTER SYSTEM RESET logical_decoding_work_mem", "SELECT pg_reload_conf()")
    assert parts
    assert {change.transaction.context["user"] for change in changes} == {"ann"}
    assert [change.position.ordinal for change in changes] == list(range(2000))


@pytest.mark.parametrize("first", [True, False])
async def test_wanted_or_not_wanted_any_more_in_the_middle_of_a_transaction(
    app: App, street: Street, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun with numbers for messages is ended with them: nothing of it is missing."""
    rows = 3000
    street.change(messages=first)
    monkeypatch.setattr(logical, "RECEIVE_BYTES", 20_000)
    told = 0

    def cut() -> None:
        nonlocal told
        told += 1
        if told == 4:
            street.change(messages=not first)
            raise SourceUnavailable("cut")

    probes.arm("capture.before_append", cut)
    async with street.listening():
        await app.run(
            "BEGIN",
            *(
                f"INSERT INTO products VALUES ({n}, repeat('x', 100)); {say('shop', str(n))}"
                for n in range(1, rows + 1)
            ),
            "COMMIT",
        )
        await street.reach("waiting")
    async with street.listening():
        await app.insert(rows + 1)
        await eventually(lambda: has(street, rows + 1))
    changes = await read_all(street.journal)
    keys = [change.row["id"] for change in changes if change.table.full_name != FULL_NAME]
    assert list(dict.fromkeys(keys)) == list(range(1, rows + 2))
    assert not first or len(keys) == rows + 1
    async with street.listening():
        assert (await street.journal.get_note(NUMBERED) is not None) == (not first)


async def has(street: Street, key: int) -> bool:
    return any(change.row.to_dict().get("id") == key for change in await read_all(street.journal))
