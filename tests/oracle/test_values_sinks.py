"""
Every type through every sink and back: what a sink keeps or sends is given to the server, which says what it is.

Out of databases with other settings, another encoding or none. A value is the same when the server prints the same for
it under the settings of `conftest.py`.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest
import redis
from test_values_streamed import (
    LATIN1,
    SQL_ASCII,
    UTF8,
    VALUES_MIN,
    Database,
    copied,
    database,
    everything,
    journal,
    made,
    plain,
    session,
    written,
)

from backend_watcher.embedded import EmbeddedValkey
from backend_watcher.events.change import Change
from backend_watcher.journal import MemoryJournal
from backend_watcher.sinks import PostgresReplica, RedisCache
from backend_watcher.sinks.handler import Handler
from backend_watcher.sinks.webhook_body import Body

__all__ = ["database", "journal", "plain"]

# In JSON nobody can tell whether such an array has one dimension more or holds a list, nor which NULL is meant;
# docs/values.md says so, and `row.raw` has the text.
AMBIGUOUS = ("json[]", "jsonb[]")
NUMBERS_AS_WRITTEN = json.JSONDecoder(parse_int=str, parse_float=str)
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]')
BOUNDS = re.compile(r"\[-?\d+:")
Cells = dict[str, str | None]


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
async def changes(database: Database, journal: MemoryJournal) -> AsyncIterator[list[Change]]:
    return await everything(database, journal)


def parts(raw: str) -> list[str]:
    """Return the elements of a list, or the names and values of an object in turn, as they are written."""
    inner, found, begun, depth = raw[1:-1], [], 0, 0
    # Not by a parser: a document may be nested deeper than one goes, and a number longer than one takes.
    for token in TOKEN.finditer(inner):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if not depth and token[0] in ",:":
            found.append(inner[begun : token.start()])
            begun = token.end()
    return [*found, inner[begun:]] if inner else []


def members(raw: bytes | str) -> dict[str, str]:
    """Return the values of an object, as they are written: no number is made a float of."""
    found = parts(raw if isinstance(raw, str) else raw.decode())
    return {json.loads(name): value for name, value in zip(found[::2], found[1::2], strict=True)}


def from_json(kind: str, raw: str) -> str | None:
    """Return the text that PostgreSQL reads for what JSON has of a value."""
    if kind in ("json", "jsonb"):
        return raw
    value = NUMBERS_AS_WRITTEN.decode(raw)
    if value is None:
        return None
    if isinstance(value, list):
        return "{" + ",".join(_element(kind, element) for element in parts(raw)) + "}"
    if kind == "bytea":
        return "\\x" + b64decode(value).hex()
    # A number is its digits, not what Python would make of them.
    return value if isinstance(value, str) else raw


def _element(kind: str, raw: str) -> str:
    if raw.startswith("["):
        return from_json(kind, raw) or ""
    text = from_json(kind.removesuffix("[]"), raw)
    return "NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def from_field(kind: str, text: str) -> str | None:
    """Do the same for a field of a hash: text without quotes, and JSON only where it is a list."""
    is_list = kind.endswith("[]") and text.startswith("[") and not BOUNDS.match(text)
    bare = kind in ("json", "jsonb") or is_list
    return from_json(kind, text if bare else json.dumps(text))


async def same_again(database: Database, rows: dict[int, Cells], left_out: tuple[str, ...] = ()) -> None:
    """Give the server the values back, and hold what it prints against the source."""
    kinds = {name: kind for name, kind in database.kinds.items() if kind not in left_out}
    async with await session(database) as connection:
        await connection.execute("TRUNCATE public.again")
        names = ", ".join(["id", *kinds])
        places = ", ".join(f"${at}::{kind}" for at, kind in enumerate(kinds.values(), 2))
        insert = f"INSERT INTO public.again ({names}) VALUES ($1::int, {places})".encode()
        for key, cells in rows.items():
            texts = [None if (text := cells[name]) is None else text.encode() for name in kinds]
            result = connection.pgconn.exec_params(insert, [str(key).encode(), *texts])
            assert result.status == psycopg.pq.ExecStatus.COMMAND_OK, result.error_message.decode()
    wanted, found = await copied(database, "w"), await copied(database, "again")
    assert wanted.keys() == found.keys()
    differ = [
        (kind, row, wanted[row][name], found[row][name])
        for name, kind in kinds.items()
        for row in wanted
        # JSON has one null: a json column that holds one comes back as what it says.
        if wanted[row][name] != found[row][name]
        and not (kind in ("json", "jsonb") and wanted[row][name] is None)
        and not _same_document(kind, wanted[row][name], found[row][name])
    ]
    assert differ == []
    assert len(database.asked) > VALUES_MIN


def _same_document(kind: str, one: bytes | None, other: bytes | None) -> bool:
    # Line breaks between tokens of a json are dropped, nothing else.
    if kind != "json" or one is None or other is None:
        return False
    return b"\n" in one and one.replace(b"\n", b"").replace(b" ", b"") == other.replace(b" ", b"")


def cells_of(database: Database, read: Callable[[str, str], str | None]) -> Cells:
    return {name: read(name, kind) for name, kind in database.kinds.items() if kind not in AMBIGUOUS}


async def test_a_function_has_every_value(database: Database, changes: list[Change]) -> None:
    seen: dict[int, Cells] = {}

    async def note(change: Change) -> None:
        texts = {name: written(change, name, kind) for name, kind in database.kinds.items()}
        seen[change.row["id"]] = {name: None if text is None else text.decode() for name, text in texts.items()}

    sink = Handler(note)
    await sink.open()
    for change in changes:
        await sink.write([change])
    await sink.close()
    await same_again(database, seen)


async def test_a_webhook_has_every_value(database: Database, changes: list[Change]) -> None:
    body, rows = Body("{table}.{operation}", None, ()), {}
    for change in changes:
        new = members(members(members(body.write(change))["data"])["new"])
        rows[change.row["id"]] = cells_of(database, lambda name, kind, new=new: from_json(kind, new[name]))
    await same_again(database, rows, AMBIGUOUS)


@pytest.mark.parametrize("form", ["json", "hash"])
async def test_a_cache_has_every_value(
    database: Database,
    changes: list[Change],
    valkey: EmbeddedValkey,
    form: Any,
) -> None:
    sink = RedisCache(key="v:{id}", url=valkey.url, format=form)
    await sink.open()
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
        await sink.write(changes)
        await sink.close()
        rows = {}
        for change in changes:
            key = change.row["id"]
            if form == "json":
                kept = members(client.get(f"v:{key}"))
                rows[key] = cells_of(database, lambda name, kind, kept=kept: from_json(kind, kept[name]))
            else:
                fields = {name.decode(): text.decode() for name, text in client.hgetall(f"v:{key}").items()}
                rows[key] = cells_of(
                    database,
                    lambda name, kind, fields=fields: from_field(kind, fields[name]) if name in fields else None,
                )
    await same_again(database, rows, AMBIGUOUS)


async def test_a_replica_has_every_value(database: Database, changes: list[Change], server: Any) -> None:
    encoding = SQL_ASCII if database.encoding == SQL_ASCII else UTF8
    with made(server, f"values_copy_{database.encoding.lower()}", encoding, {}) as target:
        sink = PostgresReplica(target.dsn)
        sink.belongs_to("values")
        await sink.open()
        with psycopg.connect(target.dsn, autocommit=True) as connection:
            connection.execute("TRUNCATE public.w")
        if database.encoding == LATIN1:
            # The target was filled with what LATIN1 has no sign for: only its columns are wanted.
            assert set(database.kinds.values()) == set(target.kinds.values())
        await sink.write(changes)
        await sink.close()
        wanted, found = await copied(database, "w"), await copied(target, "w")
        at = {kind: name for name, kind in target.kinds.items()}
        differ = [
            (kind, row, wanted[row][name], found[row][at[kind]])
            for name, kind in database.kinds.items()
            for row in wanted
            if wanted[row][name] != found[row][at[kind]]
        ]
        assert differ == []
        assert wanted.keys() == found.keys()
