"""
A pooler small enough to read: it logs clients in by itself, and lends them a session for each transaction.

Speaks as much of the frontend/backend protocol (manual, chapter of that name) as it takes to find the end of a
transaction. It needs a server that trusts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_LENGTH = struct.Struct("!I")
_PROTOCOL = struct.pack("!I", 196_608)
_READY = b"Z"
_GREETED_PID = 4_000_000


@dataclass
class Session:
    """One session of the server's, logged in; `greeting` is what it said of its parameters."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    greeting: bytes = b""


@dataclass
class Pooler:
    """
    Lends the newest free session, or with `in_turn` the oldest, as poolers do.

    With `keeps_settings` it hands on the parameters `options` of the first client, otherwise it drops them.
    """

    host: str
    port: int
    in_turn: bool = False
    keeps_settings: bool = True
    sessions_min: int = 1
    free: list[Session] = field(default_factory=list)
    lent: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        self.writers.append(writer)
        parameters = await _startup(reader, writer)
        if b"replication" in parameters:
            writer.write(_message(b"E", b"SFATAL\0C08P01\0Munsupported startup parameter: replication\0\0"))
            writer.close()
            return
        while len(self.free) + self.lent < self.sessions_min:
            self.free.append(await self._log_in(parameters))
        if not self.free:
            self.free.append(await self._log_in(parameters))
        greeting = self.free[0].greeting
        key = _message(b"K", struct.pack("!II", _GREETED_PID, 7))
        writer.write(_message(b"R", _LENGTH.pack(0)) + greeting + key + _message(_READY, b"I"))
        try:
            while data := await reader.read(65_536):
                await self._transaction(data, reader, writer, parameters)
        finally:
            writer.close()

    async def _transaction(
        self, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, parameters: dict[bytes, bytes]
    ) -> None:
        if data[:1] == b"X":
            return
        session = self.free.pop(0 if self.in_turn else -1) if self.free else await self._log_in(parameters)
        self.lent += 1
        session.writer.write(data)
        pump = asyncio.create_task(_pump(reader, session.writer))
        try:
            ended = False
            while not ended:
                kind, body = await _read(session.reader)
                writer.write(_message(kind, body))
                ended = kind == _READY and body == b"I"
            await writer.drain()
        finally:
            pump.cancel()
            await asyncio.wait([pump])
            self.lent -= 1
        self.free.append(session)

    async def _log_in(self, parameters: dict[bytes, bytes]) -> Session:
        kept = {name: text for name, text in parameters.items() if self.keeps_settings or name != b"options"}
        reader, writer = await asyncio.open_connection(self.host, self.port)
        self.writers.append(writer)
        body = _PROTOCOL + b"".join(name + b"\0" + text + b"\0" for name, text in kept.items()) + b"\0"
        writer.write(_LENGTH.pack(len(body) + 4) + body)
        session = Session(reader, writer)
        while True:
            kind, said = await _read(reader)
            assert kind != b"E", said
            if kind == b"S":
                session.greeting += _message(kind, said)
            if kind == _READY:
                return session


async def _startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[bytes, bytes]:
    while True:
        (size,) = _LENGTH.unpack(await reader.readexactly(4))
        body = await reader.readexactly(size - 4)
        if body[:4] == _PROTOCOL:
            words = body[4:].rstrip(b"\0").split(b"\0")
            return dict(zip(words[::2], words[1::2], strict=False))
        writer.write(b"N")  # the question for TLS


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(_LENGTH.unpack(head[1:])[0] - 4)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + _LENGTH.pack(len(body) + 4) + body


@asynccontextmanager
async def pooling(pooler: Pooler) -> AsyncIterator[int]:
    """Run it on a port of its own."""
    listener = await asyncio.start_server(pooler.serve, "127.0.0.1", 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]
    for writer in pooler.writers:
        writer.close()
    for writer in pooler.writers:
        with contextlib.suppress(OSError):
            await writer.wait_closed()
