"""The replica against a real PostgreSQL: the contract, once each, values, keys, missing tables, errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from backend_watcher.sinks import PostgresReplica
from backend_watcher.testing.conformance_sink import MakeSink, Read, Seen, SinkConformance
from postgres.conftest import dsn, server  # noqa: F401 fixtures


@asynccontextmanager
async def replica(dsn: str, **options: Any) -> AsyncIterator[PostgresReplica]:  # noqa: F811
    sink = PostgresReplica(dsn, **{"create": True, **options})
    sink.belongs_to("copy")
    await sink.open()
    yield sink
    await sink.close()


def rows(dsn: str, query: str = "SELECT id, name FROM products ORDER BY id") -> list[tuple[Any, ...]]:  # noqa: F811
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


class TestPostgresReplica(SinkConformance):
    @pytest.fixture
    def secret(self) -> str:
        return "hush-hush"

    @pytest.fixture
    def make(self, dsn: str) -> MakeSink:  # noqa: F811
        return lambda: PostgresReplica(dsn, create=True)

    @pytest.fixture
    def unreachable(self) -> MakeSink:
        # Port 1 is nobody's.
        return lambda: PostgresReplica("postgresql://somebody:hush-hush@127.0.0.1:1/shop")

    @pytest.fixture
    def read(self, dsn: str) -> Read:  # noqa: F811
        async def read() -> Seen:
            return dict(rows(dsn))

        return read
