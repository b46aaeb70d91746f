"""A real PostgreSQL that prints values in text and in binary, under the session settings the watcher fixes."""

from collections.abc import Iterator
from types import SimpleNamespace

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres

SETTINGS = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "search_path": "pg_catalog",
}
OPTIONS = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
TEXT, BINARY = 0, 1


class Oracle:
    """Asks the server for one value at a time, and takes the bytes as they come."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        self.version = connection.info.server_version

    def _ask(self, query: str, data: bytes | None, type_oid: int, given: int, wanted: int) -> bytes:
        result = self.connection.pgconn.exec_params(query.encode(), [data], [type_oid], [given], wanted)
        if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
            raise ValueError(result.error_message.decode(errors="replace"))
        value = result.get_value(0, 0)
        assert value is not None
        return value

    def print_text(self, text: str, type_name: str) -> bytes:
        """What the server prints after reading `text` as a value of the type."""
        return self._ask(f"select $1::{type_name}", text.encode("utf-8", "surrogateescape"), 0, TEXT, TEXT)

    def print_both(self, text: str, type_name: str) -> tuple[bytes, bytes]:
        data = text.encode("utf-8", "surrogateescape")
        query = f"select $1::{type_name}"
        return self._ask(query, data, 0, TEXT, TEXT), self._ask(query, data, 0, TEXT, BINARY)

    def print_binary(self, data: bytes, type_oid: int) -> tuple[bytes, bytes]:
        """The same, for a value given in binary; ValueError if the server does not take it."""
        query = "select $1"
        return (
            self._ask(query, data, type_oid, BINARY, TEXT),
            self._ask(query, data, type_oid, BINARY, BINARY),
        )

    def oid_of(self, type_name: str) -> int:
        row = self.connection.execute("select %s::regtype::oid::int", [type_name]).fetchone()
        assert row is not None
        return row[0]


@pytest.fixture(scope="session")
def server() -> Iterator[SimpleNamespace]:
    with EmbeddedPostgres() as running:
        yield SimpleNamespace(dsn=running.dsn)


@pytest.fixture(scope="session")
def oracle(server: SimpleNamespace) -> Iterator[Oracle]:
    with psycopg.connect(server.dsn, options=OPTIONS, client_encoding="UTF8", autocommit=True) as connection:
        yield Oracle(connection)


@pytest.fixture
def ascii_oracle(server: SimpleNamespace) -> Iterator[Oracle]:
    """
    A database that checks no encoding, and so may hold bytes that are no UTF-8.

    Asked for UTF8 the server would refuse to send them, so here client_encoding is SQL_ASCII too.
    """
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("create database bytes encoding SQL_ASCII template template0 locale 'C'")
    dsn = psycopg.conninfo.make_conninfo(server.dsn, dbname="bytes")
    with psycopg.connect(dsn, options=OPTIONS, client_encoding="SQL_ASCII", autocommit=True) as connection:
        yield Oracle(connection)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("drop database bytes with (force)")
