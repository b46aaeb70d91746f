"""The user's program: what it declares, and that its figure is kept exactly once."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace
from typing import Any

import psycopg
import pytest

from backend_watcher.events.position import Position

from .conftest import Shop


@pytest.fixture
async def program(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ModuleType]:
    shop.execute("UPDATE seller_revenue SET revenue = 0")
    monkeypatch.setenv("DATABASE_URL", shop.dsn)
    monkeypatch.setenv("CACHE_URL", shop.cache_url)
    monkeypatch.setenv("SELLERS_URL", "http://127.0.0.1:9")
    program = importlib.reload(importlib.import_module("backend_watcher.demo.shop"))
    yield program
    await program.revenue_store.close()


def line(commit_lsn: int, ordinal: int, seller_id: int, amount: int) -> Any:
    """What the handler needs of a change."""
    return SimpleNamespace(
        position=Position(commit_lsn, ordinal),
        row={"seller_id": seller_id, "amount": amount},
        commit_time=datetime.now(UTC),
    )


def revenue(shop: Shop) -> dict[int, int]:
    with psycopg.connect(shop.dsn) as connection:
        query = "SELECT seller_id, revenue FROM seller_revenue WHERE revenue > 0"
        return dict(connection.execute(query).fetchall())


def test_declares_what_the_demo_promises(program: ModuleType) -> None:
    wanted = {one.name: one for one in program.watcher.wanted}
    assert set(wanted) == {
        "redis_cache_products",
        "redis_cache_orders",
        "redis_cache_wallets",
        "notify_seller",
        "keep_revenue",
    }
    assert wanted["notify_seller"].columns == {"stock"}
    assert wanted["keep_revenue"].options.concurrency == 1


async def test_a_change_that_comes_again_is_not_counted_again(shop: Shop, program: ModuleType) -> None:
    first, second, third = line(10, 0, 1, 5_000), line(10, 1, 2, 7_000), line(20, 0, 1, 900)
    await program.keep_revenue([first, second])
    await program.keep_revenue([first, second])
    await program.keep_revenue([second, third])
    await program.keep_revenue([third])
    assert revenue(shop) == {1: 5_900, 2: 7_000}


async def test_stock_that_does_not_cross_the_line_tells_nobody(program: ModuleType) -> None:
    def stock(old: int, new: int) -> Any:
        return SimpleNamespace(old={"stock": old}, new={"stock": new}, commit_time=datetime.now(UTC))

    for old, new in ((6, 5), (4, 3), (3, 39), (4, 5)):
        # There is nobody at the sellers' address: a call would raise.
        await program.notify_seller(stock(old, new))
