"""Verifying as people ask for it: which subscriptions can be, and one report of all, whatever happens in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from backend_watcher.delivery.subscription import Start, Subscription
from backend_watcher.errors import ConfigError, ExitCode, WatcherError, in_one_line
from backend_watcher.events.message import FULL_NAME as MESSAGES
from backend_watcher.journal.view import SqliteJournalView
from backend_watcher.reconcile.compare import Kind
from backend_watcher.reconcile.follow import STALL_SECONDS_MAX, Follower
from backend_watcher.reconcile.page import page
from backend_watcher.reconcile.report import Answer, TableResult, answer_of
from backend_watcher.reconcile.verify import CHUNK_ROWS, Verification
from backend_watcher.service.config import Config
from backend_watcher.service.control import open_journal
from backend_watcher.service.declared import wanted_of
from backend_watcher.service.sources import reading_source
from backend_watcher.service.subscribed import full_name, subscription_of
from backend_watcher.service.watcher import Watcher
from backend_watcher.verifiable import Verifiable

EXIT_CODES = {
    Answer.EQUAL: ExitCode.CLEAN,
    Answer.DIFFERENT: ExitCode.DRIFT,
    Answer.UNSETTLED: ExitCode.TEMPORARY,
    Answer.PARTIAL: ExitCode.TEMPORARY,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be verified: all that can be, or one subscription, or one table of it."""

    subscription: str | None = None
    table: str | None = None
    where: str | None = None
    rows_per_second_max: float | None = None
    stall_seconds_max: float = STALL_SECONDS_MAX
    chunk_rows: int = CHUNK_ROWS


@dataclass(slots=True)
class Proof:
    """What was found. `left_out` says why a subscription was not verified; times in seconds since 1970."""

    watcher: str
    begun_at: float
    ended_at: float = 0.0
    results: list[TableResult] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    error: WatcherError | None = None

    @property
    def answer(self) -> Answer:
        """What is known of all."""
        found = answer_of(self.results)
        cut_short = self.interrupted or self.error is not None
        return Answer.PARTIAL if cut_short and found is not Answer.DIFFERENT else found

    @property
    def exit_code(self) -> int:
        """What the shell is told: 5 for drift, whatever else happened; then why it could not go on."""
        if self.answer is not Answer.DIFFERENT and self.error is not None:
            return self.error.exit_code
        return EXIT_CODES[self.answer]

    def as_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "watcher": self.watcher,
            "verdict": str(self.answer),
            "begun_at": self.begun_at,
            "ended_at": self.ended_at,
            "interrupted": self.interrupted,
            "error": in_one_line(self.error) if self.error is not None else None,
            "tables": [one.as_plain() for one in self.results],
            "left_out": self.left_out,
            "exit_code": self.exit_code,
        }


def page_of(proof: Proof) -> str:
    """Return the report as one HTML file."""
    begun, ended = (
        f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC" for at in (proof.begun_at, proof.ended_at)
    )
    return page(proof.as_plain(), begun, ended)


async def verify(config: Config, watcher: Watcher | None, asked: Asked) -> Proof:
    """
    Compare sinks with the source. Cancelled, it returns what was found so far, and so where it cannot go on.

    Raises ConfigError where what is asked for cannot be verified at all, JournalError where there is no journal.
    """
    proof = Proof(config.name, time.time())
    chosen = _choose(config, watcher, asked, proof)
    with open_journal(config) as view:
        try:
            for subscription, tables in chosen:
                try:
                    await _one(config, view, subscription, tables, asked, proof)
                except ConfigError as error:
                    if len(chosen) == 1:
                        raise
                    proof.left_out[subscription.name] = error.message
        except asyncio.CancelledError:
            # A person is told what is known by then.
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            proof.interrupted = True
        except ConfigError:
            raise
        except WatcherError as error:
            proof.error = error
    proof.ended_at = time.time()
    return proof


def _choose(
    config: Config, watcher: Watcher | None, asked: Asked, proof: Proof
) -> list[tuple[Subscription, Sequence[str]]]:
    """Return the subscriptions to verify, each with its tables."""
    if asked.rows_per_second_max is not None and asked.rows_per_second_max <= 0:
        raise ConfigError(["the rate must be above 0 rows a second"])
    every = {one.name: subscription_of(one, watcher) for one in wanted_of(config, watcher)}
    if asked.subscription is not None and asked.subscription not in every:
        there = ", ".join(sorted(every))
        raise ConfigError([f"subscription {asked.subscription!r} is unknown; there are: {there}"])
    chosen: list[tuple[Subscription, Sequence[str]]] = []
    for name, one in every.items():
        if asked.subscription not in (None, name):
            continue
        tables = sorted(one.route.tables - {MESSAGES})
        if asked.table is not None:
            tables = [table for table in tables if table == full_name(asked.table)]
        reason = _why_not(one, tables)
        if reason:
            proof.left_out[name] = reason
        else:
            chosen.append((one, tables))
    if not chosen:
        raise ConfigError(
            [f"subscription {name!r} cannot be verified: {reason}" for name, reason in proof.left_out.items()]
            or ["there is no subscription"],
            remedy="Redis caches and PostgreSQL replicas of whole tables can be verified.",
        )
    return chosen


def _why_not(subscription: Subscription, tables: Sequence[str]) -> str:
    """Say why a subscription cannot be verified, "" where it can."""
    if not isinstance(subscription.sink, Verifiable):
        return f"a sink of the kind {subscription.sink.describe().get('kind')!s} cannot be read back"
    if not tables:
        return "it does not listen to that table"
    for table in tables:
        if not subscription.route.rules[table].takes_all:
            return f"of {table} it takes some operations only, so what it should hold cannot be said"
    return ""


async def _one(
    config: Config,
    view: SqliteJournalView,
    subscription: Subscription,
    tables: Sequence[str],
    asked: Asked,
    proof: Proof,
) -> None:
    sink = subscription.sink
    assert isinstance(sink, Verifiable)
    source = reading_source(config.source)
    follower = Follower(view, subscription.name, asked.stall_seconds_max)
    verification = Verification(
        subscription.name,
        source,
        sink,
        subscription.passed,
        follower,
        where=asked.where,
        rows_per_second_max=asked.rows_per_second_max,
        chunk_rows=asked.chunk_rows,
        as_they_are=[table for table in tables if subscription.leaves_as_they_are(table)],
    )
    try:
        await sink.open_to_read()
        await verification.run(tables, subscription.route.tables - {MESSAGES, *tables})
        for one in verification.results:
            if one.count(Kind.MISSING) and subscription.options.start is Start.NOW:
                one.notes.append("rows from before the subscription began are missing until `watcher backfill start`")
    finally:
        proof.results += verification.results
        proof.left_out |= {f"{subscription.name} {name}": reason for name, reason in verification.left_out.items()}
        await source.close()
        await sink.close()
