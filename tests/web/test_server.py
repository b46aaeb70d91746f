"""Over a real socket: what is answered, to whom, and that it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from backend_watcher.errors import ConfigError, JournalBroken
from backend_watcher.service.faces import Inside
from backend_watcher.telemetry.health import Readiness
from backend_watcher.telemetry.metrics import Metrics
from backend_watcher.web.server import WebFace

READY = Readiness(())


@asynccontextmanager
async def answering(readiness: Readiness = READY, *, broken: bool = False) -> AsyncIterator[WebFace]:
    told = Metrics("1", compiled=False)

    async def metrics(accept: str) -> tuple[bytes, str]:
        if broken:
            raise JournalBroken("a secret place")
        return told.text(accept, {})

    face = WebFace("127.0.0.1", 0, Inside(metrics, lambda: readiness))
    await face.start()
    try:
        yield face
    finally:
        await face.stop()


async def ask(
    face: WebFace, path: str, host: str = "127.0.0.1", method: str = "GET", more: str = ""
) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", face.port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return int(answer.split(" ", 2)[1]), answer


async def test_alive_ready_and_its_figures() -> None:
    async with answering() as face:
        assert (await ask(face, "/livez"))[0] == 200
        assert (await ask(face, "/readyz"))[0] == 200
        code, text = await ask(face, "/metrics")
        assert code == 200
        assert 'watcher_build_info{compiled="false",version="1"} 1.0' in text
        assert "text/plain; version=" in text
        code, text = await ask(face, "/metrics", more="Accept: application/openmetrics-text; version=1.0.0\r\n")
        assert (code, text.endswith("# EOF\n")) == (200, True)


async def test_not_ready_says_why() -> None:
    async with answering(Readiness(("source: waiting", "subscription a: stalled"))) as face:
        code, text = await ask(face, "/readyz")
        assert code == 503
        assert text.endswith("source: waiting\nsubscription a: stalled\n")
        assert (await ask(face, "/livez"))[0] == 200


async def test_a_journal_that_cannot_be_asked_is_not_quoted() -> None:
    async with answering(broken=True) as face:
        code, text = await ask(face, "/metrics")
        assert code == 503
        assert "secret" not in text


@pytest.mark.parametrize("host", ["evil.example.com", "evil.example.com:8470", "127.0.0.1.evil.example.com"])
async def test_a_page_of_another_site_is_not_answered(host: str) -> None:
    async with answering() as face:
        code, text = await ask(face, "/metrics", host)
        assert code == 400
        assert "watcher_" not in text


async def test_other_paths_and_methods_are_refused() -> None:
    async with answering() as face:
        assert (await ask(face, "/"))[0] == 404
        assert (await ask(face, "/metrics", method="POST"))[0] == 405


async def test_a_port_that_is_taken_is_named() -> None:
    async with answering() as face:
        other = WebFace("127.0.0.1", face.port, Inside(None, lambda: READY))  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{face.port} cannot be had"):
            await other.start()
        await other.stop()


async def test_it_ends_although_somebody_is_connected() -> None:
    async with answering() as face:
        reader, writer = await asyncio.open_connection("127.0.0.1", face.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        async with asyncio.timeout(8):
            await face.stop()
        await reader.read()
        assert reader.at_eof()
        writer.close()
