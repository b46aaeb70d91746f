"""
Everything a person can ask of a watcher, once, for the command line and the web page alike.

Answers are plain values. Nothing here writes to the source, the journal or a sink.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backend_watcher.capture.backfill_jobs import Backfill, all_backfills
from backend_watcher.capture.budget import judge_wal
from backend_watcher.capture.schema_notes import open_changes
from backend_watcher.contracts import JournalState
from backend_watcher.delivery.steer import load_pause, pause_note
from backend_watcher.errors import (
    ConfigError,
    ExitCode,
    JournalError,
    PreflightFailed,
    SinkError,
    SinkUnavailable,
    WatcherError,
)
from backend_watcher.events.change import Change
from backend_watcher.events.position import START, Position
from backend_watcher.events.schema_change import SchemaChange
from backend_watcher.journal.view import SqliteJournalView
from backend_watcher.postgres import slots
from backend_watcher.postgres.connect import address_of, connect
from backend_watcher.postgres.findings import Finding, Level, Report
from backend_watcher.service.build import full_name, refuse_nothing, wants_messages, wishes_of
from backend_watcher.service.config import Config
from backend_watcher.service.declared import wanted_of
from backend_watcher.service.proved import proved
from backend_watcher.service.sources import heard_words, look_before, settings_of
from backend_watcher.service.watcher import Wanted, Watcher

__all__ = [
    "ProcessStatus",
    "Report",
    "SlotStatus",
    "SourceStatus",
    "Status",
    "SubscriptionStatus",
    "before_last",
    "check",
    "open_journal",
    "raise_if_faulty",
    "status",
    "table_names",
    "tail",
]

SINK_SECONDS_MAX = 10.0
SOURCE_SECONDS_MAX = 5.0
READ_BYTES = 1 << 20
LOOK_SECONDS = 0.1
"""Between two looks at the journal's file while it stands still. The source is never asked."""

LOOK_BACK_BYTES_MAX = 256 << 20
"""How much WAL `last_positions` looks back over for the newest changes of rarely written tables."""

_SAFETY = frozenset({"slot_lost", "publication_missing"})
_SINK = "sink"
_CONNECTION = "connection"


# Check


async def check(config: Config, watcher: Watcher | None) -> Report:
    """Find out whether a run could start: settings and privileges of the source, tables, and every sink."""
    wanted = wanted_of(config, watcher)
    refuse_nothing(wanted)
    wishes = wishes_of(wanted)
    settings = settings_of(config, tuple(sorted(wishes)), messages=wants_messages(wanted), adopt_slot=False)
    report, sinks = await asyncio.gather(
        look_before(settings, wishes),
        asyncio.gather(*(_try_sink(one) for one in wanted)),
    )
    return Report((*report.findings, *sinks), report.error)


def raise_if_faulty(report: Report) -> None:
    """Raise what the faults of a report come to: one error, with the exit code of the gravest of them."""
    faults = report.faults
    if not faults:
        return
    codes = {fault.code for fault in faults}
    if report.error is not None and codes == {_CONNECTION}:
        raise report.error
    if codes == {_SINK}:
        raise SinkUnavailable("\n".join(fault.message for fault in faults), remedy=faults[0].remedy)
    error = PreflightFailed([str(fault) for fault in faults])
    if codes & _SAFETY:
        error.exit_code = ExitCode.DATA_SAFETY
    elif report.error is not None:
        error.exit_code = report.error.exit_code
    raise error


async def _try_sink(wanted: Wanted) -> Finding:
    kind = str(wanted.sink.describe().get("kind", type(wanted.sink).__name__))
    try:
        async with asyncio.timeout(SINK_SECONDS_MAX):
            await wanted.sink.open()
    except TimeoutError:
        message = f"subscription {wanted.name!r}: {kind} does not answer within {SINK_SECONDS_MAX:g} s"
        return Finding(Level.FAULT, _SINK, wanted.name, message, "Start it, or correct its address.")
    except SinkError as error:
        return Finding(Level.FAULT, _SINK, wanted.name, f"subscription {wanted.name!r}: {error.message}", error.remedy)
    finally:
        await wanted.sink.close()
    return Finding(Level.OK, _SINK, wanted.name, f"subscription {wanted.name!r}: {kind} is ready")


# Status


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """The process that has, or last had, the journal. Times in seconds since 1970."""

    pid: int
    running: bool
    state: str
    since: float | None
    source_state: str
    detail: str


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """The slot as PostgreSQL sees it."""

    name: str
    active: bool
    confirmed_flush_lsn: int | None
    wal_held_bytes: int | None
    wal_status: str | None
    is_lost: bool
    max_wal_bytes: int | None = None
    warning: str = ""
    """What is wrong with how much WAL it holds; empty where nothing is."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """The source; `slot` is None where there is none or it could not be asked, which `error` says."""

    address: str
    reachable: bool
    error: str | None
    remedy: str | None
    slot: SlotStatus | None
    heard: str = ""
    """For kinds that have no slot: how it is heard, and where that stands."""


@dataclass(frozen=True, slots=True)
class SubscriptionStatus:
    """
    One subscription.

    `state` is running, retrying, paused, replaying, full, stopped, or, where no process runs, idle; `detail` says
    more of it. `retrying_keys` and `parked_keys` count the keys that failed by themselves, and
    `held_changes` what waits with them.

    Lag is what the journal has and the subscription has not: in bytes of WAL, and as the age of the oldest such
    change's commit. None where the subscription has never begun.

    `read_back` says how many of the changes that were looked for were visible in the sink, `drift` which entries differ
    from the source and stay so, `scans` what came of comparing all rows; None where that is not done.
    """

    name: str
    state: str
    cursor: Position | None
    lag_bytes: int | None
    lag_seconds: float | None
    error: str | None
    remedy: str | None
    attempt: int
    since: float | None
    detail: str = ""
    retrying_keys: int = 0
    parked_keys: int = 0
    held_changes: int = 0
    read_back: Mapping[str, Any] | None = None
    drift: tuple[Mapping[str, Any], ...] = ()
    scans: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """
    Where everything stands. `journal` is None before the first run, `source` without a DSN.

    `schema_changes` are those that nobody has marked as seen, `backfills` all that are remembered; oldest first.
    """

    name: str
    journal_path: Path
    process: ProcessStatus | None
    source: SourceStatus | None
    journal: JournalState | None
    subscriptions: tuple[SubscriptionStatus, ...]
    schema_changes: tuple[SchemaChange, ...] = ()
    backfills: tuple[Backfill, ...] = ()


async def status(config: Config, watcher: Watcher | None = None, *, now: Callable[[], float] = time.time) -> Status:
    """Say where everything stands, from the journal's file and, if it can be reached, the source."""
    names = [one.name for one in config.subscriptions]
    names += [one.name for one in watcher.wanted] if watcher is not None else []
    path = config.journal.path
    source = asyncio.create_task(_source(config)) if config.source.dsn else None
    if path.exists():
        found = await asyncio.to_thread(_look, config.name, path, names, now())
    else:
        found = Status(config.name, path, None, None, None, tuple(_never_begun(name) for name in names))
    return replace(found, source=await source if source else None)


def _look(watcher: str, path: Path, names: Iterable[str], now: float) -> Status:
    with SqliteJournalView(path) as view:
        # Cursors first: what is captured in between then counts as lag, and not as less than none.
        cursors, notes, state = view.cursors(), view.notes(), view.state()
        process = _process(notes)
        running = process is not None and process.running
        noted = [name.partition(":")[2] for name in notes if name.startswith("subscription:")]
        every = dict.fromkeys([*names, *cursors, *noted])
        return Status(
            watcher,
            path,
            process,
            None,
            state,
            tuple(_subscription(view, state, name, cursors.get(name), notes, running, now) for name in every),
            tuple(open_changes(notes)),
            tuple(all_backfills(notes)),
        )


def _subscription(
    view: SqliteJournalView,
    state: JournalState,
    name: str,
    cursor: Position | None,
    notes: Mapping[str, str],
    running: bool,
    now: float,
) -> SubscriptionStatus:
    note = _note(notes, f"subscription:{name}")
    behind = cursor is not None and state.last is not None and cursor < state.last
    lag_bytes = max(0, state.durable_lsn - cursor.commit_lsn) if behind and cursor is not None else 0
    oldest = _first_after(view, cursor) if behind and cursor is not None else None
    lag_seconds = max(0.0, now - oldest.commit_time.timestamp()) if oldest is not None else 0.0
    held = view.held_keys(name)
    pause = load_pause(notes.get(pause_note(name)))
    told = str(note.get("state", "running")) if running else "idle"
    return SubscriptionStatus(
        name=name,
        state="paused" if pause is not None else told,
        cursor=cursor,
        lag_bytes=None if cursor is None else lag_bytes,
        lag_seconds=None if cursor is None else lag_seconds,
        error=note.get("error"),
        remedy=note.get("remedy"),
        attempt=int(note.get("attempt") or 0),
        since=note.get("since"),
        detail=f"by {pause.by}: {pause.reason}".rstrip(": ") if pause is not None else str(note.get("detail", "")),
        retrying_keys=sum(not key.parked for key in held),
        parked_keys=sum(key.parked for key in held),
        held_changes=sum(key.changes for key in held),
        **proved(notes, name),
    )


def _never_begun(name: str) -> SubscriptionStatus:
    return SubscriptionStatus(name, "idle", None, None, None, None, None, 0, None)


def _first_after(view: SqliteJournalView, cursor: Position) -> Change | None:
    blocks = view.read(cursor, 1)
    return blocks[0].changes[0] if blocks else None


def _process(notes: Mapping[str, str]) -> ProcessStatus | None:
    note = _note(notes, "process")
    pid = note.get("pid")
    if not isinstance(pid, int):
        return None
    state = str(note.get("state", ""))
    running = not state.startswith("stopped") and _is_alive(pid)
    if not running and not state.startswith("stopped"):
        state = "killed"
    return ProcessStatus(
        pid, running, state, note.get("since"), str(note.get("source_state", "")), str(note.get("detail", ""))
    )


def _is_alive(pid: int) -> bool:
    # The number may be ours, or somebody's, when it was given again in another container.
    if pid <= 0 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _note(notes: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        note = json.loads(notes.get(name, "{}"))
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


async def _source(config: Config) -> SourceStatus:
    address = address_of(config.source.dsn)
    try:
        async with (
            asyncio.timeout(SOURCE_SECONDS_MAX),
            await connect(config.source.dsn, purpose="status", read_only=True) as connection,
        ):
            if config.source.kind != "logical":
                return SourceStatus(address, True, None, None, None, await heard_words(connection, config.source.kind))
            facts = await slots.look(connection, config.source.slot)
    except TimeoutError:
        return SourceStatus(address, False, f"no answer within {SOURCE_SECONDS_MAX:g} s", None, None)
    except WatcherError as error:
        return SourceStatus(address, False, error.message, error.remedy, None)
    if facts is None:
        return SourceStatus(address, True, None, None, None)
    budget = config.source.max_wal_bytes
    slot = SlotStatus(
        facts.name,
        facts.active,
        facts.confirmed_flush_lsn,
        facts.wal_held_bytes,
        facts.wal_status,
        facts.is_lost,
        budget,
        judge_wal(facts.wal_held_bytes, budget, facts.wal_status, facts.safe_wal_size_bytes).words,
    )
    return SourceStatus(address, True, None, None, slot)


# Tail


def open_journal(config: Config) -> SqliteJournalView:
    """Open the journal to look at it. Raises JournalError if there is none yet."""
    path = config.journal.path
    if not path.exists():
        raise JournalError(f"there is no journal at {path} yet", remedy="`watcher run` makes it.")
    return SqliteJournalView(path)


def table_names(tables: Iterable[str]) -> frozenset[str]:
    """Return the full names of tables as a person writes them. Raises ConfigError with a line for each bad one."""
    names: set[str] = set()
    faults: list[str] = []
    for table in tables:
        try:
            names.add(full_name(table))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return frozenset(names)


def tail(
    view: SqliteJournalView,
    tables: frozenset[str] = frozenset(),
    *,
    after: Position = START,
    follow: bool = False,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[Change]:
    """
    Return the changes of some tables (of all, if none is named) after a position, in order.

    With `follow` it goes on with what is captured from now on, and ends only where the caller ends it.
    """
    while True:
        blocks = view.read(after, READ_BYTES)
        for block in blocks:
            if not tables or block.tables & tables:
                yield from (c for c in block.changes if not tables or c.table.full_name in tables)
            after = block.last
        if not blocks:
            if not follow:
                return
            while not view.changed():
                wait(LOOK_SECONDS)


def before_last(view: SqliteJournalView, tables: frozenset[str], count: int) -> Position:
    """
    Return the position after which the newest `count` changes of the tables stand.

    Looks back in growing steps, over at most LOOK_BACK_BYTES_MAX of WAL: of tables that are rarely written there
    may be fewer.
    """
    last = view.state().last
    if last is None or count <= 0:
        return last or START
    step = 1 << 16
    while True:
        after = Position(last.commit_lsn - step, -1) if step < last.commit_lsn else START
        newest = deque((change.position for change in tail(view, tables, after=after)), maxlen=count + 1)
        if len(newest) > count:
            return newest[0]
        if after == START or step >= LOOK_BACK_BYTES_MAX:
            return after
        step *= 8
