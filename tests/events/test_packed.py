"""A single change as bytes: the same change comes back, and anything else is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.errors import JournalBroken
from backend_watcher.events.change import Change
from backend_watcher.events.packed import pack, unpack
from backend_watcher.events.row import UNCHANGED
from backend_watcher.events.table import Table
from backend_watcher.testing.builders import STREAM, change, table, transaction

FULL = table(replica_identity="f")
PLAIN = table()


def rows(of: Change) -> tuple[Any, ...]:
    return (
        of.operation,
        of.table,
        of.event_id,
        of.position,
        of.transaction.xid,
        of.transaction.commit_micros,
        of.new and of.new.to_dict(),
        of.old and of.old.to_dict(),
        of.key,
        of.key_before,
        of.key_bytes(),
        of.replayed,
    )


VALUES = st.fixed_dictionaries(
    {"id": st.integers(0, 9), "name": st.sampled_from(["a", "", None, UNCHANGED]), "stock": st.integers(-5, 5)}
)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    operation = draw(st.sampled_from(["insert", "update", "delete", "truncate", "read"]))
    shape = draw(st.sampled_from([FULL, PLAIN]))
    new = draw(VALUES) if operation in ("insert", "update", "read") else None
    old = None
    if operation in ("update", "delete"):
        whole = {"id": 3, "name": "b", "stock": 1}
        old = draw(st.sampled_from([whole, {"id": 4}])) if operation == "delete" or draw(st.booleans()) else None
    within = transaction(
        draw(st.integers(1, 1 << 40)), draw(st.integers(-(1 << 50), 1 << 50)), draw(st.integers(3, 99))
    )
    made = change(operation, shape, new=new, old=old, within=within, ordinal=draw(st.integers(0, 1 << 31)))
    return made.as_replayed() if draw(st.booleans()) else made


@given(changes())
def test_the_same_change_comes_back(made: Change) -> None:
    assert rows(unpack(pack(made), made.table, STREAM)) == rows(made)


@given(changes(), st.data())
def test_what_is_cut_short_is_refused_or_lacks_only_its_old_row(made: Change, data: st.DataObject) -> None:
    whole = pack(made)
    cut = whole[: data.draw(st.integers(0, 30))]
    with pytest.raises(JournalBroken):
        unpack(cut, made.table, STREAM)


def test_another_shape_is_refused() -> None:
    made = change(new={"id": 1, "name": "a", "stock": 2})
    with pytest.raises(JournalBroken, match="does not have the shape"):
        unpack(pack(made), table(columns={"id": "int8"}), STREAM)


@given(st.binary(max_size=50), st.sampled_from([PLAIN, FULL]))
def test_what_was_said_of_its_transaction_comes_too(said: bytes, shape: Table) -> None:
    within = transaction(0x2000).with_context(said)
    old = {"id": 1, "name": "o", "stock": 1} if shape is FULL else None
    made = change("update", shape, new={"id": 1, "name": "n", "stock": 2}, old=old, within=within)
    again = unpack(pack(made), shape, STREAM)
    assert rows(again) == rows(made)
    assert again.transaction.context_bytes == said
    assert pack(made)[:2] == (b"P2" if said else b"P1")


def test_another_mark_is_refused() -> None:
    with pytest.raises(JournalBroken, match="begins with b'XX'"):
        unpack(b"XX" + bytes(60), PLAIN, STREAM)


def test_a_truncate_means_a_delete_for_one_key() -> None:
    made = change("update", FULL, new={"id": 1, "name": "n", "stock": 2}, old={"id": 1, "name": "o", "stock": 1})
    gone = made.as_delete(transaction(0x9000), 4)
    assert (gone.operation, gone.position.commit_lsn, gone.ordinal) == ("delete", 0x9000, 4)
    assert gone.new is None
    assert gone.old == {"id": 1, "name": "n", "stock": 2}
    assert gone.key_bytes() == made.key_bytes()
    # Two rows of one truncate are two events.
    other = change(new={"id": 2, "name": "n", "stock": 2}).as_delete(transaction(0x9000), 4)
    assert gone.event_id != other.event_id
    assert gone.event_id.startswith(change("truncate", lsn=0x9000, ordinal=4).event_id)
    assert rows(unpack(pack(gone), FULL, STREAM)) == rows(gone)
    with pytest.raises(ValueError, match="no row to delete"):
        change("truncate", FULL).as_delete(transaction(), 0)


def test_a_replayed_change_says_so_and_changes_nothing_else() -> None:
    made = change(new={"id": 1, "name": "a", "stock": 2})
    again = made.as_replayed()
    assert (made.replayed, again.replayed) == (False, True)
    assert rows(again)[:-1] == rows(made)[:-1]
    assert again.replace(new={"id": 1}).replayed
