"""Backfills as people ask for them: which tables, for whom, and what becomes of one that is under way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from backend_watcher.capture.backfill_jobs import (
    Backfill,
    BackfillState,
    add_backfills,
    all_backfills,
    load_backfills,
    obey,
    wish,
)
from backend_watcher.contracts import Journal
from backend_watcher.delivery.subscription import Start, Subscription
from backend_watcher.errors import ConfigError
from backend_watcher.events.message import FULL_NAME as MESSAGES
from backend_watcher.service.config import Config, SourceConfig
from backend_watcher.service.subscribed import full_name

__all__ = [
    "Backfill",
    "ask",
    "ask_repair",
    "backfills",
    "begin_with_rows",
    "begins_with_rows",
    "progress",
    "refuse_rows",
    "steer_backfill",
]

KEYS_MAX = 1000
"""How many keys one backfill may name; with more, a condition is what is wanted."""


def refuse_rows(source: SourceConfig, tables: Iterable[str]) -> None:
    """Raise ConfigError where rows of these tables cannot be read of such a source while changes go on."""
    if source.kind == "notify":
        raise ConfigError(["source.kind is 'notify': there are no rows to be read, only notifications"])
    events = full_name(source.outbox_table) if source.kind == "outbox" and source.outbox_table is not None else None
    if events in set(tables):
        raise ConfigError(
            [f"{events} is the application's own outbox (source.outbox_table): rows of events are not read again"],
            remedy="Use `watcher replay` for events that the journal has.",
        )


def begins_with_rows(subscriptions: Iterable[Subscription]) -> list[str]:
    """Return the tables whose rows some subscriptions begin with."""
    begin = [one for one in subscriptions if one.options.start is Start.BACKFILL]
    return sorted({table for one in begin for table in one.route.tables - {MESSAGES}})


def backfills(config: Config) -> list[Backfill]:
    """Return every backfill that is remembered, oldest first. Raises JournalError."""
    from backend_watcher.service.control import open_journal

    with open_journal(config) as view:
        return all_backfills(view.notes())


async def begin_with_rows(journal: Journal, subscriptions: Iterable[Subscription], begun: Iterable[str]) -> None:
    """
    Ask for the rows that are already there, for subscriptions that begin with them and have not begun.

    To be called before their cursors are written: what is asked for twice is done once, what is not asked for never.
    """
    there = set(begun)
    for one in subscriptions:
        if one.options.start is Start.BACKFILL and one.name not in there:
            tables = sorted(one.route.tables - {MESSAGES})
            await _add(journal, [Backfill(0, table, (one.name,), "start", 0.0) for table in tables])


async def ask(
    journal: Journal,
    tables: Sequence[str],
    subscriptions: Sequence[str],
    by: str,
    *,
    where: str | None = None,
    keys: Sequence[Sequence[str]] = (),
    rows_per_second_max: float | None = None,
) -> str:
    """Ask for tables to be read, and say which numbers that has. Raises ConfigError."""
    faults = [] if tables else ["no table is named"]
    if len(keys) > KEYS_MAX:
        faults.append(f"{len(keys)} keys are more than {KEYS_MAX}; give a condition")
    if len({len(key) for key in keys}) > 1:
        faults.append("the keys have different numbers of columns")
    if rows_per_second_max is not None and rows_per_second_max <= 0:
        faults.append("the rate must be above 0 rows a second")
    if faults:
        raise ConfigError(faults)
    wanted = [
        Backfill(
            0,
            table,
            tuple(sorted(subscriptions)),
            by,
            0.0,
            where=where,
            keys=tuple(map(tuple, keys)),
            rows_per_second_max=rows_per_second_max,
        )
        for table in tables
    ]
    numbers = ", ".join(f"{one.number} ({one.table})" for one in await _add(journal, wanted))
    return f"backfill {numbers}; `watcher backfill list` shows how far it is"


async def ask_repair(
    journal: Journal, subscription: str, table: str, keys: Sequence[Sequence[str]], by: str, *, removes: bool
) -> str:
    """
    Ask for rows to be read so that one sink is put right, and say which number that has. Raises ConfigError.

    With `removes` the sink loses what has one of the keys and no row.
    """
    faults = [] if table and keys else ["a repair is of some keys of a table"]
    if len(keys) > KEYS_MAX:
        faults.append(f"{len(keys)} keys are more than {KEYS_MAX}")
    if faults:
        raise ConfigError(faults)
    wanted = Backfill(0, table, (subscription,), by, 0.0, keys=tuple(map(tuple, keys)), repair=True, removes=removes)
    (one,) = await _add(journal, [wanted])
    what = "are read again, and what has no row is removed" if removes else "are read again"
    return f"repair {one.number} of {table}: the rows of {len(keys)} keys {what}"


async def _add(journal: Journal, wanted: Sequence[Backfill]) -> list[Backfill]:
    try:
        return await add_backfills(journal, wanted)
    except ValueError as error:
        raise ConfigError([str(error)], remedy="Cancel some: `watcher backfill cancel NUMBER`.") from None


async def steer_backfill(journal: Journal, number: int | None, state: BackfillState, *, at_once: bool) -> str:
    """
    Have a backfill paused, cancelled, or, with `WAITING`, go on; `at_once` where nobody runs it.

    Raises ConfigError for one that is not open.
    """
    found = next((one for one in await load_backfills(journal) if one.number == number), None)
    if found is None:
        raise ConfigError([f"there is no backfill {number}"], remedy="`watcher backfill list` shows the numbers.")
    if not found.is_open:
        raise ConfigError([f"backfill {number} has ended: it is {found.state}"])
    await wish(journal, found.number, state)
    if at_once:
        await obey(journal, found)
    word = {BackfillState.PAUSED: "paused", BackfillState.CANCELLED: "cancelled"}.get(state, "goes on")
    return f"backfill {number} of {found.table}: {word}, {found.rows} rows were read"


def progress(job: Backfill, now: Callable[[], float] = time.time) -> tuple[float | None, float | None, float | None]:
    """
    Return what share is done, how many rows a second are read, and the seconds that are left, as far as can be said.

    The size of a table is the server's own estimate, and none where only some of its rows are wanted.
    """
    read = job.rows + job.stale
    rate = read / job.seconds if job.seconds > 0 and read else None
    if not job.is_open:
        return (1.0 if job.state is BackfillState.DONE else None), rate, None
    if not job.estimated_rows or job.where or job.keys:
        return None, rate, None
    share = min(read / job.estimated_rows, 0.999)
    left = max(job.estimated_rows - read, 0) / rate if rate else None
    return share, rate, left
