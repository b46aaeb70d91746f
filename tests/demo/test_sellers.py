"""The sellers' service keeps one of each event, and counts what comes again."""

from __future__ import annotations

import time

import aiohttp

from backend_watcher.demo.stage import Phase


async def test_keeps_one_of_each_event(phase: Phase) -> None:
    url = phase._sellers_url + "/low-stock"
    one, other = {"event_id": "a", "product_id": 1}, {"event_id": "b", "product_id": 2}
    answers = []
    begun = time.monotonic()
    for notification in (one, other, one):
        async with aiohttp.request("POST", url, json=notification) as response:
            answers.append(await response.json())
    # As far away as it says: 80 ms at least for each.
    assert time.monotonic() - begun > 0.24
    assert [answer["duplicate"] for answer in answers] == [False, False, True]
    assert phase.received() == {"notifications": [one, other], "duplicates": 1}
