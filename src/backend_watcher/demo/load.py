"""
The customers: sends the planned requests over HTTP at their planned times, in its own process.

The loop is open: a request is sent when its time has come, whether or not the ones before it were answered, and its
latency counts from the planned time, so a backend that stalls cannot hide it by making the customers wait.

    python -m backend_watcher.demo.load URL NUMBER RATE SECONDS WARMUP_SECONDS

Prints a line of JSON four times a second, and a last one with `ended` and all latencies.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from typing import Any

import aiohttp

from backend_watcher.demo.figures import summary
from backend_watcher.demo.plan import ORDERS, Request, make_plan

REPORT_SECONDS = 0.25
ANSWER_SECONDS_MAX = 30.0


class Load:
    """One run of a plan. Latencies of the warm-up, when everything is done for the first time, do not count."""

    def __init__(self, session: aiohttp.ClientSession, url: str, warmup_seconds: float) -> None:
        self._session = session
        self._url = url
        self._warmup_seconds = warmup_seconds
        self._latencies_ms: list[float] = []
        self._orders = 0
        self._failures: list[str] = []
        self._open: set[asyncio.Task[None]] = set()
        self._begun = 0.0

    async def run(self, plan: list[Request]) -> None:
        """Send everything, and wait for the answers."""
        loop = asyncio.get_running_loop()
        self._begun = loop.time() + 0.05
        reports = asyncio.create_task(self._report())
        for request in plan:
            wait = self._begun + request.at_seconds - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            task = loop.create_task(self._send(request))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        while self._open:
            await asyncio.wait(self._open)
        reports.cancel()
        print(json.dumps(self._figures() | {"ended": True, "latencies_ms": self._latencies_ms}), flush=True)

    async def _send(self, request: Request) -> None:
        try:
            async with self._session.post(self._url + request.path, json=request.body) as response:
                await response.read()
                if response.status >= 300:
                    self._failures.append(f"{request.path}: status {response.status}")
                    return
        except (aiohttp.ClientError, TimeoutError) as error:
            self._failures.append(f"{request.path}: {type(error).__name__}")
            return
        if request.path == ORDERS:
            self._orders += 1
            if request.at_seconds >= self._warmup_seconds:
                seconds = asyncio.get_running_loop().time() - self._begun - request.at_seconds
                self._latencies_ms.append(round(seconds * 1000, 3))

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            print(json.dumps(self._figures()), flush=True)

    def _figures(self) -> dict[str, Any]:
        seconds = max(0.0, asyncio.get_running_loop().time() - self._begun)
        return {
            "seconds": round(seconds, 3),
            "orders": self._orders,
            "failed": len(self._failures),
            "failure": self._failures[0] if self._failures else None,
        } | summary(self._latencies_ms)


async def send(url: str, number: int, rate: float, seconds: float, warmup_seconds: float) -> None:
    """Run one load to its end."""
    plan = list(make_plan(number, rate, seconds))
    # A pause of ours would be counted as one of the backend's.
    gc.collect()
    gc.freeze()
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        await Load(session, url, warmup_seconds).run(plan)


if __name__ == "__main__":
    _, to, which, per_second, duration, warmup = sys.argv
    asyncio.run(send(to, int(which), float(per_second), float(duration), float(warmup)))
