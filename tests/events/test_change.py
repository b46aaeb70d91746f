"""One change: its rows, its key before and after, its lane, and what a transform makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.events.change import INSERT, TRUNCATE, Change, Operation
from backend_watcher.events.position import Position
from backend_watcher.events.row import ABSENT, UNCHANGED, Row
from backend_watcher.events.table import Column, Table
from backend_watcher.testing.builders import STREAM, change, table, transaction

FULL = table(replica_identity="f")
PAIR = table("public.lines", {"order": "text", "line": "text", "note": "text"}, ("line", "order"))
KEYLESS = table("public.log", {"a": "text", "b": "text"}, (), replica_identity="f")
BARE = table("public.bare", {"a": "text"}, ())
ONE = {"id": 1, "name": "a", "stock": 3}
LANES = 8


def update(of: Table | None = None, *, new: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> Change:
    return change("update", of, new=new, old=old)


@pytest.mark.parametrize("operation", list(Operation))
def test_operations(operation: Operation) -> None:
    made = change(operation.value, new=None if operation in ("delete", "truncate") else ONE)
    assert made.operation is operation
    assert made.operation == operation.value


def test_rows() -> None:
    made = update(new=ONE | {"id": 2}, old={"id": 1})
    assert made.new == made.row == {"id": 2, "name": "a", "stock": 3}
    assert made.old == {"id": 1, "name": ABSENT, "stock": ABSENT}
    assert (made.new is made.new, made.old is made.old) == (True, True)
    deleted = change("delete", old={"id": 1})
    assert (deleted.new, deleted.row) == (None, deleted.old)
    assert (change(new=ONE).old, change("truncate").new, change("truncate").old) == (None, None, None)
    with pytest.raises(ValueError, match=r"a truncate of public\.products has no row"):
        change("truncate").row  # noqa: B018


def test_a_row_without_columns_is_a_row() -> None:
    nothing = table("public.nothing", {}, ())
    made = change(of=nothing, new={})
    assert made.row == {}
    assert (made.key, made.key_bytes()) == ((), b"")
    assert change("delete", nothing, old={}).row == {}


def test_a_whole_old_row() -> None:
    made = update(FULL, new=ONE, old={"id": 1, "name": None, "stock": 3})
    assert made.old == {"id": 1, "name": None, "stock": 3}


def test_where_and_when() -> None:
    within = transaction(0x16_B374D848, -1, 9)
    made = change(new=ONE, ordinal=7, within=within)
    assert made.position == Position(0x16_B374D848, 7)
    assert made.commit_time == datetime(2000, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
    assert made.event_id == f"{STREAM.system_identifier}:{STREAM.slot}:16/B374D848:7"
    assert made.transaction is within


def test_a_repr_shows_no_values() -> None:
    made = change(new={"id": 1, "name": "secret"}, lsn=0x1F, ordinal=2)
    assert repr(made) == str(made) == "Change(insert public.products at 0/1F:2)"


def test_keys() -> None:
    assert change(new=ONE).key == (1,)
    assert change("delete", old={"id": 5}).key == (5,)
    assert change(of=PAIR, new={"order": "o", "line": "l"}).key == ("l", "o")
    assert change("truncate").key == change(of=KEYLESS, new={"a": "1"}).key == ()


def test_a_changed_key() -> None:
    same, moved = update(new=ONE), update(new=ONE, old={"id": 7})
    assert (same.key_changed(), same.key_before, same.key) == (False, None, (1,))
    assert (moved.key_changed(), moved.key_before, moved.key) == (True, (7,), (1,))
    whole = update(FULL, new=ONE, old=ONE | {"stock": 2})
    assert (whole.key_changed(), whole.key_before) == (False, None)
    # Only an update can change a key.
    assert not change("delete", old={"id": 7}).key_changed()
    assert not change(new=ONE).key_changed()
    assert not change("truncate").key_changed()


def test_a_key_too_large_to_be_sent_again() -> None:
    shape = table("public.t", {"id": "text", "n": "int4"})
    made = update(shape, new={"id": UNCHANGED, "n": 1}, old={"id": "long"})
    assert (made.key, made.key_changed(), made.key_before) == (("long",), False, None)
    assert made.key_bytes() == change(of=shape, new={"id": "long"}).key_bytes()
    both = update(PAIR, new={"order": "p", "line": UNCHANGED}, old={"order": "o", "line": "l"})
    assert (both.key, both.key_before) == (("l", "p"), ("l", "o"))
    # Nothing else is known of it.
    assert update(shape, new={"id": UNCHANGED}).key == (UNCHANGED,)


def test_a_replica_identity_that_is_not_the_primary_key() -> None:
    text = (bytes.decode, bytes)
    columns = (
        Column("id", 25, -1, False, *text),
        Column("email", 25, -1, True, *text),
        Column("n", 25, -1, False, *text),
    )
    shape = Table(5, "public", "users", "i", columns, ("id",))
    inserted = change(of=shape, new={"id": "1", "email": "e", "n": "x"})
    # The server sends the index's columns of an old row, and no primary key.
    deleted = change("delete", shape, old={"email": "e"})
    assert deleted.key_bytes() == inserted.key_bytes() == b"e"
    assert deleted.lane(LANES) == inserted.lane(LANES) >= 0
    moved = update(shape, new={"id": "1", "email": "f"}, old={"email": "e"})
    assert (moved.key_changed(), moved.lane(LANES)) == (True, -1)


@given(st.lists(st.text("ab1:\x01", max_size=4), min_size=4, max_size=4))
def test_key_bytes_are_equal_for_equal_keys_only(texts: list[str]) -> None:
    one = change(of=PAIR, new={"order": texts[0], "line": texts[1], "note": "x"})
    other = change("delete", PAIR, old={"order": texts[2], "line": texts[3]})
    assert (one.key_bytes() == other.key_bytes()) == (one.key == other.key)
    if one.key == other.key:
        assert one.lane(LANES) == other.lane(LANES)


def test_key_bytes_without_a_primary_key() -> None:
    one = change(of=KEYLESS, new={"a": "1", "b": "2"})
    assert one.key_bytes() == change("delete", KEYLESS, old={"a": "1", "b": "2"}).key_bytes()
    assert one.key_bytes() != change(of=KEYLESS, new={"a": "1", "b": "3"}).key_bytes()
    # NULL is no text that looks like it.
    null = change(of=KEYLESS, new={"a": "1", "b": None})
    for value in ("None", "", "n", "NULL", "UNCHANGED"):
        assert null.key_bytes() != change(of=KEYLESS, new={"a": "1", "b": value}).key_bytes()
    # Nothing identifies a row: all share a lane.
    assert change(of=BARE, new={"a": "1"}).key_bytes() == b""
    assert change(of=BARE, new={"a": "1"}).lane(LANES) == change(of=BARE, new={"a": "2"}).lane(LANES)


def test_lanes() -> None:
    lanes = [change(new={"id": number}).lane(LANES) for number in range(200)]
    assert set(lanes) == set(range(LANES))
    assert [change("delete", old={"id": number}).lane(LANES) for number in range(200)] == lanes
    assert [update(new={"id": number, "stock": 5}).lane(LANES) for number in range(200)] == lanes
    # More than one key: everything before it first, and nothing beside it.
    assert change("truncate").lane(LANES) == -1
    assert update(new=ONE, old={"id": 7}).lane(LANES) == -1
    assert change(new=ONE).lane(1) == 0


def test_changed_columns() -> None:
    assert update(FULL, new=ONE, old=ONE).changed_columns() == set()
    assert update(FULL, new=ONE, old=ONE | {"stock": None, "name": "b"}).changed_columns() == {"stock", "name"}
    assert update(FULL, new=ONE | {"name": UNCHANGED}, old=ONE | {"stock": 1}).changed_columns() == {"stock"}
    # It cannot be known.
    assert update(new=ONE, old={"id": 7}).changed_columns() is None
    assert update(new=ONE).changed_columns() is None
    assert change(new=ONE).changed_columns() is None
    assert change("delete", FULL, old=ONE).changed_columns() is None


def test_replace() -> None:
    made = update(FULL, new=ONE, old=ONE | {"stock": 1})
    copy = made.replace(new={**made.row, "name": "***", "other": 5})
    assert copy.new == {"id": 1, "name": "***", "stock": 3}
    assert copy.old is made.old
    assert (copy.position, copy.operation, copy.table, copy.transaction, copy.size_bytes) == (
        made.position,
        made.operation,
        made.table,
        made.transaction,
        made.size_bytes,
    )
    assert made.new == ONE
    old = made.replace(old={"id": 9})
    assert old.old == {"id": 9, "name": ABSENT, "stock": ABSENT}
    assert old.new is made.new
    assert change("truncate").replace().new is None


KINDS = {"uuid": UUID(int=7), "text": "a", "date": "2026-07-31", "int8": 5, "numeric": Decimal("1.50"), "bytea": b"\0"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_transform_moves_no_row_to_another_lane(kind: str) -> None:
    shape = table("public.t", {"id": kind, "card": "text"}, replica_identity="f")
    row = {"id": KINDS[kind], "card": "1234"}
    made = update(shape, new=row, old=row | {"card": "5"})
    assert made.new is not None
    masked = made.replace(new={**made.new, "card": "***"})
    assert (masked.key_changed(), masked.key_before, masked.key) == (False, None, made.key)
    assert masked.key_bytes() == made.key_bytes()
    assert masked.lane(LANES) == made.lane(LANES) == change("delete", shape, old=row).lane(LANES)
    # A key that is itself written another way: the same row of the source all the same.
    renamed = made.replace(new={"id": "tenant-7"})
    assert (renamed.key, renamed.key_bytes()) == (("tenant-7",), made.key_bytes())


def test_a_transform_changes_no_column_but_its_own() -> None:
    made = update(FULL, new=ONE, old=ONE | {"stock": 1})
    assert made.new is not None
    assert made.old is not None
    assert made.replace(new={**made.new}).changed_columns() == {"stock"}
    assert made.replace(old={**made.old}).changed_columns() == {"stock"}
    assert made.replace(new={**made.new, "name": "***"}).changed_columns() == {"stock", "name"}
    assert made.replace(new={"id": 1}).changed_columns() == set()


def test_values_are_decoded_when_they_are_asked_for() -> None:
    asked: list[bytes] = []

    def load(data: bytes) -> str:
        asked.append(data)
        return data.decode()

    columns = tuple(Column(name, 25, -1, True, load, load) for name in ("id", "name"))
    shape = Table(5, "public", "t", "f", columns, ("id",))
    made = update(shape, new={"id": "1", "name": "a"}, old={"id": "1", "name": "b"})
    assert made.new is not None
    assert (made.key_changed(), made.lane(1), made.key_bytes(), made.event_id[:1]) == (False, 0, b"1", "7")
    assert made.changed_columns() == {"name"}
    assert repr(made)
    assert asked == []
    assert made.key == ("1",)
    assert asked == [b"1"]


def test_what_it_took_in_the_stream() -> None:
    assert Change(INSERT, FULL, transaction(), 0, b"\0" + b"x" * 99, 0, 0, False).size_bytes == 100
    assert Change(TRUNCATE, FULL, transaction(), 0, b"", 0, 0, False).size_bytes == 0


def test_a_row_made_by_a_transform_has_a_key() -> None:
    made = change("delete", old={"id": 1}).replace(old=Row.of(FULL, {"id": 4}))
    assert made.key == (4,)
