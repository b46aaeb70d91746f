"""
The sellers' notification service: somebody else's HTTP server, in its own process, as far away as the internet is.

    POST /low-stock {"event_id": …, "seller_id": …, "product_id": …, "version": …, "stock": …}
    GET  /received  what came, one of each event_id, and how many came again

It answers after SELLERS_LATENCY_MS ("80-160": evenly between the two), which is what a call with TLS to another
company's service on another island takes when all is well. On a bad day it is seconds.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from backend_watcher.demo.serving import serve

LATENCY_MS = "80-160"


class Sellers:
    """Keeps what it was told, for the proof."""

    def __init__(self, latency_seconds: tuple[float, float]) -> None:
        self._latency_seconds = latency_seconds
        self._received: dict[str, dict[str, Any]] = {}
        self._duplicates = 0
        self._draw = random.Random(1)

    async def low_stock(self, request: Request) -> JSONResponse:
        """Take a notification. One with the event_id of another is that one, come again."""
        notification = await request.json()
        seen = self._received.setdefault(notification["event_id"], notification)
        if seen is not notification:
            self._duplicates += 1
        await asyncio.sleep(self._draw.uniform(*self._latency_seconds))
        return JSONResponse({"duplicate": seen is not notification})

    async def received(self, request: Request) -> JSONResponse:
        """Say what came."""
        return JSONResponse({"notifications": list(self._received.values()), "duplicates": self._duplicates})


def latency_ms() -> str:
    """Return what the environment says of the latency, or else what is usual."""
    return os.environ.get("SELLERS_LATENCY_MS", LATENCY_MS)


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


def main() -> None:
    """Serve; the latency comes from the environment."""
    shortest, _, longest = latency_ms().partition("-")
    sellers = Sellers((float(shortest) / 1000, float(longest or shortest) / 1000))
    serve(
        [
            Route("/low-stock", sellers.low_stock, methods=["POST"]),
            Route("/received", sellers.received, methods=["GET"]),
        ],
        _nothing,
    )


if __name__ == "__main__":
    main()
