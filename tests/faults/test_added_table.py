"""
A table is added to the publication while transactions that write to it are open: what they write afterwards arrives.

Random permutations of three sessions, with savepoints and rollbacks, around a start of capture that adds the table.
What was written before the table was added may be missing: that is what its rows are loaded for.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.journal import MemoryJournal
from backend_watcher.testing.chunks import read_all
from capture.street import App, Street, eventually

from .results import Part
from .scale import dice, repeats

PERMUTATIONS = repeats(6, 50)
SESSIONS = 3
STEPS_BEFORE, STEPS_AFTER = 8, 12
MARK = 1_000_000


@dataclass
class Session:
    """An application's transaction: the rows it wrote, since its beginning and since its savepoint."""

    app: App
    rows: list[int] = field(default_factory=list)
    saved: int | None = None
    is_open: bool = False

    async def step(self, dice: random.Random, row: int) -> tuple[list[int], int | None]:
        """Do one thing; return the rows it committed, and the row it wrote."""
        if not self.is_open:
            await self.app.run("BEGIN")
            self.is_open = True
        match dice.choice(["insert", "insert", "insert", "savepoint", "rollback to", "commit", "rollback"]):
            case "savepoint":
                await self.app.run("SAVEPOINT s")
                self.saved = len(self.rows)
            case "rollback to" if self.saved is not None:
                await self.app.run("ROLLBACK TO s")
                del self.rows[self.saved :]
            case "commit":
                return await self.commit(), None
            case "rollback":
                await self.app.run("ROLLBACK")
                self.rows, self.saved, self.is_open = [], None, False
            case _:
                await self.app.run(f"INSERT INTO late VALUES ({row})")
                self.rows.append(row)
                return [], row
        return [], None

    async def commit(self) -> list[int]:
        """Commit, and return the rows."""
        if self.is_open:
            await self.app.run("COMMIT")
        rows, self.rows, self.saved, self.is_open = self.rows, [], None, False
        return rows


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(settings={"fsync": "off"}) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE early (id int PRIMARY KEY); CREATE TABLE late (id int PRIMARY KEY)")
        yield server


@pytest.fixture
async def sessions(server: EmbeddedPostgres) -> AsyncIterator[list[Session]]:
    async with AsyncExitStack() as stack:
        yield [Session(await stack.enter_async_context(App.connected(server.dsn))) for _ in range(SESSIONS)]


@pytest.mark.slow
@pytest.mark.large
@pytest.mark.timeout(repeats(120, 400))
@pytest.mark.scenario("32", "a table is added under open transactions")
async def test_what_is_written_afterwards_arrives(
    server: EmbeddedPostgres, sessions: list[Session], result: Part
) -> None:
    rolls = dice("a table is added")
    for number in range(PERMUTATIONS):
        lost, phantoms = await permutation(server, sessions, rolls, number)
        result.add(runs=1, lost=lost, phantoms=phantoms)
        assert (lost, phantoms) == (0, 0), f"permutation {number}"


async def permutation(
    server: EmbeddedPostgres, sessions: list[Session], rolls: random.Random, number: int
) -> tuple[int, int]:
    """Live through one; return how many rows were lost, and how many came that were never committed."""
    journal = MemoryJournal()
    await journal.open()
    street = Street(server.dsn, journal, "public.early")
    row, committed, must = number * 1000, set(), set()

    async def steps(count: int, *, after: bool) -> None:
        nonlocal row
        for _ in range(count):
            row += 1
            done, written = await rolls.choice(sessions).step(rolls, row)
            committed.update(done)
            if after and written is not None:
                must.add(written)

    async with street.listening():
        pass
    await steps(STEPS_BEFORE, after=False)
    street.change(tables=("public.early", "public.late"))
    async with street.listening():
        await steps(STEPS_AFTER, after=True)
        for session in sessions:
            committed.update(await session.commit())
        mark = MARK + number
        await sessions[0].app.run(f"INSERT INTO early VALUES ({mark})")

        async def arrived() -> bool:
            return any(change.row["id"] == mark for change in await read_all(journal))

        await eventually(arrived)
    delivered = {change.row["id"] for change in await read_all(journal)} - {mark}
    free = "SELECT NOT active FROM pg_replication_slots WHERE slot_name = %s"
    await eventually(lambda: sessions[0].app.ask(free, street.slot))
    await sessions[0].app.ask("SELECT pg_drop_replication_slot(%s)", street.slot)
    await journal.close()
    return len(must & committed - delivered), len(delivered - committed)
