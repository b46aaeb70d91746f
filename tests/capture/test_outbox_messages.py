"""Rows with the shape they were written with: a table is described where it has to be, and not again."""

from __future__ import annotations

import pytest

from backend_watcher.capture.outbox_messages import Messages
from backend_watcher.errors import ProtocolError
from backend_watcher.postgres import outbox_install
from backend_watcher.postgres.connect import connect
from backend_watcher.postgres.outbox import OutboxRow

from .street import App

XLOG_HEADER = 25


def kinds(messages: list[bytes]) -> str:
    return "".join(chr(message[XLOG_HEADER]) for message in messages)


async def test_a_table_is_described_first_and_when_it_looks_otherwise(app: App) -> None:
    await app.run(outbox_install.script(notify=False))
    columns = '[["id", 20, -1, ""], ["twice", 20, -1, "s"]]'
    for shape in (1, 2):
        await app.run(f"INSERT INTO watcher.outbox_shape VALUES ({shape}, 16384, 'public', 'a', '{columns}')")
    await app.run("INSERT INTO watcher.outbox_shape VALUES (3, 16385, 'public', 'b', '[]')")
    rows = [OutboxRow(7, n, shape, "I", None, b"(1,2)") for n, shape in enumerate([1, 1, 2, 2, 1])]
    async with await connect(app.dsn, purpose="test") as conn:
        messages = Messages(conn)
        assert kinds(await messages.of(rows)) == "RIIRIIRI"
        assert kinds(await messages.of([OutboxRow(8, 9, 3, "T", None, None), rows[0]])) == "RTI"
        said = await messages.of([OutboxRow(8, 10, 0, "M", "pre\u00fc".encode(), b"")])
        assert kinds(said) == "M"
        assert "pre\u00fc\0".encode() in said[0]
        with pytest.raises(ProtocolError, match="no shape 4"):
            await messages.of([OutboxRow(8, 9, 4, "I", None, b"(1)")])
