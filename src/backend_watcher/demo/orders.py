"""
What an order is in SQL: the part of Backend 1 that is the same in both phases.

Products are locked in the order of their ids, so two orders never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow

LOW_STOCK = 5
"""A seller is told when the stock of a product falls under this."""

LOCK_PRODUCTS = "SELECT id, seller_id, price FROM products WHERE id = ANY(%s) ORDER BY id FOR UPDATE"

PAY = """
UPDATE wallets SET balance = balance - %s, version = version + 1, updated_at = now() WHERE id = %s
RETURNING id, label, balance, version, updated_at
"""

PLACE = """
WITH placed AS (
    INSERT INTO orders (wallet_id, total) VALUES (%s, %s) RETURNING id, wallet_id, total, placed_at
), lines AS (
    INSERT INTO order_lines (order_id, product_id, seller_id, quantity, amount)
    SELECT placed.id, line.product_id, line.seller_id, line.quantity, line.amount
    FROM placed, unnest(%s::bigint[], %s::bigint[], %s::integer[], %s::bigint[])
        AS line (product_id, seller_id, quantity, amount)
)
SELECT id, wallet_id, total, placed_at FROM placed
"""

MOVE_STOCK = """
WITH moved AS (
    UPDATE products SET stock = stock + line.quantity, version = version + 1, updated_at = now()
    FROM unnest(%s::bigint[], %s::integer[]) AS line (product_id, quantity)
    WHERE id = line.product_id
    RETURNING id, seller_id, name, price, stock, version, updated_at, line.quantity
), kept AS (
    INSERT INTO stock_moves (product_id, version, quantity) SELECT id, version, quantity FROM moved
)
SELECT id, seller_id, name, price, stock, version, updated_at, quantity AS moved FROM moved
"""

Row = dict[str, Any]
Connection = AsyncConnection[DictRow]
Also = Callable[[Connection, dict[int, int]], Awaitable[None]]
"""Is given what each seller earns."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An order that is written: its rows, as they are now; `low` are the products that fell under the line."""

    order: Row
    wallet: Row
    products: list[Row]
    low: list[Row]


async def place(
    connection: Connection, wallet_id: int, lines: Sequence[tuple[int, int]], also: Also | None = None
) -> Placed:
    """
    Write an order: the wallet pays, stock falls. `also` adds to its transaction.

    Two round trips: what is locked must be known before it can be paid, and all the rest, COMMIT too, goes at once.
    Raises KeyError for a product that is not there, ForeignKeyViolation for a wallet.
    """
    async with connection.pipeline(), connection.transaction():
        locked = await connection.execute(LOCK_PRODUCTS, [[product for product, _ in lines]])
        found = {row["id"]: row for row in await locked.fetchall()}
        products = [found[product] for product, _ in lines]
        quantities = [quantity for _, quantity in lines]
        amounts = [row["price"] * quantity for row, quantity in zip(products, quantities, strict=True)]
        ids, sellers = [row["id"] for row in products], [row["seller_id"] for row in products]
        pay = await connection.execute(PAY, [sum(amounts), wallet_id])
        place = await connection.execute(PLACE, [wallet_id, sum(amounts), ids, sellers, quantities, amounts])
        move = await connection.execute(MOVE_STOCK, [ids, [-quantity for quantity in quantities]])
        if also is not None:
            await also(connection, _sums(sellers, amounts))
    wallet, order, moved = await pay.fetchone(), await place.fetchone(), await move.fetchall()
    assert wallet is not None
    assert order is not None
    low = [row for row in moved if row["stock"] < LOW_STOCK <= row["stock"] - row["moved"]]
    return Placed(order, wallet, [_without_move(row) for row in moved], low)


async def restock(connection: Connection, product_id: int, quantity: int) -> Row:
    """Add goods that were delivered. Raises KeyError for a product that is not there."""
    cursor = await connection.execute(MOVE_STOCK, [[product_id], [quantity]])
    row = await cursor.fetchone()
    if row is None:
        raise KeyError(f"product {product_id}")
    return _without_move(row)


def _sums(sellers: Sequence[int], amounts: Sequence[int]) -> dict[int, int]:
    sums = dict.fromkeys(sellers, 0)
    for seller, amount in zip(sellers, amounts, strict=True):
        sums[seller] += amount
    return sums


def _without_move(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "moved"}
