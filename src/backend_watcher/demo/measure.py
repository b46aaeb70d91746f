"""
How long a commit takes to be seen: in the cache, and in a handler. All clocks are those of this machine.

*Commit → cache*: PostgreSQL keeps the time of each order's commit (`track_commit_timestamp`). Valkey tells a process
of ours when it writes a key (keyspace notifications), and that process notes the time it heard of it, which is a
little after the entry could be read. Nothing is polled, and every order counts, not a sample.

*Commit → handler*: the shop notes, at the beginning of the call, the change's `commit_time` and its own time.

Changes that had to wait because the watcher was killed are not in the percentiles, they are a figure of their own:
the time from SIGKILL until the new watcher has caught up.

    python -m backend_watcher.demo.measure CACHE_URL FILE
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg import Connection

CHANNEL = "__keyspace@0__:order:"

COMMIT_TIMES = "SELECT id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM orders"


@dataclass(frozen=True, slots=True)
class Seen:
    """A change: when it was committed and when it was seen, in seconds since 1970."""

    committed: float
    seen: float


@dataclass(frozen=True, slots=True)
class Delays:
    """Delays in milliseconds while the watcher ran, and how long after SIGKILL a new one had caught up."""

    values_ms: list[float]
    outage_ms: float | None


def delays(seen: Iterable[Seen], killed_at: float | None) -> Delays:
    """Separate what was delivered as usual from what had to wait for a new watcher."""
    found = list(seen)
    if killed_at is None:
        return Delays([_delay_ms(one) for one in found], None)
    # The first delivery of the new watcher; it has caught up when it delivers what was committed after that.
    resumed_at = min((one.seen for one in found if one.seen > killed_at), default=math.inf)
    if resumed_at == math.inf:
        return Delays([_delay_ms(one) for one in found], None)
    # In a short run nothing may be: then it is when it delivers the last of what waited.
    last = max(one.seen for one in found)
    caught_up_at = min((one.seen for one in found if one.committed > resumed_at), default=last)
    usual = [_delay_ms(one) for one in found if one.seen <= killed_at or one.committed > caught_up_at]
    return Delays(usual, round((caught_up_at - killed_at) * 1000, 1))


def cache_times(path: Path, connection: Connection[tuple[int, float]]) -> list[Seen]:
    """Return every order that came into the cache, with the time it was first written there."""
    first: dict[int, float] = {}
    for line in path.read_text().splitlines():
        number, at = line.split()
        first.setdefault(int(number), float(at))
    committed = dict(connection.execute(COMMIT_TIMES).fetchall())
    return [Seen(committed[number], at) for number, at in first.items() if number in committed]


def handler_times(path: Path, handler: str) -> list[Seen]:
    """Return what a handler of the shop noted."""
    lines = [line.split() for line in path.read_text().splitlines()]
    return [Seen(float(line[1]), float(line[2])) for line in lines if len(line) == 3 and line[0] == handler]


def listen(cache_url: str, path: str) -> None:
    """Note each order that is written to the cache, until the process is ended. The first line printed says: ready."""
    import redis

    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with redis.Redis.from_url(cache_url) as client, client.pubsub() as messages:
        messages.psubscribe(CHANNEL + "*")
        for message in messages.listen():
            now = time.time()
            if message["type"] == "psubscribe":
                print("{}", flush=True)
            elif message["type"] == "pmessage":
                order = message["channel"].decode().removeprefix(CHANNEL)
                os.write(descriptor, f"{order} {now:.6f}\n".encode())


def _delay_ms(one: Seen) -> float:
    return (one.seen - one.committed) * 1000


if __name__ == "__main__":
    listen(sys.argv[1], sys.argv[2])
