"""A logical message as a user's function sees it."""

from __future__ import annotations

import pytest

from backend_watcher.decode.messages import MESSAGES, message_row
from backend_watcher.events.change import INSERT, Change
from backend_watcher.events.message import FULL_NAME, Message
from backend_watcher.events.position import Position
from backend_watcher.testing import builders


def message(prefix: str, content: bytes, context: bytes = b"") -> Message:
    within = builders.transaction(0x1000).with_context(context)
    return Message(Change(INSERT, MESSAGES, within, 3, b" " + message_row(prefix, content), 1, 0, False))


def test_what_it_says() -> None:
    said = message("shop.order", b'{"id": 42}', b'{"user": "ann"}')
    assert (said.prefix, said.content, said.text, said.json()) == (
        "shop.order",
        b'{"id": 42}',
        '{"id": 42}',
        {"id": 42},
    )
    assert (said.position, said.event_id.split(":")[2:]) == (Position(0x1000, 3), ["0/1000", "3"])
    assert (said.transaction.xid, said.commit_time.year, said.replayed) == (700, 2000, False)
    assert said.context == {"user": "ann"}
    assert repr(said) == "Message('shop.order' at 0/1000:3)"


def test_bytes_of_any_kind() -> None:
    said = message("", b"\xff\0")
    assert (said.prefix, said.content) == ("", b"\xff\0")
    with pytest.raises(UnicodeDecodeError):
        _ = said.text


def test_its_table_is_one_that_nobody_can_make() -> None:
    assert FULL_NAME == MESSAGES.full_name == "pg_catalog.pg_logical_message"
    assert MESSAGES.relation_oid == 0
