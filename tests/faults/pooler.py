"""
A transaction pooler in small: many clients, one session of the server, which goes back after each transaction.

Speaks just enough of PostgreSQL's protocol (manual, chapter "Frontend/Backend Protocol"): it greets each client itself,
and then passes on what belongs to a transaction, until the server says that it is idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from typing import Self

import psycopg


class Pooler:
    """Listens on a port of the loopback while the block runs; `dsn` leads through it."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    @property
    def dsn(self) -> str:
        """Where a client connects."""
        place = self._dsn.rpartition("@")[2].partition("/")[0]
        return self._dsn.replace(place, f"127.0.0.1:{self.port}")

    def __enter__(self) -> Self:
        # psycopg logs in; from then on only its socket is used.
        self._session = psycopg.connect(self._dsn, autocommit=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._session.close()

    async def _close(self) -> None:
        self._server.close()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        for writer in self._writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _open(self) -> None:
        self._turn = asyncio.Lock()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            await self._greet(reader, writer)
            while True:
                kind = await reader.readexactly(1)
                body = await reader.readexactly(struct.unpack(">I", size := await reader.readexactly(4))[0] - 4)
                if kind == b"X":
                    break
                async with self._turn:
                    await self._transaction(kind + size + body, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            (length,) = struct.unpack(">I", await reader.readexactly(4))
            (code,) = struct.unpack(">I", await reader.readexactly(4))
            await reader.readexactly(length - 8)
            if code == 196608:
                break
            writer.write(b"N")  # neither TLS nor GSS
        said = b"R" + struct.pack(">II", 8, 0)
        for name in ("server_version", "client_encoding", "server_encoding", "standard_conforming_strings"):
            value = self._session.info.parameter_status(name) or ""
            pair = f"{name}\0{value}\0".encode()
            said += b"S" + struct.pack(">I", len(pair) + 4) + pair
        # A process number of its own invention.
        said += b"K" + struct.pack(">III", 12, 999_999, 1) + b"Z" + struct.pack(">I", 5) + b"I"
        writer.write(said)
        await writer.drain()

    async def _transaction(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on from the first message until the server is idle again."""
        server = self._session.pgconn.socket
        message, idle = first, False
        while not idle:
            await asyncio.to_thread(_send_all, server, message)
            # Sync or a simple query is answered; what comes before it is not.
            while message[:1] not in (b"S", b"Q"):
                message = await reader.readexactly(5)
                message += await reader.readexactly(struct.unpack(">I", message[1:])[0] - 4)
                await asyncio.to_thread(_send_all, server, message)
            answer, state = await asyncio.to_thread(_read_answer, server)
            writer.write(answer)
            await writer.drain()
            idle = state == b"I"
            if not idle:
                message = await reader.readexactly(5)
                message += await reader.readexactly(struct.unpack(">I", message[1:])[0] - 4)


def _send_all(descriptor: int, data: bytes) -> None:
    import socket

    with socket.socket(fileno=_copy(descriptor)) as shared:
        shared.setblocking(True)
        shared.sendall(data)


def _read_answer(descriptor: int) -> tuple[bytes, bytes]:
    """Read until ReadyForQuery; return all of it, and the state it tells."""
    import socket

    answer = b""
    with socket.socket(fileno=_copy(descriptor)) as shared:
        shared.setblocking(True)
        with shared.makefile("rb", buffering=0) as file:
            while True:
                head = _exactly(file, 5)
                body = _exactly(file, struct.unpack(">I", head[1:])[0] - 4)
                answer += head + body
                if head[:1] == b"Z":
                    return answer, body


def _exactly(file: object, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += file.read(size - len(data))  # type: ignore[attr-defined]
    return data


def _copy(descriptor: int) -> int:
    import os

    return os.dup(descriptor)
