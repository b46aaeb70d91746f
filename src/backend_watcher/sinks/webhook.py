"""
Calls another service: an HTTPS request for each change, signed as the Standard Webhooks specification says.

Of one key the receiver is sent one change after the other, and none after one that failed; different keys go at once
over `connections`. The receiver may see a change again, with the same `webhook-id`: after a timeout nobody can know
whether it was taken. A 2xx is taken for DURABLE.

    webhook_sign      the three headers            webhook_address   where a webhook may lead
    webhook_body      what is sent                 webhook_guard     lets nothing else be connected to
    webhook_answer    what a status means          webhook_client    one request
    webhook_round     one batch: order, failures
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import aiohttp  # noqa: F401 before ours, so that where it is missing, it is the one that is missed

from backend_watcher.contracts import Receipt
from backend_watcher.errors import ConfigError, SinkRejected
from backend_watcher.events.change import Change
from backend_watcher.sinks.webhook_address import read_networks, read_url
from backend_watcher.sinks.webhook_body import Body
from backend_watcher.sinks.webhook_client import Client
from backend_watcher.sinks.webhook_round import Round
from backend_watcher.sinks.webhook_sign import Signer, message_id

BODY_BYTES_MAX = 1_000_000
"""What common servers take without being told to take more."""

CONNECTIONS_MAX = 100
TIMEOUT_SECONDS = 30.0
TIMEOUT_SECONDS_MAX = 600.0

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,4094}[\x21-\x7e])?")
_OURS = frozenset({"accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie"})
_OURS |= {"expect", "host", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer"}
_OURS |= {"transfer-encoding", "upgrade"}

_T = TypeVar("_T")


class Webhook:
    """
    Sends each change to `url`, which is HTTPS and public unless `allow_http` and `allow_networks` say otherwise.

    `secret` signs; several, newest first, during a rotation. `type` names the event. `columns` chooses what is sent,
    or `exclude` what is not. A body of more than `max_bytes` is rejected before anything is sent. `token` is sent as
    `Authorization: Bearer …`. `ca_file` names who else may sign the receiver's certificate.
    """

    times_itself = True
    """Each request has its own limit; delivery does not time the batch."""

    def __init__(
        self,
        url: str,
        *,
        secret: str | Sequence[str],
        type: str = "{table}.{operation}",  # noqa: A002 the specification's word
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        columns: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        connections: int = 8,
        timeout_seconds: float = TIMEOUT_SECONDS,
        max_bytes: int = BODY_BYTES_MAX,
        allow_networks: Sequence[str] = (),
        allow_http: bool = False,
        ca_file: str | None = None,
    ) -> None:
        faults: list[str] = []
        networks = _made(faults, lambda: read_networks(allow_networks))
        address = _made(faults, lambda: read_url(url, allow_http, networks or ()))
        signer = _made(faults, lambda: Signer(secret))
        body = _made(faults, lambda: Body(type, columns, exclude))
        faults += _header_faults(headers or {}, token) + _limit_faults(connections, timeout_seconds, max_bytes)
        if address is None or signer is None or body is None or networks is None or faults:
            raise ConfigError(faults)
        self._client = Client(address, networks, connections, ca_file)
        self._signer = signer
        self._body = body
        self._headers = {
            "User-Agent": "backend-watcher",
            **(headers or {}),
            **({"Authorization": f"Bearer {token}"} if token is not None else {}),
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
        }
        self.timeout_seconds = timeout_seconds
        self._connections = connections
        self._max_bytes = max_bytes
        self._turns: asyncio.Semaphore | None = None
        self._described = {
            "kind": "webhook",
            # Neither path nor query: either may be what lets a caller in.
            "receiver": str(address.origin()),
            "type": type,
            "secrets": len(signer),
            "headers": sorted(headers or {}),
            "columns": None if columns is None else list(columns),
            "exclude": list(exclude),
            "connections": connections,
            "max_bytes": max_bytes,
            "allow_networks": [str(network) for network in networks],
        }

    def __repr__(self) -> str:
        return f"Webhook({self._described['receiver']!r})"

    async def open(self) -> None:
        """Look the receiver up; nothing is sent. Raises SinkUnavailable where its name leads nowhere we may go."""
        await self._client.open()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.close()
        self._turns = None

    async def flush(self) -> None:
        """Nothing waits: what was answered is delivered."""

    def describe(self) -> Mapping[str, Any]:
        """Say what this is; of the address only the host, and no secret."""
        return {**self._described, "timeout_seconds": self.timeout_seconds}

    async def write(self, batch: Sequence[Change]) -> Receipt:
        """Send each change. Raises SomeFailed that names every one that is not delivered, or what stopped the first."""
        if not self._client.is_open:
            await self.open()
        if self._turns is None:
            # Across all batches that are written at once.
            self._turns = asyncio.Semaphore(self._connections)
        await Round(batch, functools.partial(self._send, self._turns), self._connections).run()
        return Receipt.DURABLE

    async def _send(self, turns: asyncio.Semaphore, change: Change) -> None:
        async with turns:
            # Written when it is sent and not before: so many bodies are in memory as there are connections.
            body = self._body.write(change)
            if len(body) > self._max_bytes:
                raise SinkRejected(
                    f"too_large: the change of {change.table.full_name} is {len(body)} bytes, "
                    f"and max_bytes is {self._max_bytes}",
                    remedy="Leave the large column out with exclude=[…] of the sink, or raise max_bytes.",
                )
            signed = self._signer.headers(message_id(change.event_id), int(time.time()), body)
            await self._client.post(body, self._headers | signed, self.timeout_seconds)


def _made(faults: list[str], make: Callable[[], _T]) -> _T | None:
    try:
        return make()
    except ConfigError as error:
        faults += error.faults
        return None


def _header_faults(headers: Mapping[str, str], token: str | None) -> list[str]:
    """Say which headers could not be sent, or would say something else than they seem to. Values are never shown."""
    if not isinstance(headers, Mapping):
        return ["headers: a table of names and texts is wanted, such as {'X-Shop' = 'one'}"]
    faults = []
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            faults.append(f"headers: {name!r} is no name of a header; right would be letters, digits and '-'")
        elif name.lower() in _OURS or name.lower().startswith("webhook-"):
            faults.append(f"headers: {name!r} is the sink's own; right would be to leave it out")
        elif name.lower() == "authorization" and token is not None:
            faults.append(f"headers: {name!r} is there, and token too; right would be one of the two")
        elif not isinstance(value, str) or not _VALUE.fullmatch(value):
            faults.append(f"headers: the value of {name!r} is not one; right would be up to 4096 visible ASCII signs")
    if len({name.lower() for name in headers if isinstance(name, str)}) < len(headers):
        faults.append("headers: a name stands there twice; right would be each once")
    if token is not None and (not isinstance(token, str) or not _VALUE.fullmatch(token) or " " in token):
        faults.append("token: it cannot be sent; right would be visible ASCII signs without blanks")
    return faults


def _limit_faults(connections: int, timeout_seconds: float, max_bytes: int) -> list[str]:
    faults = []
    if not 1 <= connections <= CONNECTIONS_MAX:
        faults.append(f"connections: {connections!r}; right would be 1 to {CONNECTIONS_MAX}")
    if not 0 < timeout_seconds <= TIMEOUT_SECONDS_MAX:
        faults.append(f"timeout_seconds: {timeout_seconds!r}; right would be above 0 and up to {TIMEOUT_SECONDS_MAX:g}")
    if max_bytes < 1:
        faults.append(f"max_bytes: {max_bytes!r}; right would be 1 or more")
    return faults
