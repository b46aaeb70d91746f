"""
Many broken inputs at every door, and what they came to: `python -m fuzz.many --executions 10000000`, in this folder.

Nothing but the one error may come out, nothing may take HANG_SECONDS, and nothing may set aside more than twice what
came in. An input that does is printed with its seed; `--seed N` tries that share again.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from random import Random

from backend_watcher.decode.pgoutput import decode
from backend_watcher.decode.streams import BlockTaker
from backend_watcher.errors import ProtocolError
from backend_watcher.version import is_compiled

from .mutate import broken, shuffled
from .test_fuzz_pgoutput import CHUNKS, MESSAGES, SESSIONS, run, try_decode, try_expand, try_feed

SHARE = 20_000
FAILED_MAX = 20
HANG_SECONDS = 0.1
MEASURED_EACH = 500
ALLOWED_BYTES = 20_000
"""What a small object, an error and its text may take, whatever came in."""

IN_STREAM = [data for data, in_stream in MESSAGES if in_stream] or [data for data, _ in MESSAGES]


def to_decode(dice: Random) -> Callable[[], object]:
    data, in_stream = dice.choice(MESSAGES)
    data = broken(dice, data)
    in_stream ^= dice.randrange(8) == 0
    return lambda: try_decode(data, in_stream)


def to_feed(dice: Random) -> Callable[[], object]:
    data, sizes = run(shuffled(dice, dice.choice(SESSIONS)))
    if dice.randrange(6) == 0:
        sizes[dice.randrange(len(sizes))] += dice.choice([-30, -1, 1, 26, 1 << 20, 1 << 31])
    return lambda: try_feed(data, sizes)


def to_expand(dice: Random) -> Callable[[], object]:
    chunk = dice.choice(CHUNKS)
    tables, payload = {table.version: table for table in chunk.tables}, broken(dice, chunk.payload)
    return lambda: try_expand(payload, tables)


def to_take(dice: Random) -> Callable[[], object]:
    data, sizes = run([broken(dice, dice.choice(IN_STREAM)) or b"?" for _ in range(dice.randint(1, 4))])

    def take() -> None:
        taker = BlockTaker(700)
        with suppress(ProtocolError):
            taken = taker.take(data, sizes, 0)
            assert taken == len(sizes) or taker.ended

    return take


DOORS = (*[to_decode] * 14, *[to_take] * 4, to_feed, to_expand)


def share(seed: int, executions: int) -> tuple[Counter[str], list[str]]:
    """Try so many inputs; return what they came to, and what went wrong."""
    dice, seen, failed = Random(seed), Counter[str](), list[str]()
    gc.disable()
    for number in range(executions):
        door = dice.choice(DOORS)
        attempt = door(dice)
        begun = time.perf_counter()
        try:
            refused = attempt()
        except Exception as error:
            failed.append(f"seed {seed}, input {number}, {door.__name__}: {type(error).__name__}: {error}")
            continue
        if time.perf_counter() - begun > HANG_SECONDS and min(timed(attempt) for _ in range(3)) > HANG_SECONDS:
            failed.append(f"seed {seed}, input {number}, {door.__name__}: takes more than {HANG_SECONDS} s")
        seen[door.__name__] += 1
        seen["refused"] += refused is True
        if number % MEASURED_EACH == 0:
            data, in_stream = dice.choice(MESSAGES)
            data = broken(dice, data)
            over = set_aside(data, in_stream) - 2 * len(data) - ALLOWED_BYTES
            seen["measured"] += 1
            if over > 0:
                failed.append(f"seed {seed}, input {number}: sets aside {over} bytes too many for {len(data)}")
    gc.enable()
    return seen, failed


def timed(attempt: Callable[[], object]) -> float:
    begun = time.perf_counter()
    attempt()
    return time.perf_counter() - begun


def set_aside(data: bytes, in_stream: bool) -> int:
    """Return the most bytes that decoding holds at once."""
    tracemalloc.start()
    try:
        with suppress(ProtocolError):
            decode(data, in_stream=in_stream)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def main() -> int:
    """Try as many as asked for; 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=10_000_000)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first share")
    parser.add_argument("--seed", type=int, help="one share only")
    asked = parser.parse_args()
    shares = -(-asked.executions // SHARE)
    seeds = [asked.seed] if asked.seed is not None else list(range(asked.first, asked.first + shares))
    begun, seen, failed = time.monotonic(), Counter[str](), list[str]()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for some, wrong in pool.map(share, seeds, [SHARE] * len(seeds)):
            seen += some
            failed += wrong
            if len(failed) >= FAILED_MAX:
                pool.shutdown(cancel_futures=True)
                break
    tried = sum(count for name, count in seen.items() if name.startswith("to_"))
    form = "compiled" if is_compiled() else "pure Python"
    print(f"{tried} executions ({form}) in {time.monotonic() - begun:.0f} s: {dict(seen)}")
    print("\n".join(failed[:FAILED_MAX]) or "nothing else came out, nothing hung, nothing was set aside in vain")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
