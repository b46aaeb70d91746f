"""Runs an HTTP application of the demo in its own process, on a free port of the loopback address."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

LOOPBACK = "127.0.0.1"
WAITING_MAX = 1024

Opened = Callable[[], AbstractAsyncContextManager[None]]


def serve(routes: list[Route], opened: Opened) -> None:
    """Serve until SIGTERM; `opened` surrounds the serving. The first line on standard output says where."""
    listener = socket.create_server((LOOPBACK, 0), backlog=WAITING_MAX)
    where = json.dumps({"url": f"http://{LOOPBACK}:{listener.getsockname()[1]}"})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with opened():
            print(where, flush=True)
            yield

    app = Starlette(routes=routes, lifespan=lifespan)
    config = uvicorn.Config(app, http="httptools", log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[listener])
