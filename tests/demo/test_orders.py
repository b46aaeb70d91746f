"""An order and a delivery of goods in SQL."""

from __future__ import annotations

import pytest

from backend_watcher.demo import orders, seed

from .conftest import Shop, connect


async def test_an_order_pays_sells_and_says_what_it_did(shop: Shop) -> None:
    stock = seed.opening_stock()
    earned = []

    async def also(_: orders.Connection, amounts: dict[int, int]) -> None:
        earned.append(amounts)

    async with await connect(shop.dsn) as connection:
        placed = await orders.place(connection, 20, [(10, 1), (22, 2)], also)
    first, second = sorted(placed.products, key=lambda row: row["id"])
    assert (first["stock"], first["version"]) == (stock[10] - 1, 1)
    assert (second["stock"], second["version"]) == (stock[22] - 2, 1)
    assert placed.order["total"] == first["price"] + 2 * second["price"]
    assert placed.wallet["balance"] == seed.WALLET_RUPIAH - placed.order["total"]
    # Products 10 and 22 are of one seller.
    assert earned == [{first["seller_id"]: placed.order["total"]}]
    assert "moved" not in first


async def test_says_what_fell_under_the_line_and_only_when_it_falls(shop: Shop) -> None:
    stock = seed.opening_stock()
    async with await connect(shop.dsn) as connection:
        down = await orders.place(connection, 20, [(10, stock[10] - 5)])
        under = await orders.place(connection, 20, [(10, 1)])
        further = await orders.place(connection, 20, [(10, 1)])
        await orders.restock(connection, 10, 2)
        again = await orders.place(connection, 20, [(10, 1)])
    assert [len(placed.low) for placed in (down, under, further, again)] == [0, 1, 0, 1]


async def test_what_is_not_there_cannot_be_sold(shop: Shop) -> None:
    async with await connect(shop.dsn) as connection:
        with pytest.raises(KeyError):
            await orders.place(connection, 20, [(10_000, 1)])
        with pytest.raises(KeyError):
            await orders.restock(connection, 10_000, 1)
