"""
Backend 1: the shop's web backend, in its own process.

    SHOP_MODE=inline     an order is SQL, and the cache, and the sellers: all of it inside the request
    SHOP_MODE=watched    an order is SQL
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from backend_watcher.demo import orders
from backend_watcher.demo.inline import Chores
from backend_watcher.demo.orders import Connection
from backend_watcher.demo.serving import serve

CONNECTIONS = 12

Pool = AsyncConnectionPool[Connection]


class Backend:
    """Takes orders and deliveries of goods. With `chores` it does the rest, too."""

    def __init__(self, pool: Pool, chores: Chores | None) -> None:
        self._pool = pool
        self._chores = chores

    async def order(self, request: Request) -> JSONResponse:
        """POST /orders {"wallet_id": 7, "lines": [[product, quantity], …]}."""
        body = await request.json()
        async with self._pool.connection() as connection:
            also = self._chores.add_revenue if self._chores else None
            placed = await orders.place(connection, body["wallet_id"], body["lines"], also)
        if self._chores:
            await self._chores.finish(placed)
        return JSONResponse({"id": placed.order["id"], "total": placed.order["total"]}, status_code=201)

    async def restock(self, request: Request) -> JSONResponse:
        """POST /restocks {"product_id": 7, "quantity": 36}."""
        body = await request.json()
        async with self._pool.connection() as connection:
            product = await orders.restock(connection, body["product_id"], body["quantity"])
        if self._chores:
            await self._chores.refresh({f"product:{product['id']}": product})
        return JSONResponse({"id": product["id"], "stock": product["stock"]})


def main() -> None:
    """Serve; settings come from the environment."""
    pool: Pool = AsyncConnectionPool(
        os.environ["DATABASE_URL"],
        connection_class=Connection,
        kwargs={"row_factory": dict_row, "autocommit": True, "application_name": "backend 1"},
        min_size=CONNECTIONS,
        max_size=CONNECTIONS,
        open=False,
    )
    backend = Backend(pool, None)

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        async with pool:
            await pool.wait()
            if os.environ["SHOP_MODE"] == "inline":
                backend._chores = chores = Chores(os.environ["CACHE_URL"], os.environ["SELLERS_URL"])
                try:
                    async with pool.connection() as connection:
                        await chores.warm(connection)
                    yield
                finally:
                    await chores.close()
            else:
                yield

    serve(
        [Route("/orders", backend.order, methods=["POST"]), Route("/restocks", backend.restock, methods=["POST"])],
        opened,
    )


if __name__ == "__main__":
    main()
