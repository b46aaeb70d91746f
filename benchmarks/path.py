"""One path in a process of its own: prints seconds, CPU seconds and peak memory as one JSON line."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from backlog import PUBLICATION

from backend_watcher import Change, Watcher
from backend_watcher.decode.assemble import Assembler
from backend_watcher.decode.chunks import expand
from backend_watcher.decode.tables import make_table
from backend_watcher.events.position import START
from backend_watcher.events.transaction import Stream
from backend_watcher.postgres.replication import ReplicationStream
from backend_watcher.service.config import load_config
from backend_watcher.service.supervise import supervise
from backend_watcher.sinks import RedisCache

RECEIVE_BYTES = 256 * 1024


class Count:
    """Counts changes and remembers when the last expected one came."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.seen = 0
        self.ended = 0.0

    def add(self, changes: int) -> None:
        self.seen += changes
        if self.seen == self.expected:
            self.ended = time.perf_counter()
            os.kill(os.getpid(), signal.SIGTERM)


def handler(watcher: Watcher, count: Count, redis: str) -> None:
    # Counting by hand keeps the function as small as one that does nothing.
    expected = count.expected
    seen = 0

    @watcher.on("items")
    async def handle(change: Change) -> None:
        nonlocal seen
        seen += 1
        if seen == expected:
            count.add(expected)


def handler_batch(watcher: Watcher, count: Count, redis: str) -> None:
    @watcher.on("items", batch=1000)
    async def handle(changes: Sequence[Change]) -> None:
        count.add(len(changes))


def redis_cache(watcher: Watcher, count: Count, redis: str) -> None:
    class Counted(RedisCache):
        async def write(self, batch):
            receipt = await super().write(batch)
            count.add(len(batch))
            return receipt

    watcher.to(Counted(key="item:{id}", url=redis), table="items", name="cache")


PATHS = {"handler": handler, "handler_batch": handler_batch, "redis_cache": redis_cache}


async def decode_only(dsn: str, slot: str, expected: int) -> float:
    """Receive and decode everything, keep nothing."""
    stream = ReplicationStream(dsn)
    await stream.open()
    await stream.start(slot, 0, PUBLICATION)
    assembler, tables, seen = Assembler(START), {}, 0
    while seen < expected:
        await stream.wait()
        received = stream.receive(RECEIVE_BYTES)
        taken = assembler.feed(received.data, received.sizes)
        while taken < len(received.sizes):
            wanted = assembler.wants
            columns = [(c.name, c.type_oid, c.modifier, c.identity) for c in wanted.columns]
            table = make_table(wanted.relation_oid, wanted.schema, wanted.name, "d", columns, ("id",))
            tables[table.version] = table
            assembler.define(table)
            taken = assembler.feed(received.data, received.sizes, taken)
        chunk = assembler.take()
        if chunk is not None:
            seen += len(expand(chunk.payload, tables, Stream("bench", slot)))
        await asyncio.sleep(0.0005)  # as capture paces itself: fewer, fuller reads
    ended = time.perf_counter()
    await stream.close()
    return ended


async def run(path: str, dsn: str, slot: str, expected: int, redis: str) -> tuple[float, float]:
    begun = time.perf_counter()
    if path == "decode":
        return begun, await decode_only(dsn, slot, expected)
    with tempfile.TemporaryDirectory() as folder:
        watcher, count = Watcher("bench", dsn=dsn), Count(expected)
        PATHS[path](watcher, count, redis)
        environ = {
            "WATCHER_SOURCE__SLOT": slot,
            "WATCHER_SOURCE__PUBLICATION": PUBLICATION,
            "WATCHER_JOURNAL__PATH": str(Path(folder) / "bench.journal"),
        }
        config = load_config(None, environ, watcher=watcher)
        begun = time.perf_counter()
        await supervise(config, watcher, adopt_slot=True)
        return begun, count.ended


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path", choices=["decode", *PATHS])
    for name in ("--dsn", "--slot", "--redis"):
        parser.add_argument(name, default="")
    parser.add_argument("--expected", type=int, required=True)
    options = parser.parse_args()
    begun, ended = asyncio.run(run(options.path, options.dsn, options.slot, options.expected, options.redis))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "seconds": ended - begun,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_mb": usage.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024),
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
