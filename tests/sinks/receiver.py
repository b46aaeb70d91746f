"""A real receiver of webhooks on loopback: it keeps what came, and answers as it is told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from backend_watcher.events.change import Change
from backend_watcher.events.table import Table
from backend_watcher.sinks import Webhook
from backend_watcher.testing import builders

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
OLDER = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOOPBACK = ["127.0.0.1/32"]
PRODUCTS = builders.table()


@dataclass
class Came:
    """One request."""

    headers: dict[str, str]
    body: bytes
    path: str

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def name(self) -> str:
        return self.json["data"]["new"]["name"]


@dataclass
class Receiver:
    """`answer` is told what came, and returns a status, or a whole answer."""

    answer: Callable[[Came], Awaitable[Any]] | None = None
    came: list[Came] = field(default_factory=list)
    url: str = ""

    async def take(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        came = Came(headers, await request.read(), request.path_qs)
        self.came.append(came)
        answer = await self.answer(came) if self.answer is not None else 204
        return web.Response(status=answer) if isinstance(answer, int) else answer


@asynccontextmanager
async def receiving(
    answer: Callable[[Came], Awaitable[Any]] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    receiver = Receiver(answer)
    app = web.Application(client_max_size=50_000_000)
    app.router.add_route("*", "/{path:.*}", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    receiver.url = f"https://localhost:{port}/hook" if tls else f"http://127.0.0.1:{port}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[str]:
    """Serve with bare bytes, for what no honest server does; yields the address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def request_from(reader: asyncio.StreamReader) -> bytes:
    """Read one request, head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(size)


@asynccontextmanager
async def hooked(url: str, **options: Any) -> AsyncIterator[Webhook]:
    """Open a sink that may reach loopback."""
    sink = hook(url, **options)
    await sink.open()
    try:
        yield sink
    finally:
        await sink.close()


def hook(url: str, **options: Any) -> Webhook:
    given = {"secret": SECRET, "allow_networks": LOOPBACK, "allow_http": True} | options
    return Webhook(url, **given)


def row(key: int, name: str, at: int, of: Table = PRODUCTS) -> Change:
    """Make an update of row `key`, at position `at`."""
    return builders.change("update", of, new={"id": key, "name": name, "stock": 1}, lsn=at)


def rows(*wanted: tuple[int, str]) -> Sequence[Change]:
    """Make updates, one position after the other."""
    return [row(key, name, 0x1000 + at) for at, (key, name) in enumerate(wanted)]
