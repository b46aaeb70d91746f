"""
What was delivered, held against what was committed: lost, phantoms, duplicates, order.

    verdict = judge(facts, read_seen(folder / "seen"))
    verdict.check()
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psycopg
import redis

from .ledger import Fact
from .results import Part
from .workload import ACCOUNTS, BALANCE, TABLES


class Seen(NamedTuple):
    """A line that a sink wrote down: by which process, what, and where in the order of commits."""

    pid: int
    fact: Fact
    position: tuple[int, int]


@dataclass(frozen=True)
class Verdict:
    """Counts; all but `committed`, `deliveries` and `duplicates` have to be 0."""

    committed: int
    deliveries: int
    lost: int
    phantoms: int
    duplicates: int
    order_violations: int

    def check(self, result: Part | None = None) -> None:
        """Fail unless everything is as it has to be; duplicates after a crash are allowed. Told to `result` first."""
        if result is not None:
            result.add(
                lost=self.lost,
                phantoms=self.phantoms,
                duplicates=self.duplicates,
                order_violations=self.order_violations,
                committed=self.committed,
            )
        assert (self.lost, self.phantoms, self.order_violations) == (0, 0, 0), self
        assert self.committed > 0, "nothing was committed: the scenario shows nothing"


def judge(facts: Sequence[Fact], seen: Sequence[Seen]) -> Verdict:
    """Hold deliveries against commits; both are complete, and `seen` is in the order it was seen."""
    first: dict[tuple[int, int], Seen] = {}
    newest: dict[tuple[int, str, int], tuple[int, int]] = {}
    order = 0
    for one in seen:
        first.setdefault(one.position, one)
        key = (one.pid, one.fact.table, one.fact.key)
        # One process sees the changes of a key in commit order; a batch that failed may come again whole.
        order += one.position < newest.get(key, (0, -1))
        newest[key] = max(one.position, newest.get(key, (0, -1)))
    delivered = Counter(one.fact for one in first.values())
    owed = Counter(facts)
    lost, phantoms = (owed - delivered).total(), (delivered - owed).total()
    if not lost and not phantoms:
        # The same changes: then the changes of each key stand in the order they were committed in.
        by_position = [first[position].fact for position in sorted(first)]
        order += sum(a != b for a, b in _pairs(facts, by_position))
    return Verdict(len(facts), len(seen), lost, phantoms, len(seen) - len(first), order)


def _pairs(facts: Sequence[Fact], delivered: Sequence[Fact]) -> list[tuple[Fact, Fact]]:
    left, right = defaultdict(list), defaultdict(list)
    for fact in facts:
        left[fact.table, fact.key].append(fact)
    for fact in delivered:
        right[fact.table, fact.key].append(fact)
    return [pair for key, own in left.items() for pair in zip(own, right[key], strict=True)]


def read_seen(path: Path) -> list[Seen]:
    """Read what the handler of `program.py` wrote down."""
    found = []
    for line in _whole_lines(path):
        pid, table, operation, key, version, balance, event_id = line.split()
        fact = Fact(table, operation, int(key), int(version), int(balance))
        found.append(Seen(int(pid), fact, position_of(event_id)))
    return found


def read_lines(path: Path) -> list[Seen]:
    """Read what its file sink wrote: JSON, and no process id."""
    found = []
    for line in _whole_lines(path):
        try:
            told = json.loads(line)
        except ValueError:
            continue  # cut short by a kill, and delivered again after it
        row = told["new"] or {}
        fact = Fact(told["table"], told["operation"], told["key"]["id"], row.get("version", -1), row.get("balance", 0))
        found.append(Seen(0, fact, position_of(told["event_id"])))
    return found


def without_repeats(seen: Sequence[Seen]) -> list[Seen]:
    """Return the first delivery of each change: for a log that does not tell one process from the next."""
    first: dict[tuple[int, int], Seen] = {}
    for one in seen:
        first.setdefault(one.position, one)
    return list(first.values())


def _whole_lines(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1] if path.exists() else []


def position_of(event_id: str) -> tuple[int, int]:
    """Return where an event stands in the order of commits."""
    _, _, lsn, ordinal = event_id.split(":")
    high, low = lsn.split("/")
    return (int(high, 16) << 32) | int(low, 16), int(ordinal)


def distinct(path: Path) -> int:
    """How many different changes the handler has seen."""
    return len({line.rpartition(" ")[2] for line in _whole_lines(path)})


def cache_differences(connection: psycopg.Connection, url: str, tables: Sequence[str] = TABLES) -> int:
    """How many rows of the cache differ from the source; only rows that changed since the start are expected in it."""
    different = 0
    with redis.Redis.from_url(url) as client:
        for table in tables:
            keys = sorted(client.scan_iter(f"{table}:*", count=1000))
            values = client.mget(keys) if keys else []
            # A key may be deleted between the two looks.
            found = [(key, value) for key, value in zip(keys, values, strict=True) if value is not None]
            cached = {int(key.decode().partition(":")[2]): json.loads(value) for key, value in found}
            rows = connection.execute(f"SELECT id, to_jsonb(t) FROM {table} t").fetchall()
            source = {key: row for key, row in rows if table == "items" or row["version"] > 0}
            different += sum(source.get(key) != cached.get(key) for key in source.keys() | cached.keys())
    return different


def broken_sums(seen: Sequence[Seen]) -> int:
    """At how many commits the bank's money, as a sink saw it, was not all there. Transactions are taken whole."""
    balances = {(table, key): BALANCE for table in TABLES[1:] for key in range(1, ACCOUNTS + 1)}
    total, broken = sum(balances.values()), 0
    first = {one.position: one.fact for one in seen if one.fact.table in TABLES[1:]}
    positions = sorted(first)
    for at, position in enumerate(positions):
        fact = first[position]
        total += fact.balance - balances[fact.table, fact.key]
        balances[fact.table, fact.key] = fact.balance
        ends = at + 1 == len(positions) or positions[at + 1][0] != position[0]
        broken += ends and total != 2 * ACCOUNTS * BALANCE
    return broken
