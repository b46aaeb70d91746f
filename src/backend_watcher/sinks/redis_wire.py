"""
One Redis or Valkey server for the sinks that write to it: calls are packed whole, and sent ahead of their answers.

The client library's own way packs each argument in Python; here a call of thousands is one pass in C.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable
from importlib import resources
from typing import Any, TypeAlias

import redis.asyncio
import redis.exceptions
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from backend_watcher.errors import ConfigError, SinkError, SinkRejected, SinkUnavailable

CALLS_IN_FLIGHT_MAX = 2
"""Calls sent before the first answer is read: one is packed while the server works on the other."""

CONNECTIONS_MAX = 16
CONNECT_SECONDS_MAX = 5.0
ANSWER_SECONDS_MAX = 30.0
"""From one answer to the next, and for a connection and the first of them."""

Call: TypeAlias = tuple[bytes, int]
"""Packed commands, and how many answers they have."""

_NOT_NOW = ("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY", "TRYAGAIN")
_NOT_NOW_ERRORS = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)


class RedisServer:
    """
    Connections to one server, and what it says in the watcher's words: only SinkErrors come out of here.

    Raises ConfigError if `url` is no address. `sink` is the name that messages begin with.
    """

    def __init__(self, sink: str, url: str) -> None:
        self.address = _address(url)
        self._sink = sink
        self._url = url
        self._pool: redis.asyncio.BlockingConnectionPool | None = None

    async def open(self) -> None:
        """Connect and load the scripts. Raises SinkUnavailable, naming the server, if it does not answer."""
        if self._pool is None:
            self._pool = redis.asyncio.BlockingConnectionPool.from_url(
                self._url,
                max_connections=CONNECTIONS_MAX,
                timeout=ANSWER_SECONDS_MAX,
                # The time is kept in `_talk`: the client's own timeouts may swallow a cancellation (wait_for, 3.11).
                socket_timeout=None,
                socket_connect_timeout=CONNECT_SECONDS_MAX,
                # Delivery tries again, and says so; the client would do it in silence.
                retry=Retry(NoBackoff(), 0),
            )
        await self.run(lambda: [command(b"PING"), *_loads()])

    async def close(self) -> None:
        """Let go of the connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.disconnect()

    async def call(self, *parts: bytes) -> Any:
        """Send one command and return its answer."""
        return (await self.run(lambda: [command(*parts)]))[0]

    async def run(self, calls: Callable[[], Iterable[Call]]) -> list[Any]:
        """
        Send commands over one connection and return their answers.

        They are made while earlier ones are under way, and made again if the server has lost its scripts, so every
        one of them may be carried out twice.
        """
        try:
            try:
                return await self._talk(calls())
            except redis.exceptions.NoScriptError:
                await self._talk(_loads())
                return await self._talk(calls())
        except (redis.exceptions.RedisError, OSError) as error:
            raise self.translate(error) from error

    async def _talk(self, calls: Iterable[Call]) -> list[Any]:
        pool = self._pool
        if pool is None:
            raise SinkUnavailable(f"{self._sink} is not open")
        async with asyncio.timeout(ANSWER_SECONDS_MAX) as limit:
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                return await self._exchange(connection, calls, limit)
            except BaseException:
                # Answers may still be on their way: nobody else may find them.
                await connection.disconnect(nowait=True)
                raise
            finally:
                await pool.release(connection)

    async def _exchange(self, connection: Any, calls: Iterable[Call], limit: asyncio.Timeout) -> list[Any]:
        clock = asyncio.get_running_loop().time
        answers: list[Any] = []
        waiting: deque[int] = deque()
        for packed, count in calls:
            await connection.send_packed_command(packed)
            waiting.append(count)
            if len(waiting) == CALLS_IN_FLIGHT_MAX:
                answers += [await connection.read_response() for _ in range(waiting.popleft())]
                limit.reschedule(clock() + ANSWER_SECONDS_MAX)
        for count in waiting:
            answers += [await connection.read_response() for _ in range(count)]
        return answers

    def translate(self, error: Exception) -> SinkError:
        """Say what the client raised; the server's own words may quote keys and values, so few are kept."""
        words = str(error).split(" with args", 1)[0].split(" script: ", 1)[0][:120]
        if isinstance(error, redis.exceptions.NoPermissionError | redis.exceptions.AuthenticationError):
            return SinkUnavailable(
                f"{self._sink}: {self.address} does not let us in: {type(error).__name__}",
                remedy="Correct the user and password in url, and what the server's ACL allows that user.",
            )
        refused = isinstance(error, redis.exceptions.ResponseError) and not isinstance(error, _NOT_NOW_ERRORS)
        if refused and not any(sign in str(error) for sign in _NOT_NOW):
            return SinkRejected(f"{self._sink}: {self.address} refused the batch: {words}")
        return SinkUnavailable(
            f"{self._sink}: {self.address} does not take writes: {type(error).__name__}: {words}",
            remedy=f"Start the server at {self.address}, or correct url; delivery goes on by itself.",
        )


def command(*parts: bytes) -> Call:
    """Pack one command."""
    return pack(parts), 1


def sha_of(script: str) -> bytes:
    """Return what EVALSHA calls the script `lua/<script>.lua`."""
    return _SCRIPTS[script][1]


def fields_as_json(fields: Iterable[tuple[bytes, bytes | None]]) -> bytes | None:
    """Write the fields of a hash in one way only, None where it has none; bytes that are not UTF-8 stay apart."""
    texts = {
        name.decode("utf-8", "surrogateescape"): text.decode("utf-8", "surrogateescape")
        for name, text in fields
        if text is not None
    }
    return json.dumps(texts, sort_keys=True).encode() if texts else None


def pack_slowly(parts: tuple[bytes, ...]) -> bytes:
    """Pack a command without hiredis."""
    body = b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])
    return b"*%d\r\n%b" % (len(parts), body)


def _packer() -> Callable[[Any], bytes]:
    try:
        from hiredis import pack_command
    except ImportError:
        return pack_slowly
    return pack_command


pack = _packer()


def _address(url: str) -> str:
    """Return host, port and database, or the socket's path: what may be shown of a URL."""
    try:
        parts = parse_url(url)
    except ValueError:
        # The client's message quotes the URL, and with it the password.
        raise ConfigError(["url: not the address of a Redis server, such as 'redis://127.0.0.1:6379/0'"]) from None
    if "path" in parts:
        return str(parts["path"])
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}/{parts.get('db', 0)}"


def _loads() -> list[Call]:
    return [command(b"SCRIPT", b"LOAD", text) for text, _ in _SCRIPTS.values()]


def _read(name: str) -> tuple[bytes, bytes]:
    text = resources.files("backend_watcher.sinks").joinpath("lua", f"{name}.lua").read_bytes()
    return text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


_SCRIPTS = {name: _read(name) for name in ("write_json", "write_hash", "read_hash", "truncate")}
