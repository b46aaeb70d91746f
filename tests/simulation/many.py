"""
Many lives at once, and what they came to: `python -m simulation.many --seeds 100000`, in the folder of the tests.

A life that goes wrong is printed with its seed; `--seed N` lives it again.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from .sink import Violation
from .world import SOMETIMES, simulate

SHARE = 50
FAILED_MAX = 20


def live(seeds: range) -> tuple[Counter[str], list[str]]:
    """Live some lives; return what they came to, and what went wrong."""
    seen, failed = Counter[str](), list[str]()
    gc.disable()
    for seed in seeds:
        try:
            seen += simulate(seed)
        except Violation as violation:
            failed.append(str(violation))
    gc.enable()
    return seen, failed


def many(seeds: range) -> tuple[Counter[str], list[str]]:
    """Live many, as many at once as there are processors."""
    seen, failed = Counter[str](), list[str]()
    shares = [seeds[begin : begin + SHARE] for begin in range(0, len(seeds), SHARE)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for some, wrong in pool.map(live, shares):
            seen += some
            failed += wrong
            if len(failed) >= FAILED_MAX:
                pool.shutdown(cancel_futures=True)
                break
    return seen, failed


def main() -> int:
    """Live as many as asked for; 1 where one went wrong, or where not everything was explored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    asked = parser.parse_args()
    if asked.seed is not None:
        print(dict(simulate(asked.seed)))
        return 0
    begun = time.monotonic()
    seen, failed = many(range(asked.first, asked.first + asked.seeds))
    rate = asked.seeds / (time.monotonic() - begun)
    print(f"{asked.seeds} lives, {rate:.0f} a second, {len(failed)} went wrong")
    for line in failed:
        print(f"{line}\n    again: make simulate {line.partition(':')[0]}")
    print(", ".join(f"{name} {count}" for name, count in sorted(seen.items())))
    never = [name for name in SOMETIMES if not seen[name]]
    if never:
        print("never explored:", ", ".join(never))
    return 1 if failed or never else 0


if __name__ == "__main__":
    sys.exit(main())
