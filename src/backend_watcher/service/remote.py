"""
How a command reaches the process that has the journal: a port on the loopback, and a file that only its owner reads.

`<journal>.control` holds the port and a token as JSON; it goes with the process. One request a line, one answer a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from backend_watcher.service.steering import Answer, Request

HOST = "127.0.0.1"
LINE_BYTES_MAX = 64 * 1024
ANSWER_SECONDS_MAX = 60.0
CONNECT_SECONDS_MAX = 5.0


class Door(msgspec.Struct, frozen=True):
    """Where to knock, and the word that opens."""

    port: int
    token: str
    pid: int


class _Asked(msgspec.Struct, frozen=True):
    token: str
    request: Request


class NobodyThere(Exception):
    """No process answers for this journal."""


def door_path(journal: Path) -> Path:
    """Return where the file of a journal's process is."""
    return journal.with_name(journal.name + ".control")


class RemoteControl:
    """Answers requests while the process runs."""

    def __init__(self, journal: Path, answer: Callable[[Request], Awaitable[Answer]]) -> None:
        self._path = door_path(journal)
        self._answer = answer
        self._token = secrets.token_urlsafe(32)
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen, and say where."""
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=LINE_BYTES_MAX)
        port = self._server.sockets[0].getsockname()[1]
        # Made anew: whoever could read an older file must not be able to read this one.
        self._path.unlink(missing_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(Door(port, self._token, os.getpid())))

    async def close(self) -> None:
        """Stop listening. May be called twice."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                answer = await self._reply(await reader.readline())
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
        writer.close()

    async def _reply(self, line: bytes) -> Answer:
        try:
            asked = msgspec.json.decode(line, type=_Asked)
        except msgspec.MsgspecError as error:
            return Answer(faults=[f"the request cannot be read: {error}"])
        if not hmac.compare_digest(asked.token.encode(), self._token.encode()):
            return Answer(faults=["the token is wrong"])
        try:
            return await self._answer(asked.request)
        except Exception as error:  # noqa: BLE001 who asked is told, and not left waiting
            return Answer(faults=[f"{type(error).__name__}: {error}"])


async def knock(journal: Path, request: Request) -> Answer:
    """Let the process that has the journal do something. Raises NobodyThere."""
    try:
        door = msgspec.json.decode(door_path(journal).read_bytes(), type=Door)
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            reader, writer = await asyncio.open_connection(HOST, door.port, limit=LINE_BYTES_MAX)
    except (OSError, TimeoutError, msgspec.MsgspecError) as error:
        # A process that was killed leaves its file behind.
        raise NobodyThere(str(error)) from error
    try:
        writer.write(msgspec.json.encode(_Asked(door.token, request)) + b"\n")
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            line = await reader.readline()
        return msgspec.json.decode(line, type=Answer)
    except (OSError, TimeoutError, msgspec.MsgspecError) as error:
        raise NobodyThere(f"the process does not answer: {error}") from error
    finally:
        writer.close()
