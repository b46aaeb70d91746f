"""Which row an entry without one would be of: only where a delete of it would remove that entry and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from backend_watcher.errors import HandlerError
from backend_watcher.events.change import Change
from backend_watcher.postgres.reading import ReadColumn, ReadTable
from backend_watcher.reconcile.extras import CANNOT_SAY, DROPPED, NO_VALUE, OTHER_NAME, RAISES, keys_of_extras
from backend_watcher.reconcile.repair import Key
from backend_watcher.reconcile.source import SourceTable
from backend_watcher.sinks import RedisCache
from backend_watcher.testing import builders
from backend_watcher.verifiable import Verifiable

from .world import World, WorldSink

ITEMS = builders.table("public.items", {"id": "int8", "note": "text"}, replica_identity="f")
PAIRS = builders.table("public.pairs", {"a": "text", "b": "text"}, ("b", "a"))


class Written:
    """A source that writes keys as a server writes integers and texts."""

    async def written(self, table: SourceTable, keys: Sequence[Key]) -> list[bytes | None]:
        assert all(len(key) == len(table.read.key) for key in keys)
        if table.shape is PAIRS:
            return ["\t".join(key).encode() + b"\n" for key in keys]
        return [b"%d\n" % int(text) if int(text) < 1000 else None for (text,) in keys]


def read(table: builders.Table, key: tuple[str, ...] | None = None) -> SourceTable:
    columns = tuple(ReadColumn(c.name, c.type_oid, -1, c.identity) for c in table.columns)
    key = key or table.primary_key
    found = ReadTable(table.relation_oid, "public", table.name, "r", table.replica_identity, columns, key, None, (), 0)
    return SourceTable(None, found, table)  # type: ignore[arg-type]


async def keys(
    *names: bytes,
    sink: Verifiable | None = None,
    table: SourceTable | None = None,
    passing: Callable[[Change], Change | None] = lambda change: change,
) -> dict[bytes, Key | str]:
    sink = sink or RedisCache("i:{id}")
    return await keys_of_extras(Written(), table or read(ITEMS), sink, passing, names)  # type: ignore[arg-type]


async def test_the_key_is_read_out_of_the_name_as_the_server_writes_it() -> None:
    assert await keys(b"i:7", b"i:-7") == {b"i:7": ("7",), b"i:-7": ("-7",)}
    assert await keys(b"i:007", b"i:5000", b"i:x") == {
        b"i:007": OTHER_NAME,
        b"i:5000": NO_VALUE,
        b"i:x": "more than one row may have this key, or none",
    }
    assert await keys() == {}


async def test_the_columns_of_a_key_come_in_their_order() -> None:
    found = await keys(b"p:1/2", b"p:1/2/3", sink=RedisCache("p:{a}/{b}"), table=read(PAIRS))
    assert found == {b"p:1/2": ("2", "1"), b"p:1/2/3": "more than one row may have this key, or none"}


async def test_a_name_that_is_not_made_from_the_key_says_nothing() -> None:
    assert await keys(b"n:x", sink=RedisCache("n:{note}")) == {b"n:x": "'n:{note}' is not made from the primary key"}
    assert await keys(b"i:7", table=read(ITEMS, ("note",))) == {b"i:7": "public.items is told by note"}
    assert await keys(b"m:x", sink=WorldSink(World(None))) == {b"m:x": CANNOT_SAY}  # type: ignore[arg-type]


def _raises(change: Change) -> Change:
    raise HandlerError("no")


def _moves(change: Change) -> Change:
    assert change.old is not None
    return change.replace(old={**change.old, "id": 8})


def _loses(change: Change) -> Change:
    return change.replace(old={"note": "x"})


@pytest.mark.parametrize(
    ("passing", "why"), [(lambda _: None, DROPPED), (_raises, RAISES), (_moves, OTHER_NAME), (_loses, OTHER_NAME)]
)
async def test_what_delivery_would_not_bring_to_the_entry(passing: Callable[[Change], Change | None], why: str) -> None:
    assert await keys(b"i:7", passing=passing) == {b"i:7": why}
