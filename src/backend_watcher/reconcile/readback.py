"""
Reads back what a subscription delivers: takes what was chosen, looks at what is due, and counts what it sees.

The tap is called where changes are delivered, in their thread, once a batch. All else happens where `tick` is awaited,
with a sink that only reads, so that nothing which is slow or away here is felt there.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from backend_watcher.errors import SinkRejected
from backend_watcher.events.change import READ, TRUNCATE, Change
from backend_watcher.events.position import Position
from backend_watcher.events.row import UNCHANGED, Row
from backend_watcher.events.transaction import POSTGRES_EPOCH
from backend_watcher.reconcile.sampling import (
    LOOKS_SECONDS,
    NOTHING,
    Entry,
    Sample,
    Sampler,
    Seen,
    Waiting,
    digest_of,
    entry_of,
)
from backend_watcher.reconcile.share import Shares
from backend_watcher.verifiable import Dated, ProofObserver, Verifiable

TICK_SECONDS = 1.0
"""How often is looked: what became due since goes in one read, so a subscription costs its sink one a second."""

SUSPECTS_MAX = 200
"""Samples that wait to be looked at more closely; with more of them the oldest is forgotten."""

_EPOCH_SECONDS = POSTGRES_EPOCH.timestamp()


class Chosen(NamedTuple):
    """A change that is to be looked at; `committed` and `written` are monotonic seconds."""

    change: Change
    committed: float
    written: float


class Tap:
    """
    Chooses from the batches that a sink took. Called in the thread that delivers; `take` in another.

    A row that a backfill read, and a change that is replayed, is not chosen: it was committed long ago.
    """

    def __init__(
        self, per_second: float, *, now: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._now = now
        self._wall = wall
        self._sampler = Sampler(per_second, now())
        # A change holds on to the block it came in: no more of them than two ticks bring.
        self._chosen: deque[Chosen] = deque(maxlen=max(1, math.ceil(2 * TICK_SECONDS * per_second)))

    def __call__(self, changes: Sequence[Change]) -> None:
        """Choose from a batch."""
        now = self._now()
        if now < self._sampler.next_at:
            return
        for place in self._sampler.choose(len(changes), now):
            change = changes[place]
            if change.code == READ or change.code == TRUNCATE or change.replayed:
                continue
            age = self._wall() - _EPOCH_SECONDS - change.transaction.commit_micros / 1e6
            self._chosen.append(Chosen(change, now - max(age, 0.0), now))

    def take(self) -> list[Chosen]:
        """Take out what was chosen."""
        return [self._chosen.popleft() for _ in range(len(self._chosen))]

    def put_back(self, chosen: Sequence[Chosen]) -> None:
        """Take back what could not be used yet, as far as there is room."""
        self._chosen.extendleft(reversed(chosen))


class ReadBack:
    """
    What is sampled of one subscription, and how it was seen.

    `suspects` are samples of which neither the value nor a newer one was there at the last look.
    """

    def __init__(
        self,
        subscription: str,
        sink: Verifiable,
        tap: Tap,
        observer: ProofObserver,
        *,
        looks_seconds: Sequence[float] = LOOKS_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._subscription = subscription
        self._sink = sink
        self._tap = tap
        self._observer = observer
        self._now = now
        self._looks_seconds = tuple(looks_seconds)
        self._waiting = Waiting(looks_seconds)
        self._seen: dict[int, list[Seen]] = {}
        self._is_open = False
        self.shares = Shares(looks_seconds)
        self.suspects: deque[Sample] = deque(maxlen=SUSPECTS_MAX)

    async def tick(self) -> None:
        """Take what was chosen, look at what is due. Raises SinkError: what it had before it still has then."""
        await self._take()
        due = self._waiting.due(self._now())
        try:
            if due:
                await self.open()
            entries = await self._entries(due)
        except BaseException:
            self._waiting.put_back(due)
            raise
        for sample in due:
            look = sample.look
            seen, suspect = self._waiting.looked(sample, entries[id(sample)])
            self._seen.setdefault(look, []).append(seen)
            if suspect:
                self.suspects.append(sample)
        self._count()

    async def _take(self) -> None:
        chosen = self._tap.take()
        try:
            if chosen:
                await self.open()
            samples = await self._samples(chosen)
        except BaseException:
            self._tap.put_back(chosen)
            raise
        for sample in samples:
            for look in self._waiting.add(sample):
                self._seen.setdefault(look, []).append(Seen.MISSED)

    async def open(self) -> None:
        """Connect, unless that is done. Raises SinkError."""
        if not self._is_open:
            await self._sink.open_to_read()
            self._is_open = True

    async def close(self) -> None:
        """Let go; `tick` connects again."""
        self._is_open = False
        await self._sink.close()

    def _count(self) -> None:
        now = self._now()
        for look, seen in self._seen.items():
            for one in seen:
                self.shares.add(look, one, now)
            known = seen.count(Seen.VISIBLE), seen.count(Seen.MISSED)
            self._observer.read_back(self._subscription, self._looks_seconds[look], *known)
        self._seen.clear()

    async def _samples(self, chosen: Iterable[Chosen]) -> list[Sample]:
        """Say what each change should have made of its entry; those of which that is not known are left out."""
        tables: dict[int, list[Chosen]] = {}
        for one in chosen:
            tables.setdefault(id(one.change.table), []).append(one)
        samples = []
        for several in tables.values():
            there = [one for one in several if one.change.new is not None and not _is_part(one.change)]
            entries = await self._sink.entries([one.change for one in there]) if there else ()
            for one, entry in zip(there, entries, strict=True):
                if not isinstance(entry, SinkRejected):
                    samples.append(_sample(one, entry[0], digest_of(entry[1])))
            gone = [(one, self._name_of(one.change)) for one in several if one.change.new is None]
            samples += [_sample(one, name, NOTHING) for one, name in gone if name is not None]
        return samples

    def _name_of(self, change: Change) -> bytes | None:
        try:
            return next(iter(self._sink.touches(change)), None)
        except SinkRejected:
            return None

    async def _entries(self, samples: Sequence[Sample]) -> dict[int, Entry]:
        """Look at samples; return how the entry of each stands, by the sample's id."""
        tables: dict[str, list[Sample]] = {}
        for sample in samples:
            tables.setdefault(sample.table.full_name, []).append(sample)
        found: dict[int, Entry] = {}
        for several in tables.values():
            table = several[-1].table
            names = list(dict.fromkeys(sample.name for sample in several))
            held = dict(zip(names, await self._sink.held(table, names), strict=True))
            for sample in several:
                found[id(sample)] = entry_of(sample, held[sample.name], False, None)
            others = [sample for sample in several if found[id(sample)] is Entry.OTHER]
            # After the entries: a place that is read before might be older than what is then found.
            places = await self._places(others)
            if places is not None:
                for sample in others:
                    found[id(sample)] = entry_of(sample, held[sample.name], True, places[sample.name])
        return found

    async def _places(self, samples: Sequence[Sample]) -> Mapping[bytes, Position | None] | None:
        if not samples or not isinstance(self._sink, Dated):
            return None
        names = list(dict.fromkeys(sample.name for sample in samples))
        places = await self._sink.written_by(samples[-1].table, names)
        return None if places is None else dict(zip(names, places, strict=True))


def _is_part(change: Change) -> bool:
    """Say whether some of a row was not sent again: what stands in the entry is not known from the change alone."""
    return change.new is not None and any(change.new.raw(name) is UNCHANGED for name in change.new)


def _sample(one: Chosen, name: bytes, digest: bytes) -> Sample:
    change = one.change
    return Sample(
        name,
        digest,
        change.table,
        change.position,
        one.committed,
        one.written,
        change.key_bytes(),
        _found_by(change),
    )


def _found_by(change: Change) -> dict[str, str]:
    """Return what the source's row is found by, whatever a transform made of it."""
    new, old, key_only = change.tuples()
    table = change.table
    row = Row(table, new or old, 0, key_only and not new)
    wanted = set(table.primary_key)
    if table.replica_identity != "f":
        wanted |= {column.name for column in table.columns if column.identity}
    found = {}
    for name in wanted:
        cell = row.raw(name)
        if isinstance(cell, bytes) and not row.is_binary_at(table.index_of[name]):
            with contextlib.suppress(UnicodeDecodeError):
                found[name] = cell.decode()
    return found
