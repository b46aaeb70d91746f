"""What Backend 1 does besides SQL, as a whole phase: the cache, the sellers, the revenue."""

from __future__ import annotations

import pytest

from backend_watcher.demo import orders, seed
from backend_watcher.demo.inline import Chores
from backend_watcher.demo.proof import prove
from backend_watcher.demo.stage import Phase

from .conftest import connect


@pytest.mark.parametrize("phase", ["inline"], indirect=True)
async def test_after_an_order_everything_is_in_its_place(phase: Phase) -> None:
    phase.fill()
    chores = Chores(phase.cache_url, phase._sellers_url)
    try:
        async with await connect(phase.dsn) as connection:
            await chores.warm(connection)
            lines = [(1, seed.opening_stock()[1] - 2), (2, 1)]
            placed = await orders.place(connection, 7, lines, chores.add_revenue)
        await chores.finish(placed)
    finally:
        await chores.close()
    proof = prove(phase.dsn, phase.cache_url, phase.received())
    assert proof.clean, proof.complaints()
    assert proof.crossings == 1
