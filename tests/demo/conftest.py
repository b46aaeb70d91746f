"""A PostgreSQL and a Valkey for all tests of the demo, and a shop in a database of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
import pytest
import redis
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from backend_watcher.demo import orders, seed
from backend_watcher.demo.proof import CACHES, CROSSINGS, LOW_STOCK, Proof, prove
from backend_watcher.demo.stage import Phase, Stage
from backend_watcher.errors import EmbeddedError


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    try:
        stage = Stage().__enter__()
    except EmbeddedError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(error.message)
    with stage._stack:
        yield stage


@pytest.fixture
def phase(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Phase]:
    """A phase that is open; `watched` unless the test asks for another."""
    with Phase(stage, getattr(request, "param", "watched")) as phase:
        yield phase


@dataclass
class Shop:
    """A shop that has taken an order or two, and everything outside the database as it should be."""

    dsn: str
    cache_url: str
    received: dict[str, Any]

    def prove(self) -> Proof:
        return prove(self.dsn, self.cache_url, self.received)

    def execute(self, query: str) -> None:
        with psycopg.connect(self.dsn) as connection:
            connection.execute(query.encode())

    def cache(self) -> redis.Redis:
        return redis.Redis.from_url(self.cache_url)


async def connect(dsn: str) -> AsyncConnection[DictRow]:
    return await AsyncConnection.connect(dsn, row_factory=dict_row, autocommit=True)


@pytest.fixture
async def shop(stage: Stage) -> Shop:
    dsn = stage.new_database("shop_tested")
    stage.empty_cache()
    with psycopg.connect(dsn) as connection:
        seed.fill(connection)
    async with await connect(dsn) as connection:
        stock = seed.opening_stock()
        await orders.place(connection, 7, [(1, stock[1] - LOW_STOCK + 1), (2, 1)])
        await orders.restock(connection, 1, 10)
        await orders.place(connection, 8, [(1, 11), (3, 2)])
    shop = Shop(dsn, stage.cache_url, {"notifications": [], "duplicates": 0})
    _write_what_follows(shop)
    return shop


def _write_what_follows(shop: Shop) -> None:
    with psycopg.connect(shop.dsn, row_factory=dict_row) as connection, shop.cache() as cache:
        for name, table in CACHES:
            for row in connection.execute(f"SELECT * FROM {table}".encode()).fetchall():
                cache.set(f"{name}:{row['id']}", json.dumps(row, default=datetime.isoformat))
        connection.execute(
            "UPDATE seller_revenue r SET revenue = s.sum "
            "FROM (SELECT seller_id, sum(amount) FROM order_lines GROUP BY seller_id) s WHERE s.seller_id = r.seller_id"
        )
        for row in connection.execute(CROSSINGS, {"low": LOW_STOCK}).fetchall():
            shop.received["notifications"].append(
                {
                    "event_id": f"e{row['product_id']}.{row['version']}",
                    "product_id": row["product_id"],
                    "version": row["version"],
                    "stock": int(row["after"]),
                }
            )
