"""
The shop's Backend 2: everything that follows from an order, outside the request. Run by `watcher run shop.py`.

Three caches, one notification, one figure. Killed at any moment and started again, it goes on where it was.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence

import aiohttp
from psycopg_pool import AsyncConnectionPool

from backend_watcher import Change, Watcher
from backend_watcher.sinks import RedisCache

CACHE_URL = os.environ["CACHE_URL"]
SELLERS_URL = os.environ["SELLERS_URL"]
LOW_STOCK = 5

watcher = Watcher("shop")

# 1. The caches. A late or repeated change never puts an old row over a newer one.

watcher.to(RedisCache(key="product:{id}", url=CACHE_URL), table="products")
watcher.to(RedisCache(key="order:{id}", url=CACHE_URL), table="orders")
watcher.to(RedisCache(key="wallet:{id}", url=CACHE_URL), table="wallets")


# 2. A call to another service, for each product whose stock falls under the line. The service may take its time:
#    no customer waits for it, and only later changes of the same product do.


@watcher.on("products", update=["stock"], concurrency=128)
async def notify_seller(change: Change) -> None:
    """Tell the seller; `event_id` is the same if the change comes again, so that nobody is told twice."""
    note("notify_seller", change)
    old, new = change.old, change.new
    assert old is not None
    assert new is not None
    if not new["stock"] < LOW_STOCK <= old["stock"]:
        return
    notification = {
        "event_id": change.event_id,
        "seller_id": new["seller_id"],
        "product_id": new["id"],
        "version": new["version"],
        "stock": new["stock"],
    }
    async with aiohttp.request("POST", f"{SELLERS_URL}/low-stock", json=notification) as response:
        response.raise_for_status()


# 3. A figure, exactly once: the position is stored in the transaction that adds the sums, so a change that comes again
#    is known, and left out.

revenue_store = AsyncConnectionPool(os.environ["DATABASE_URL"], min_size=1, max_size=2, open=False)

READ_POSITION = "SELECT commit_lsn, ordinal FROM revenue_position WHERE name = 'revenue' FOR UPDATE"
ADD = "UPDATE seller_revenue SET revenue = revenue + %s WHERE seller_id = %s"
STORE_POSITION = """
INSERT INTO revenue_position (name, commit_lsn, ordinal) VALUES ('revenue', %s, %s)
ON CONFLICT (name) DO UPDATE SET commit_lsn = excluded.commit_lsn, ordinal = excluded.ordinal
"""


@watcher.on("order_lines", insert=True, batch=500, concurrency=1)
async def keep_revenue(changes: Sequence[Change]) -> None:
    """Add what the order lines brought to their sellers' revenue."""
    await revenue_store.open()
    async with revenue_store.connection() as connection:
        stored = await (await connection.execute(READ_POSITION)).fetchone()
        fresh = [change for change in changes if stored is None or change.position > stored]
        if not fresh:
            return
        sums: Counter[int] = Counter()
        for change in fresh:
            sums[change.row["seller_id"]] += change.row["amount"]
        async with connection.cursor() as cursor:
            await cursor.executemany(ADD, [(amount, seller) for seller, amount in sums.items()])
        await connection.execute(STORE_POSITION, fresh[-1].position)
    for change in fresh:
        note("keep_revenue", change)


# For the demo's figures only: when a handler had a change, beside when it was committed.

STOPWATCH = os.open(os.environ.get("SHOP_STOPWATCH", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(handler: str, change: Change) -> None:
    """Write a line."""
    os.write(STOPWATCH, b"%b %.6f %.6f\n" % (handler.encode(), change.commit_time.timestamp(), time.time()))
