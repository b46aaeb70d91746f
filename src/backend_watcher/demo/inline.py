"""
What Backend 1 does besides SQL when nobody does it for it: inside the request, while the customer waits.

Done as well as it can be done there: the rows come from the statement that wrote them, the cache takes them in one
round trip, sellers are called after the commit, when no lock is held any more, and all of them at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import aiohttp
import redis.asyncio

from backend_watcher.demo.orders import Connection, Placed, Row

# In the order of the sellers, so that two orders never wait for each other in a circle.
ADD_REVENUE = """
INSERT INTO seller_revenue (seller_id, revenue)
SELECT seller_id, amount FROM unnest(%s::bigint[], %s::bigint[]) AS earned (seller_id, amount) ORDER BY seller_id
ON CONFLICT (seller_id) DO UPDATE SET revenue = seller_revenue.revenue + excluded.revenue
"""


class Chores:
    """The cache, the sellers' service and the figures of one Backend 1."""

    def __init__(self, cache_url: str, sellers_url: str) -> None:
        self._cache = redis.asyncio.Redis.from_url(cache_url)
        self._sellers_url = sellers_url
        self._session = aiohttp.ClientSession()

    async def add_revenue(self, connection: Connection, earned: dict[int, int]) -> None:
        """Keep the sellers' revenue, in the transaction of the order."""
        await connection.execute(ADD_REVENUE, [list(earned), list(earned.values())])

    async def finish(self, placed: Placed) -> None:
        """Refresh the cache and tell the sellers whose stock fell under the line. After the commit."""
        entries = {f"order:{placed.order['id']}": placed.order, f"wallet:{placed.wallet['id']}": placed.wallet}
        await self.refresh(entries | {f"product:{row['id']}": row for row in placed.products})
        if placed.low:
            await asyncio.gather(*(self._tell(row) for row in placed.low))

    async def refresh(self, entries: dict[str, Row]) -> None:
        """Put rows into the cache."""
        await self._cache.mset({key: json.dumps(row, default=_plain) for key, row in entries.items()})

    async def warm(self, connection: Connection) -> None:
        """Put everything there is into the cache, as a deployment would."""
        for name, table in (("product", "products"), ("wallet", "wallets"), ("order", "orders")):
            cursor = await connection.execute(f"SELECT * FROM {table}")
            await self._put_all(name, await cursor.fetchall())

    async def close(self) -> None:
        """Let go of the connections."""
        await self._session.close()
        await self._cache.aclose()

    async def _put_all(self, name: str, rows: Iterable[Row]) -> None:
        entries = {f"{name}:{row['id']}": row for row in rows}
        if entries:
            await self.refresh(entries)

    async def _tell(self, row: Row) -> None:
        notification = {
            "event_id": f"product:{row['id']}:{row['version']}",
            "seller_id": row["seller_id"],
            "product_id": row["id"],
            "version": row["version"],
            "stock": row["stock"],
        }
        async with self._session.post(f"{self._sellers_url}/low-stock", json=notification) as response:
            response.raise_for_status()


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} in a row")
