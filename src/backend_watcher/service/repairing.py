"""
Repairing as people ask for it: what would be done about what was found, the requests, and the proof that it was done.

The process that has the journal reads the rows and puts them into the stream. Here it is only asked to, followed, and
checked: afterwards the same entries are verified once more.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend_watcher.capture.backfill_jobs import Backfill, BackfillState
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.errors import CannotVerify, ConfigError, ExitCode, WatcherError
from backend_watcher.reconcile.compare import Difference, Kind
from backend_watcher.reconcile.extras import keys_of_extras
from backend_watcher.reconcile.follow import STALL_SECONDS_MAX, Follower
from backend_watcher.reconcile.plan import Suspect
from backend_watcher.reconcile.repair import Key, Plan, plan, portions, to_be_found
from backend_watcher.reconcile.report import Begun, TableResult
from backend_watcher.reconcile.some import SomeEntries
from backend_watcher.reconcile.source import Source
from backend_watcher.service.backfilling import backfills
from backend_watcher.service.config import Config
from backend_watcher.service.control import open_journal
from backend_watcher.service.declared import wanted_of
from backend_watcher.service.operate import operate, who
from backend_watcher.service.sources import reading_source
from backend_watcher.service.steering import REPAIR, Request
from backend_watcher.service.subscribed import subscription_of
from backend_watcher.service.verifying import Proof
from backend_watcher.service.watcher import Watcher
from backend_watcher.verifiable import Verifiable

__all__ = ["Plan", "Repaired", "failures", "read_proof", "repair", "what_to_do"]

LOOK_SECONDS = 0.2


@dataclass(slots=True)
class Repaired:
    """What was found before, what was to be done about it, and, where it was done, what is found now."""

    before: Proof
    plans: Sequence[Plan]
    jobs: Sequence[Backfill] = ()
    after: Proof | None = None

    @property
    def exit_code(self) -> int:
        """What the shell is told: 0 where all is known to be equal now, 5 where something still differs."""
        if self.after is None:
            return self.before.exit_code
        if self.after.exit_code != ExitCode.CLEAN:
            return self.after.exit_code
        # What was not known before is not known now: only what differed was looked at again.
        before = self.before
        known = before.error is None and not before.interrupted
        known = known and all(one.complete and not one.unsettled for one in before.results)
        return ExitCode.CLEAN if known else ExitCode.TEMPORARY

    def as_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "watcher": self.before.watcher,
            "repaired": self.after is not None,
            "plans": [_plain(one) for one in self.plans],
            "jobs": [{"number": one.number, "state": str(one.state), "detail": one.detail} for one in self.jobs],
            "before": self.before.as_plain(),
            "after": self.after.as_plain() if self.after is not None else None,
            "exit_code": self.exit_code,
        }


def _plain(one: Plan) -> dict[str, Any]:
    return {
        "subscription": one.subscription,
        "table": one.table,
        "read_again": len(one.rewrite),
        "removed": len(one.remove),
        "entries": [mended.difference.name.decode("utf-8", "replace") for mended in one.mended],
        "cannot": [[of.name.decode("utf-8", "replace"), why] for of, why in one.cannot],
    }


# What is to be done


async def what_to_do(config: Config, watcher: Watcher | None, proof: Proof) -> list[Plan]:
    """Return what is to be done about each table that differs. Raises ConfigError, SourceError, SinkError."""
    plans: list[Plan] = []
    for subscription in _subscriptions(config, watcher, {one.subscription for one in proof.results}):
        different = [one for one in proof.results if one.subscription == subscription.name and one.differences]
        if not different:
            continue
        async with _sides(config, subscription) as (source, sink):
            for one in different:
                table = await source.table(one.table)
                names = to_be_found(one.differences)
                by_name = await keys_of_extras(source, table, sink, subscription.passed, names)
                plans.append(plan(subscription.name, one.table, one.differences, by_name))
    return plans


def _subscriptions(config: Config, watcher: Watcher | None, names: set[str]) -> list[Subscription]:
    every = {one.name: subscription_of(one, watcher) for one in wanted_of(config, watcher)}
    if strange := sorted(names - every.keys()):
        there = ", ".join(sorted(every))
        raise ConfigError([f"subscription {name!r} is unknown; there are: {there}" for name in strange])
    return [one for name, one in every.items() if name in names]


@asynccontextmanager
async def _sides(config: Config, subscription: Subscription) -> AsyncIterator[tuple[Source, Verifiable]]:
    sink = subscription.sink
    if not isinstance(sink, Verifiable):
        raise ConfigError([f"subscription {subscription.name!r} cannot be verified"])
    source = reading_source(config.source)
    try:
        await sink.open_to_read()
        yield source, sink
    finally:
        await source.close()
        await sink.close()


def read_proof(path: Path, name: str) -> Proof:
    """Read what `watcher verify --json` has printed for the watcher of that name. Raises ConfigError."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["watcher"] != name:
            raise ConfigError([f"--from: {path} is of watcher {plain['watcher']!r}, and not of {name!r}"])
        proof = Proof(name, float(plain["begun_at"]), float(plain["ended_at"]), interrupted=bool(plain["interrupted"]))
        proof.results = [_read_table(one) for one in plain["tables"]]
        if plain["error"]:
            proof.interrupted = True
    except OSError as error:
        raise ConfigError([f"--from: {path} cannot be read: {error.strerror}"]) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError([f"--from: {path} is not what `watcher verify --json` prints"]) from None
    return proof


def _read_table(plain: dict[str, Any]) -> TableResult:
    result = TableResult(str(plain["subscription"]), str(plain["table"]), complete=bool(plain["complete"]))
    result.begun = Begun.of_plain(plain["begun"]) if plain["begun"] is not None else None
    result.unsettled = Counter({str(reason): int(count) for reason, count in plain["unsettled"].items()})
    for one in plain["differences"]:
        name, keys = str(one["entry"]), tuple(tuple(map(str, key)) for key in one["keys"])
        if "\ufffd" in name:
            # What is no UTF-8 was not written as it is: which entry it is cannot be said any more.
            result.complete = False
            continue
        result.differences.append(Difference(name.encode(), Kind(one["kind"]), None, None, keys))
    return result


# Doing it


async def repair(
    config: Config,
    watcher: Watcher | None,
    before: Proof,
    plans: Sequence[Plan],
    *,
    reason: str = "",
    stall_seconds_max: float = STALL_SECONDS_MAX,
    tell: Callable[[str], object] = lambda said: None,
) -> Repaired:
    """
    Have it done, wait until it is, and verify the same entries again. `tell` is told what was asked for.

    Where that cannot be waited for it is in `after`. Raises ConfigError, JournalError where it is not even asked for.
    """
    for name, table, keys, removes in _requests(plans):
        request = Request(
            operation=REPAIR,
            subscription=name,
            by=who(),
            reason=reason,
            table=table,
            keys=[list(key) for key in keys],
            removes=removes,
        )
        tell(await operate(config, watcher, request))
    done = Repaired(before, plans)
    done.after = after = Proof(config.name, time.time())
    try:
        done.jobs = await _ended(config, plans, stall_seconds_max)
        for subscription in _subscriptions(config, watcher, {one.subscription for one in plans}):
            theirs = [one for one in plans if one.subscription == subscription.name]
            await _verify(config, subscription, theirs, before, after, stall_seconds_max)
    except WatcherError as error:
        after.error = error
    after.ended_at = time.time()
    return done


def _requests(plans: Sequence[Plan]) -> Iterator[tuple[str, str, tuple[Key, ...], bool]]:
    for one in plans:
        for keys, removes in ((one.rewrite, False), (one.remove, True)):
            for portion in portions(keys):
                yield one.subscription, one.table, portion, removes


async def _ended(config: Config, plans: Sequence[Plan], stall_seconds_max: float) -> list[Backfill]:
    """Return what was asked for when all of it has ended. Raises CannotVerify where nothing moves."""
    asked = {_subject(*request) for request in _requests(plans)}
    moved = time.monotonic()
    seen: object = None
    while True:
        newest = {_subject_of(job): job for job in backfills(config) if job.repair}
        jobs = [job for subject, job in newest.items() if subject in asked]
        if not any(job.is_open for job in jobs):
            return jobs
        # Reading again and again is no progress.
        stand = [(job.number, job.state, job.chunks) for job in jobs]
        if stand != seen:
            seen, moved = stand, time.monotonic()
        if time.monotonic() - moved > stall_seconds_max:
            job = next(job for job in jobs if job.is_open)
            raise CannotVerify(
                f"repair {job.number} of {job.table} is {job.state}{f', {job.detail}' if job.detail else ''}: "
                f"nothing has moved for {stall_seconds_max:g} s",
                remedy="It is done as soon as the watcher runs: `watcher backfill list` shows it; then verify again.",
            )
        await asyncio.sleep(LOOK_SECONDS)


def _subject(subscription: str, table: str, keys: tuple[Key, ...], removes: bool) -> tuple[object, ...]:
    return table, (subscription,), keys, removes


def _subject_of(job: Backfill) -> tuple[object, ...]:
    return job.table, job.subscriptions, job.keys, job.removes


async def _verify(
    config: Config,
    subscription: Subscription,
    plans: Sequence[Plan],
    before: Proof,
    after: Proof,
    stall_seconds_max: float,
) -> None:
    """Verify the entries that differed, those too that nothing could be done about."""
    begun = {(one.subscription, one.table): one.begun for one in before.results}
    async with _sides(config, subscription) as (source, sink):
        with open_journal(config) as view:
            follower = Follower(view, subscription.name, stall_seconds_max)
            verification = SomeEntries(subscription.name, source, sink, subscription.passed, follower)
            try:
                for one in plans:
                    suspects = [Suspect(of.difference.name, set(of.keys)) for of in one.mended]
                    suspects += [Suspect(of.name, set(of.keys)) for of, _ in one.cannot]
                    await verification.look(one.table, suspects, begun.get((one.subscription, one.table)))
            finally:
                after.results += verification.results


def failures(done: Repaired) -> list[str]:
    """Say which of what was asked for has failed, and why."""
    return [
        f"repair {job.number} of {job.table} is {job.state}: {job.detail}"
        for job in done.jobs
        if job.state is not BackfillState.DONE
    ]
