"""The outbox made, printed and taken away for what a program hears; and one run of the whole street."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from backend_watcher import Change, Watcher
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import ConfigError, PreflightFailed
from backend_watcher.service.config import Config, load_config
from backend_watcher.service.control import check, status
from backend_watcher.service.outbox import install_outbox, outbox_script, removal_script, remove_outbox
from backend_watcher.service.supervise import supervise


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A server on which logical decoding cannot be had."""
    with EmbeddedPostgres(settings={"wal_level": "replica"}) as postgres:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE products (id int PRIMARY KEY, stock int)")
            connection.execute('CREATE TABLE "Odd name" (id int PRIMARY KEY)')
        yield postgres


def shop(heard: asyncio.Queue[tuple[str, int]] | None = None) -> Watcher:
    watcher = Watcher("shop")

    @watcher.on("products", "Odd name", name="note")
    async def note(change: Change) -> None:
        if heard is not None:
            loop.call_soon_threadsafe(heard.put_nowait, (change.operation, change.row["id"]))

    loop = asyncio.get_running_loop()
    return watcher


def config(server: EmbeddedPostgres, watcher: Watcher, folder: Path, kind: str = "outbox") -> Config:
    environ = {
        "WATCHER_SOURCE__DSN": server.dsn,
        "WATCHER_SOURCE__KIND": kind,
        "WATCHER_JOURNAL__PATH": str(folder / "j"),
    }
    return load_config(None, environ, watcher=watcher)


async def test_from_a_check_that_recommends_it_to_a_change_that_is_heard(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    heard: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    watcher = shop(heard)
    report = await check(config(server, watcher, tmp_path, "logical"), watcher)
    assert [finding.code for finding in report.faults] == ["wal_level"]
    (advice,) = [finding for finding in report.findings if finding.code == "kind"]
    assert 'kind = "outbox"' in advice.message
    found = config(server, watcher, tmp_path)
    with pytest.raises(PreflightFailed, match="no outbox yet"):
        await supervise(found, watcher)
    done = await install_outbox(found, watcher)
    assert (len(done.tables), done.changed) == (2, 2)
    assert (await install_outbox(found, watcher)).changed == 0
    assert (await check(found, watcher)).faults == ()
    running = asyncio.create_task(supervise(found, watcher))
    async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as app:
        await app.execute("INSERT INTO products VALUES (1, 5)")
        await app.execute("UPDATE products SET id = 1 WHERE id = 1")
        await app.execute("UPDATE products SET stock = 6 WHERE id = 1")
        await app.execute('INSERT INTO "Odd name" VALUES (2)')
        async with asyncio.timeout(30):
            got = [await heard.get() for _ in range(4)]
    assert sorted(got) == [("insert", 1), ("insert", 2), ("update", 1), ("update", 1)]
    shown = await status(found, watcher)
    assert shown.process is not None
    assert shown.source is not None
    assert shown.source.heard.startswith("outbox: read to ")
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    assert await remove_outbox(found) == 4


async def test_the_statements_that_are_printed_do_the_same(server: EmbeddedPostgres, tmp_path: Path) -> None:
    watcher = shop()
    found = config(server, watcher, tmp_path)
    script = await outbox_script(found, watcher, None)
    assert 'ON public."Odd name"' in script
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        for _ in range(2):
            connection.execute(script.encode())
        assert (await install_outbox(found, watcher)).changed == 0
        connection.execute(removal_script().encode())
    assert await remove_outbox(found) == 0


async def test_another_kind_has_no_outbox(server: EmbeddedPostgres, tmp_path: Path) -> None:
    watcher = shop()
    with pytest.raises(ConfigError, match=r"source\.kind is 'logical'"):
        await install_outbox(config(server, watcher, tmp_path, "logical"), watcher)
