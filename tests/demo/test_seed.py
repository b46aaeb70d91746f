"""What the shop has at first."""

from __future__ import annotations

import psycopg

from backend_watcher.demo import seed
from backend_watcher.demo.stage import Stage


def test_is_the_same_every_time(stage: Stage) -> None:
    found = []
    for _ in range(2):
        with psycopg.connect(stage.new_database("shop_seeded")) as connection:
            seed.fill(connection)
            query = "SELECT id, seller_id, name, price, stock FROM products ORDER BY id"
            found.append(connection.execute(query).fetchall())
    assert found[0] == found[1]
    assert len(found[0]) == seed.PRODUCTS
    assert {row[0]: row[4] for row in found[0]} == seed.opening_stock()
    assert len({row[2] for row in found[0]}) == seed.PRODUCTS
    assert min(row[3] for row in found[0]) > 0


def test_no_product_begins_under_the_line() -> None:
    assert min(seed.opening_stock().values()) >= seed.STOCK_MIN > 5
