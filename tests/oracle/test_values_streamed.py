"""
Every type through a real stream: the bytes are those that COPY gives, whatever the database has for defaults.

In databases with other settings, another encoding or none, the same values come as the same bytes; and each value, as
Python holds it, is read back by the server as the value that it was.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql
from values_cases import ARRAYS, CASES, TEXT_ARRAYS, TEXT_CASES
from values_forms import dump, dump_array, dump_json
from values_made import make

from backend_watcher.events.change import Change
from backend_watcher.journal import MemoryJournal
from backend_watcher.postgres.connect import Connection, connect
from capture.street import App, Street

VALUES_MIN = 500
UTF8, LATIN1, SQL_ASCII = "UTF8", "LATIN1", "SQL_ASCII"
BEYOND_LATIN1 = re.compile(r"[^\x00-\xff]")

# Everything that changes how a value is printed, and a few that change how one is read.
ODD = {
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "lc_monetary": "C.UTF-8",
    "search_path": '"Odd.one", public',
    "quote_all_identifiers": "on",
    "client_encoding": "LATIN1",
    "array_nulls": "off",
}
_COPY_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_COPY_SIGNS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


@dataclass
class Database:
    """A database with a table `v` that has a column of each type, and what was asked for in each cell of it."""

    dsn: str
    encoding: str
    kinds: dict[str, str]
    asked: dict[tuple[int, str], str]

    @property
    def rows(self) -> int:
        """How many rows `v` has; the last one is NULL but for its id."""
        return max(row for row, _ in self.asked) + 2


def known(version: int, kind: str, text: str) -> bool:
    far = "2562047788" in text and version < 150000
    return not (kind.startswith("interval") and (("infinity" in text and version < 170000) or far))


def fill(connection: psycopg.Connection, dsn: str, encoding: str) -> Database:
    cases: dict[str, list[str]] = {**CASES, **ARRAYS, **TEXT_CASES, **TEXT_ARRAYS}
    for kind, texts in make(connection).items():
        cases[kind] = [*cases.get(kind, []), *texts]
    found = Database(dsn, encoding, {f"c{number}": kind for number, kind in enumerate(cases)}, {})
    for name, kind in found.kinds.items():
        texts = [text for text in cases[kind] if known(connection.info.server_version, kind, text)]
        if encoding == LATIN1:
            texts = [text for text in texts if not BEYOND_LATIN1.search(text)]
        found.asked |= {(row, name): text for row, text in enumerate(texts)}
    columns = ", ".join(f"{name} {kind}" for name, kind in found.kinds.items())
    for table in ("v", "w", "again"):
        connection.execute(f"CREATE TABLE public.{table} (id int PRIMARY KEY, {columns})".encode())
    for row in range(found.rows):
        cells = {name: text for (there, name), text in found.asked.items() if there == row}
        names = ", ".join(["id", *cells])
        places = ", ".join(["%s", *(f"%s::{found.kinds[name]}" for name in cells)])
        connection.execute(f"INSERT INTO public.v ({names}) VALUES ({places})".encode(), [row, *cells.values()])
    return found


@contextmanager
def made(server: Any, name: str, encoding: str, settings: dict[str, str]) -> Iterator[Database]:
    dsn = f"{server.dsn.rpartition('/')[0]}/{name}"
    create = sql.SQL("CREATE DATABASE {} ENCODING {} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(create.format(sql.Identifier(name), sql.Literal(encoding)))
        try:
            with psycopg.connect(dsn, autocommit=True, client_encoding="UTF8") as connection:
                found = fill(connection, dsn, encoding)
            for setting, value in settings.items():
                what = sql.SQL(" SET {} = {}").format(sql.SQL(setting), sql.Literal(value))
                admin.execute(sql.SQL("ALTER DATABASE {}").format(sql.Identifier(name)) + what)
                admin.execute(sql.SQL("ALTER ROLE postgres IN DATABASE {}").format(sql.Identifier(name)) + what)
            yield found
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def plain(server: Any) -> Iterator[Database]:
    with made(server, "values_plain", UTF8, {}) as database:
        yield database


@pytest.fixture(scope="module", params=["plain", "odd", LATIN1, SQL_ASCII])
def database(request: pytest.FixtureRequest, server: Any) -> Iterator[Database]:
    """A database as others have them."""
    if request.param == "plain":
        yield request.getfixturevalue("plain")
        return
    encoding = UTF8 if request.param == "odd" else request.param
    with made(server, f"values_{request.param.lower()}", encoding, ODD if request.param == "odd" else {}) as database:
        yield database


@pytest.fixture
async def journal() -> AsyncIterator[MemoryJournal]:
    journal = MemoryJournal()
    await journal.open()
    yield journal
    await journal.close()


async def streamed(dsn: str, journal: MemoryJournal, table: str, count: int, *statements: str) -> list[Change]:
    """Do something in the database while the table is watched; return the changes that come of it."""
    street = Street(dsn, journal, table)
    async with App.connected(dsn) as app:
        try:
            async with street.listening():
                await app.run(*statements)
                return await street.changes(count)
        finally:
            ours = "FROM pg_replication_slots WHERE slot_name = %s"
            await app.ask(f"SELECT pg_terminate_backend(active_pid, 10000) {ours} AND active", street.slot)
            await app.ask(f"SELECT pg_drop_replication_slot(slot_name) {ours}", street.slot)
            await app.run(f"DROP PUBLICATION {street.settings.publication}")


async def everything(database: Database, journal: MemoryJournal) -> list[Change]:
    """Every value through the stream, as rows of `w`."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE public.w")
    insert = "INSERT INTO public.w SELECT * FROM public.v"
    return await streamed(database.dsn, journal, "public.w", database.rows, insert)


async def session(database: Database) -> Connection:
    """A session of ours, as a backfill would have it."""
    connection = await connect(database.dsn, purpose="test")
    if database.encoding == SQL_ASCII:
        await connection.execute("SET client_encoding = SQL_ASCII")
    return connection


async def copied(database: Database, table: str) -> dict[int, dict[str, bytes | None]]:
    """What COPY gives: the bytes of each column, by the row's id."""
    async with (
        await session(database) as connection,
        connection.cursor().copy(f"COPY (SELECT * FROM public.{table}) TO STDOUT".encode()) as copy,
    ):
        data = b"".join([bytes(block) async for block in copy])
    rows = [[unescape(cell) for cell in line.split(b"\t")] for line in data.removesuffix(b"\n").split(b"\n")]
    return {int(row[0] or 0): dict(zip(["id", *database.kinds], row, strict=True)) for row in rows}


def unescape(cell: bytes) -> bytes | None:
    if cell == b"\\N":
        return None
    return _COPY_ESCAPE.sub(lambda match: _COPY_SIGNS.get(match[1], match[1]), cell)


async def test_the_stream_gives_the_bytes_that_copy_gives(
    database: Database, plain: Database, journal: MemoryJournal
) -> None:
    changes = await everything(database, journal)
    copy = await copied(database, "w")
    assert len(database.asked) > VALUES_MIN
    for change in changes:
        assert {name: change.row.raw(name) for name in change.row} == copy[change.row["id"]]
    # In no other database do they come as other bytes.
    expected = await copied(plain, "v")
    first = {(plain.kinds[name], text): expected[row][name] for (row, name), text in plain.asked.items()}
    differ = [
        (database.kinds[name], text)
        for (row, name), text in database.asked.items()
        if copy[row][name] != first[database.kinds[name], text]
    ]
    assert differ == []


async def test_every_value_is_read_back_as_it_was(database: Database, journal: MemoryJournal) -> None:
    changes = await everything(database, journal)
    async with await session(database) as connection:
        await connection.execute("DELETE FROM public.again")
        for change in changes:
            cells = {name: written(change, name, database.kinds[name]) for name in database.kinds}
            places = ", ".join(f"${at}::{kind}" for at, kind in enumerate(database.kinds.values(), 2))
            cells = {"id": str(change.row["id"]).encode(), **cells}
            insert = f"INSERT INTO public.again VALUES ($1::int, {places})"
            result = connection.pgconn.exec_params(insert.encode(), list(cells.values()))
            assert result.status == psycopg.pq.ExecStatus.COMMAND_OK, result.error_message.decode()
    wanted, found = await copied(database, "v"), await copied(database, "again")
    asked = database.asked.items()
    differ = [(database.kinds[at], text) for (row, at), text in asked if found[row][at] != wanted[row][at]]
    assert differ == []
    assert found == wanted


def written(change: Change, name: str, kind: str) -> bytes | None:
    """Write what Python has of a value for the server to read."""
    raw, value = change.row.raw(name), change.row[name]
    if raw is None or kind in ("json", "json[]", "jsonb[]"):
        # Spaces and doubled keys of a json, and which NULL one of its arrays has, only the bytes know.
        return raw
    write = dump_json if kind == "jsonb" else dump
    text = dump_array(value, write) if isinstance(value, list) and kind != "jsonb" else write(value)
    return text.encode("utf-8", "surrogateescape")


async def test_text_that_is_no_utf8_does_not_end_the_stream(server: Any, journal: MemoryJournal) -> None:
    dsn = f"{server.dsn.rpartition('/')[0]}/anything"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("CREATE DATABASE anything ENCODING SQL_ASCII TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("CREATE TABLE t (id text PRIMARY KEY, name varchar, doc json)")
            changes = await streamed(
                dsn,
                journal,
                "public.t",
                3,
                "SET client_encoding = SQL_ASCII",
                "INSERT INTO t VALUES (E'caf\\351', E'\\377', E'{\"\\351\": 1}')",
                "INSERT INTO t VALUES ('caf\u00e9', 'x', '{}')",
                "UPDATE t SET id = E'\\200' WHERE name = 'x'",
            )
        finally:
            admin.execute("DROP DATABASE anything WITH (FORCE)")
    bad, good, moved = changes
    assert bad.row["id"].encode("utf-8", "surrogateescape") == b"caf\xe9"
    assert (bad.row.raw("name"), bad.row["doc"]) == (b"\xff", {"\udce9": 1})
    assert good.row["id"] == "caf\u00e9"
    assert moved.old is not None
    assert (moved.old["id"], moved.row["id"]) == ("caf\u00e9", "\udc80")
    assert len({bad.key_bytes(), good.key_bytes(), moved.key_bytes()}) == 3


async def test_json_null_is_not_sql_null(plain: Database, journal: MemoryJournal) -> None:
    make_table = "CREATE TABLE public.n (id int PRIMARY KEY, a json, b jsonb, c jsonb[])"
    with psycopg.connect(plain.dsn, autocommit=True) as connection:
        connection.execute(make_table)
    insert = "INSERT INTO public.n VALUES (1, 'null', 'null', '{\"null\",NULL}'), (2, NULL, NULL, NULL)"
    json_null, sql_null = await streamed(plain.dsn, journal, "public.n", 2, insert)
    assert (json_null.row["a"], json_null.row["b"], json_null.row["c"]) == (None, None, [None, None])
    assert [json_null.row.raw(name) for name in "abc"] == [b"null", b"null", b'{"null",NULL}']
    assert [sql_null.row.raw(name) for name in "abc"] == [None, None, None]


async def test_an_enum_that_changes_while_it_is_streamed(plain: Database, journal: MemoryJournal) -> None:
    with psycopg.connect(plain.dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TYPE public.e AS ENUM ('new'); CREATE TABLE public.m (id int PRIMARY KEY, e public.e)"
        )
    changes = await streamed(
        plain.dsn,
        journal,
        "public.m",
        5,
        "INSERT INTO m VALUES (1, 'new')",
        "ALTER TYPE e ADD VALUE 'paid'",
        "INSERT INTO m VALUES (2, 'paid')",
        "ALTER TYPE e RENAME VALUE 'paid' TO 'settled'",
        "INSERT INTO m VALUES (3, 'settled')",
        "ALTER TYPE e RENAME TO before; CREATE TYPE e AS ENUM ('other');"
        " ALTER TABLE m ALTER e TYPE e USING 'other'; INSERT INTO m VALUES (4, 'other')",
        "DROP TYPE before",
        "INSERT INTO m VALUES (5, 'other')",
    )
    assert [change.row["e"] for change in changes] == ["new", "paid", "settled", "other", "other"]
    assert len({change.table.columns[1].type_oid for change in changes}) == 2


async def test_a_row_without_columns(plain: Database, journal: MemoryJournal) -> None:
    with psycopg.connect(plain.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.z (); ALTER TABLE public.z REPLICA IDENTITY FULL")
    statements = ["INSERT INTO z DEFAULT VALUES", "ALTER TABLE z ADD a int", "INSERT INTO z VALUES (1)"]
    empty, full = await streamed(plain.dsn, journal, "public.z", 2, *statements)
    assert (empty.row.to_dict(), full.row.to_dict()) == ({}, {"a": 1})


async def test_padding_is_part_of_a_value_and_of_a_key(plain: Database, journal: MemoryJournal) -> None:
    with psycopg.connect(plain.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.p (id char(5) PRIMARY KEY, b bit varying(9), v varchar(5))")
    statements = ["INSERT INTO p VALUES ('a', '01', 'b  ')", "UPDATE p SET v = 'b ' WHERE id = 'a'"]
    first, second = await streamed(plain.dsn, journal, "public.p", 2, *statements)
    assert first.row.to_dict() == {"id": "a    ", "b": "01", "v": "b  "}
    assert first.key_bytes() == second.key_bytes()
