"""
Looks a name up once, and lets nothing be connected to but a checked address.

A name that is public when somebody looks and private when somebody connects (DNS rebinding) is of no use: the client
connects to the very addresses that were checked, and each is checked again where its socket is made. That second
place also holds for an address that stands in the URL itself, and for whatever a later client library looks up.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from backend_watcher.sinks.webhook_address import Network, forbidden

RESOLVE_SECONDS_MAX = 5.0
ADDRESSES_MAX = 16
"""Addresses of a name that are tried."""

RECEIVE_BYTES = 32_768
"""What the system holds of an answer before we read it: nobody can make us take more at once than twice this."""


class ForbiddenAddress(OSError):
    """A name leads to, or is, an address that a webhook may not reach."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EACCES, text)


class Guard(AbstractResolver):
    """Resolves names for the client, and makes its sockets. `allowed` are networks that may be reached besides."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Look a name up. Raises ForbiddenAddress if one address may not be reached, OSError if there is none."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(RESOLVE_SECONDS_MAX):
                found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            reason = f"the name was not resolved in {RESOLVE_SECONDS_MAX:g} s"
            raise OSError(errno.ETIMEDOUT, reason) from error
        except UnicodeError as error:
            raise OSError(errno.EINVAL, "the name cannot be looked up") from error
        if not found:
            raise OSError(errno.ENOENT, "the name has no address")
        for *_, address in found:
            # All of them, not only the first: which one is connected to is chance.
            self._check(str(address[0]))
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in found[:ADDRESSES_MAX]
        ]

    def make_socket(self, wanted: tuple[Any, ...]) -> socket.socket:
        """Make the socket for one address. Raises ForbiddenAddress if that may not be reached."""
        family, kind, protocol, _, address = wanted
        self._check(str(address[0]))
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        return made

    async def close(self) -> None:
        """Nothing to let go of."""

    def _check(self, address: str) -> None:
        word = forbidden(address, self._allowed)
        if word is not None:
            raise ForbiddenAddress(f"{address} is {word}")
