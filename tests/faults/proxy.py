"""
A network that does what it is told: a TCP proxy in a thread, between a program and a server.

    with Proxy(server.port) as proxy:
        dsn = proxy.dsn(server.dsn)
        proxy.reset()                  # every connection ends with RST
        proxy.refuse(True)             # and no new one is let through
        proxy.blackhole()              # connections stay open, and nothing passes any more
        proxy.heal()                   # new connections are as good as new; those in a black hole stay there
        proxy.latency_seconds = 0.5    # for each piece, in each direction
        proxy.piece_bytes = 1          # nothing larger is passed on at once
        proxy.corruption = 0.1         # the share of pieces from the server in which one byte is wrong

Everything may be switched while connections are open.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit, urlunsplit

LOOPBACK = "127.0.0.1"
READ_BYTES = 65536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with 0 seconds: closing sends RST."""


class _Link:
    """One connection: the program's side and the server's."""

    def __init__(self, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.lost = asyncio.Event()

    def close(self, *, reset: bool = False) -> None:
        for writer in self.writers:
            if reset:
                # It may be closed already.
                with contextlib.suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()
            else:
                writer.close()


class Proxy:
    """See the top of the file. `connections` counts those that were let through."""

    def __init__(self, port: int, *, host: str = LOOPBACK, seed: object = 0) -> None:
        self._target = (host, port)
        self._dice = random.Random(str(seed))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="proxy", daemon=True)
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._links: set[_Link] = set()
        self._refusing = False
        self._dark = False
        self.port = 0
        self.connections = 0
        self.latency_seconds = 0.0
        self.piece_bytes = READ_BYTES
        self.corruption = 0.0
        self.corrupted = 0

    def dsn(self, dsn: str) -> str:
        """Return a URL that leads here instead."""
        parts = urlsplit(dsn)
        login = parts.netloc.rpartition("@")[0]
        return urlunsplit(
            parts._replace(netloc=f"{login}@{LOOPBACK}:{self.port}" if login else f"{LOOPBACK}:{self.port}")
        )

    def cut(self) -> None:
        """Close every connection in an orderly way."""
        self._do(lambda: [link.close() for link in set(self._links)])

    def reset(self) -> None:
        """Break every connection: both sides get RST."""
        self._do(lambda: [link.close(reset=True) for link in set(self._links)])

    def refuse(self, refusing: bool) -> None:
        """Close new connections at once, or let them through again."""
        self._refusing = refusing

    def blackhole(self) -> None:
        """Nothing passes on any connection, old or new, and none is closed."""
        self._dark = True
        self._do(lambda: [link.lost.set() for link in self._links])

    def heal(self) -> None:
        """New connections pass everything at once and unharmed."""
        self._refusing = self._dark = False
        self.latency_seconds = self.corruption = 0.0
        self.piece_bytes = READ_BYTES

    @property
    def open_connections(self) -> int:
        """How many are open now."""
        return len(self._links)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _do(self, action: Callable[[], object]) -> None:
        done = threading.Event()

        def run() -> None:
            action()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(10)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for link in set(self._links):
            link.close(reset=True)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.close()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        for one in (writer, far_writer):
            one.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link((writer, far_writer))
        self._links.add(link)
        self.connections += 1
        if self._dark:
            link.lost.set()
        try:
            await asyncio.gather(
                self._pump(link, reader, far_writer, from_server=False),
                self._pump(link, far_reader, writer, from_server=True),
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            link.close(reset=True)
            self._links.discard(link)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_server: bool
    ) -> None:
        while data := await reader.read(READ_BYTES):
            if link.lost.is_set():
                continue  # into the black hole
            if self.latency_seconds:
                await _pass_time(self.latency_seconds)
            if from_server and self.corruption and self._dice.random() < self.corruption:
                data = self._spoiled(data)
            # Read once: it may be switched while these bytes are on their way.
            piece_bytes = self.piece_bytes
            for at in range(0, len(data), piece_bytes):
                writer.write(data[at : at + piece_bytes])
                await writer.drain()
        if not link.lost.is_set():
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()

    def _spoiled(self, data: bytes) -> bytes:
        self.corrupted += 1
        spoiled = bytearray(data)
        spoiled[self._dice.randrange(len(spoiled))] ^= self._dice.randint(1, 255)
        return bytes(spoiled)


async def _pass_time(seconds: float) -> None:
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, passed.set)
    await passed.wait()
