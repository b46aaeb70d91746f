"""Serves the application in a thread of its own: no function and no sink can keep it from answering."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import uvicorn

from backend_watcher.errors import ConfigError
from backend_watcher.service.faces import Inside
from backend_watcher.threads import LoopThread
from backend_watcher.web.app import make_app

BACKLOG = 128
CONNECTIONS_MAX = 256
KEEP_ALIVE_SECONDS = 30
STOP_SECONDS_MAX = 2


class _Server(uvicorn.Server):
    """Leaves the signals to the watcher."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


class WebFace:
    """Answers at one address."""

    def __init__(self, host: str, port: int, inside: Inside) -> None:
        self._host = host
        self._port = port
        self._app = make_app(inside)
        self._socket: socket.socket | None = None
        self._thread: LoopThread | None = None

    @property
    def port(self) -> int:
        """The port, also where any was asked for."""
        assert self._socket is not None
        number: int = self._socket.getsockname()[1]
        return number

    async def start(self) -> None:
        """Begin to answer. Raises ConfigError where the address cannot be had."""
        self._socket = self._bind()
        self._thread = LoopThread("watcher-web", self._serve)
        self._thread.start()

    async def stop(self) -> None:
        """End."""
        if self._thread is not None:
            await self._thread.stop()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _bind(self) -> socket.socket:
        try:
            family, *_, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0]
            found = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise self._refused(error) from error
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            # At once, so that who comes before the thread runs waits, and a second one is refused.
            found.listen(BACKLOG)
        except OSError as error:
            found.close()
            raise self._refused(error) from error
        return found

    def _refused(self, error: OSError) -> ConfigError:
        return ConfigError(
            [f"web.listen: {self._host}:{self._port} cannot be had: {error.strerror or error}"],
            remedy="Give another port, or end who has this one.",
        )

    async def _serve(self) -> None:
        assert self._socket is not None
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            backlog=BACKLOG,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS_MAX,
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            server.should_exit = True
            await serving
            raise
