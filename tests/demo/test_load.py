"""The customers: what was planned is sent, at its time, and waiting counts."""

from __future__ import annotations

import json

import pytest
from aiohttp import ClientSession, web

from backend_watcher.demo.load import Load, send
from backend_watcher.demo.plan import ORDERS, RESTOCKS, Request, make_plan


class Backend:
    """A backend that notes what it gets."""

    def __init__(self) -> None:
        self.got: list[tuple[str, object]] = []
        self.status = 201

    async def answer(self, request: web.Request) -> web.Response:
        self.got.append((request.path, await request.json()))
        return web.json_response({}, status=self.status)


async def serve(backend: Backend) -> tuple[web.AppRunner, str]:
    app = web.Application()
    app.router.add_post("/{path}", backend.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def test_sends_what_is_planned_and_says_what_it_saw(capsys: pytest.CaptureFixture[str]) -> None:
    backend = Backend()
    runner, url = await serve(backend)
    await send(url, 1, 100, 0.5, 0.1)
    await runner.cleanup()
    plan = [(request.path, json.loads(json.dumps(request.body))) for request in make_plan(1, 100, 0.5)]
    assert sorted(map(str, backend.got)) == sorted(map(str, plan))
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["ended"], last["orders"], last["failed"]) == (True, 50, 0)
    # Of the 50 the first 10 were the warm-up; deliveries of goods do not count.
    assert len(last["latencies_ms"]) == 40


async def test_counts_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    backend = Backend()
    backend.status = 500
    runner, url = await serve(backend)
    plan = [Request(0.0, ORDERS, {}), Request(0.0, RESTOCKS, {})]
    async with ClientSession() as session:
        await Load(session, url, 0).run(plan)
    await runner.cleanup()
    async with ClientSession() as session:
        await Load(session, url, 0).run(plan[:1])
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines() if "ended" in line)
    assert (first["orders"], first["failed"], first["latencies_ms"]) == (0, 2, [])
    assert first["failure"].endswith("status 500")
    assert second["failure"].startswith("/orders: Client")
