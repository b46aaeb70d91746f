"""Backend 1 over HTTP, in both modes."""

from __future__ import annotations

import aiohttp
import pytest

from backend_watcher.demo import seed
from backend_watcher.demo.proof import prove
from backend_watcher.demo.stage import Phase


async def post(phase: Phase, path: str, body: object) -> tuple[int, object]:
    async with aiohttp.request("POST", phase._backend_url + path, json=body) as response:
        return response.status, await response.json() if response.status < 300 else None


@pytest.mark.parametrize("phase", ["inline"], indirect=True)
async def test_inline_does_everything_before_it_answers(phase: Phase) -> None:
    phase.fill()
    phase.open_backend()
    status, answer = await post(phase, "/orders", {"wallet_id": 7, "lines": [[1, seed.opening_stock()[1]], [2, 1]]})
    assert status == 201
    assert isinstance(answer, dict)
    assert answer["id"] == 1
    status, answer = await post(phase, "/restocks", {"product_id": 1, "quantity": 36})
    assert (status, answer) == (200, {"id": 1, "stock": 36})
    proof = prove(phase.dsn, phase.cache_url, phase.received())
    assert proof.clean, proof.complaints()
    assert proof.crossings == 1


async def test_watched_does_sql_only(phase: Phase) -> None:
    phase.fill()
    phase.open_backend()
    status, _ = await post(phase, "/orders", {"wallet_id": 7, "lines": [[1, seed.opening_stock()[1]]]})
    assert status == 201
    proof = prove(phase.dsn, phase.cache_url, phase.received())
    assert (proof.cached, proof.notified, proof.crossings) == (0, 0, 1)
    assert not proof.wrong


async def test_an_order_that_fails_leaves_nothing(phase: Phase) -> None:
    phase.fill()
    phase.open_backend()
    status, _ = await post(phase, "/orders", {"wallet_id": 10_000, "lines": [[1, 1]]})
    assert status == 500
    proof = prove(phase.dsn, phase.cache_url, phase.received())
    assert proof.changes == seed.PRODUCTS + seed.WALLETS
