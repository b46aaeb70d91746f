"""`watcher outbox`: made, printed, taken away, each said in words and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from cli.commands import watcher

PROGRAM = """
from backend_watcher import Watcher
watcher = Watcher("shop")

@watcher.on("goods")
async def note(change): pass
"""


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with EmbeddedPostgres() as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE goods (id int PRIMARY KEY)")
        yield server.dsn


def test_it_is_made_printed_and_taken_away(folder: Path, dsn: str) -> None:
    (folder / "goods.py").write_text(PROGRAM)
    more = {"WATCHER_SOURCE__DSN": dsn, "WATCHER_SOURCE__KIND": "outbox"}
    printed = watcher(folder, "outbox", "print", "goods.py", "--role", "reader", **more)
    assert printed.code == 0
    assert "CREATE SCHEMA IF NOT EXISTS watcher;" in printed.out
    assert 'GRANT SELECT, UPDATE ON watcher.outbox_reader TO "reader";' in printed.out
    assert "AFTER TRUNCATE ON public.goods" in printed.out
    assert "1 tables write into the outbox" in watcher(folder, "outbox", "install", "goods.py", **more).out
    assert watcher(folder, "outbox", "install", "goods.py", "--json", **more).json == {
        "tables": ["public.goods"],
        "changed": 0,
        "exit_code": 0,
    }
    refused = watcher(folder, "outbox", "remove", "goods.py", **more)
    assert refused.code == 2
    assert "--yes" in refused.err
    assert watcher(folder, "outbox", "remove", "goods.py", "--yes", "--json", **more).json == {
        "triggers": 2,
        "exit_code": 0,
    }
    assert "DROP FUNCTION watcher.outbox_write() CASCADE;" in watcher(folder, "outbox", "print", "--remove").out


def test_another_kind_is_refused(folder: Path, dsn: str) -> None:
    (folder / "goods.py").write_text(PROGRAM)
    refused = watcher(folder, "outbox", "install", "goods.py", WATCHER_SOURCE__DSN=dsn)
    assert refused.code == 2
    assert "source.kind is 'logical'" in refused.err
