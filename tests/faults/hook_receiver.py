"""
A receiver of webhooks on this machine that answers as badly as a test wants.

Bare sockets, because a server that is kept in order by a library does none of this. It writes down every request, and
which changes it took: what it takes and how it answers are two things.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from .judge import Seen, position_of
from .ledger import Fact

ZEROS = gzip.compress(bytes(10 << 20), 9)
"""Ten megabytes, when somebody unpacks them."""
BOMB_PIECES = 1024
"""So many of them: ten gigabytes."""


@dataclass(frozen=True)
class Answer:
    """
    How a request is answered. `takes` says whether the receiver did what was asked.

    `after` seconds later; `resets` instead of answering; `drips` a body for so many seconds; `bomb` sends a body that
    unpacks to ten gigabytes.
    """

    status: int = 200
    takes: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0
    resets: bool = False
    drips: float = 0.0
    bomb: bool = False


TAKEN = Answer()


@dataclass(frozen=True)
class Request:
    """What came, when (monotonic), and the how manieth with this id it is."""

    at: float
    path: str
    id: str
    seen: Seen
    number: int


class Receiver:
    """Listens on loopback in a thread of its own; `behave` says how each request is answered."""

    def __init__(self, behave: Callable[[Request], Answer] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.behave: Callable[[Request], Answer] = behave or (lambda _: TAKEN)
        self.tls = tls
        self.requests: list[Request] = []
        self.taken: list[Seen] = []
        self.bodies: dict[str, str] = {}
        self.pushed_max = 0
        self.port = 0
        self._numbers: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}/hooks"

    def distinct(self) -> int:
        """How many different changes were taken."""
        return len({one.position for one in list(self.taken)})

    def __enter__(self) -> Self:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def listen(self) -> None:
        """Listen, at the same port as before."""
        made = asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self._server = asyncio.run_coroutine_threadsafe(made, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]

    def hang_up(self) -> None:
        """Listen no more, and end what is open."""
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result(10)

    async def _hang_up(self) -> None:
        assert self._server is not None
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the other side has gone, or this one is to
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in head[1:-2])}
        body = await reader.readexactly(int(headers["content-length"]))
        self._numbers[headers["webhook-id"]] += 1
        number = self._numbers[headers["webhook-id"]]
        request = Request(time.monotonic(), head[0].split()[1], headers["webhook-id"], seen_of(body), number)
        self.requests.append(request)
        answer = self.behave(request)
        if answer.takes:
            self.taken.append(request.seen)
        return await self._answer(writer, answer)

    async def _answer(self, writer: asyncio.StreamWriter, answer: Answer) -> bool:
        if answer.after:
            await _pass(answer.after)
        if answer.resets:
            _reset(writer)
            return False
        long = answer.drips or answer.bomb
        told = {"Content-Length": "1000000000" if long else "0", **answer.headers}
        if answer.bomb:
            told["Content-Encoding"] = "gzip"
        lines = [f"HTTP/1.1 {answer.status} said", *(f"{name}: {value}" for name, value in told.items())]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await writer.drain()
        if answer.drips:
            for _ in range(round(answer.drips / 0.1)):
                writer.write(b".")
                await writer.drain()
                await _pass(0.1)
        if answer.bomb:
            pushed = 0
            for _ in range(BOMB_PIECES):
                writer.write(ZEROS)
                pushed += len(ZEROS)
                self.pushed_max = max(self.pushed_max, pushed)
                await writer.drain()
        return not long


async def _pass(seconds: float) -> None:
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, passed.set)
    await passed.wait()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection the hard way."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def seen_of(body: bytes) -> Seen:
    """Read what was sent as the judge reads it."""
    data = json.loads(body)["data"]
    row = data["new"] or {}
    fact = Fact(data["table"], data["operation"], data["key"]["id"], row.get("version", -1), 0)
    return Seen(0, fact, position_of(data["event_id"]))
