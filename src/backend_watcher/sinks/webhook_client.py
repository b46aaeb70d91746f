"""
Posts one body to one receiver, and says in the watcher's words what came of it.

Told nothing by the environment and by nobody else: no proxies, no netrc, no cookies, no redirects, no decompression.
An answer is known when its headers are there. Its body is read, up to `ANSWER_BYTES_MAX`, only so that the connection
can be used again, and thrown away: a receiver that drips it, or sends a mountain, loses its connection.
"""

from __future__ import annotations

import asyncio
import io
import ssl
import time
from collections.abc import Mapping, Sequence

import aiohttp
from yarl import URL

from backend_watcher.errors import ConfigError, SinkError, SinkFailed, SinkUnavailable
from backend_watcher.sinks.webhook_address import Network
from backend_watcher.sinks.webhook_answer import judge
from backend_watcher.sinks.webhook_guard import ForbiddenAddress, Guard

ANSWER_BYTES_MAX = 16_384
"""Of a body. With its head, and what the system has ready by then, never more than 64 KB come in (webhook_guard)."""

ANSWER_SECONDS_MAX = 1.0
"""For the body of an answer, which decides nothing."""

CONNECT_SECONDS_MAX = 10.0
KEEPALIVE_SECONDS = 3.0
"""Shorter than common servers keep an idle connection (5 s): who closes first must not be a race."""

_PIECE_BYTES = 8_192
_LARGE_BYTES = 262_144
"""From here on a body is written in pieces."""

_REMEDY = "Start it, or correct the url of the sink; delivery goes on by itself."


class Client:
    """Connections to one receiver; only SinkErrors come out of here. Raises ConfigError for an unusable `ca_file`."""

    def __init__(self, url: URL, allowed: Sequence[Network], connections: int, ca_file: str | None) -> None:
        self._url = url
        self.receiver = f"webhook {url.host}"
        self._connections = connections
        self._ca_file = ca_file
        self._guard = Guard(allowed)
        self._session: aiohttp.ClientSession | None = None
        if ca_file is not None:
            _context(ca_file)

    @property
    def is_open(self) -> bool:
        """Say whether there is a session to post with."""
        return self._session is not None

    async def open(self) -> None:
        """Look the receiver up; nothing is sent. Raises SinkUnavailable."""
        if self._session is not None:
            return
        host = self._url.raw_host or ""
        if ":" not in host and not host.replace(".", "").isdigit():
            try:
                await self._guard.resolve(host, self._url.port or 443)
            except OSError as error:
                raise self._unreachable(error) from error
        context = await asyncio.to_thread(_context, self._ca_file)
        if self._session is not None:
            return  # somebody else was quicker, while we waited
        connector = aiohttp.TCPConnector(
            resolver=self._guard,
            use_dns_cache=False,
            socket_factory=self._guard.make_socket,
            ssl=context,
            limit=self._connections,
            limit_per_host=self._connections,
            keepalive_timeout=KEEPALIVE_SECONDS,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_PIECE_BYTES,
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def close(self) -> None:
        """Let go of the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, body: bytes, headers: Mapping[str, str], timeout_seconds: float) -> None:
        """Post, and return when the receiver took it. Raises the SinkError that its answer, or none, means."""
        session = self._session
        if session is None:
            raise SinkUnavailable(f"{self.receiver}: the sink is closed")
        connect = min(CONNECT_SECONDS_MAX, timeout_seconds / 2)
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await session.post(
                    self._url,
                    data=body if len(body) < _LARGE_BYTES else io.BytesIO(body),
                    headers=headers,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect),
                )
        except aiohttp.ConnectionTimeoutError as error:
            raise SinkUnavailable(f"{self.receiver}: no connection in {connect:g} s", remedy=_REMEDY) from error
        except TimeoutError as error:
            raise SinkFailed(f"{self.receiver}: no answer in {timeout_seconds:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._broken(error) from error
        status, found = answer.status, answer.headers
        await _drop(answer)
        failure = judge(self.receiver, status, found, time.time())
        if failure is not None:
            raise failure

    def _broken(self, error: Exception) -> SinkError:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            reason = getattr(error.certificate_error, "verify_message", None) or "it does not fit"
            return SinkUnavailable(
                f"{self.receiver}: its certificate is not trusted: {reason}",
                remedy="Mend the receiver's certificate, or name who signed it with ca_file.",
            )
        if isinstance(error, aiohttp.ClientConnectorError):
            return self._unreachable(error.os_error)
        # It may have been taken: whatever was sent is sent again, with the same id.
        return SinkFailed(f"{self.receiver}: the connection ended without an answer ({type(error).__name__})")

    def _unreachable(self, error: OSError) -> SinkUnavailable:
        if isinstance(error, ForbiddenAddress):
            return SinkUnavailable(
                f"{self.receiver}: nothing was sent: {error.strerror}",
                remedy="If it is meant to be reached, name its network in allow_networks of the sink.",
            )
        reason = error.strerror or type(error).__name__
        return SinkUnavailable(f"{self.receiver}: cannot be reached: {reason}", remedy=_REMEDY)


async def _drop(answer: aiohttp.ClientResponse) -> None:
    """Read what is left if it is little, or close the connection."""
    left = ANSWER_BYTES_MAX
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            while left > 0:
                piece = await answer.content.read(min(left, _PIECE_BYTES))
                if not piece:
                    return
                left -= len(piece)
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    finally:
        # After the end of the body the connection is back among those to use, and this does nothing.
        answer.close()


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it holds no certificate"
        raise ConfigError([f"ca_file: {ca_file} cannot be used: {reason}; right would be a PEM file"]) from None
