"""
What people ask of subscriptions from outside the process: steering them, and looking at what is held.

Where a process has the journal it is asked; where none runs the same is done on the journal itself.
"""

from __future__ import annotations

import getpass
import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from backend_watcher.contracts import Audit, HeldKey
from backend_watcher.errors import ConfigError, JournalLocked
from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.service.config import Config
from backend_watcher.service.control import open_journal
from backend_watcher.service.remote import NobodyThere, knock
from backend_watcher.service.steering import Answer, Request, StandingLoops, steer
from backend_watcher.service.watcher import Watcher

HELD_CHANGES_SHOWN = 1000

_AGO = re.compile(r"(\d+)\s*(s|m|min|h|d)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


async def operate(config: Config, watcher: Watcher | None, request: Request) -> str:
    """Do what is asked, and say what came of it. Raises ConfigError where it is refused, JournalError."""
    open_journal(config).close()
    try:
        answer = await knock(config.journal.path, request)
    except NobodyThere as nobody:
        answer = await _alone(config, watcher, request, nobody)
    if answer.faults:
        raise ConfigError(answer.faults, remedy="See `watcher status`.")
    return answer.said


async def _alone(config: Config, watcher: Watcher | None, request: Request, nobody: NobodyThere) -> Answer:
    journal = SqliteJournal(
        config.journal.path,
        quota_bytes=config.journal.quota_bytes,
        retain_seconds=config.journal.retain_seconds,
        retain_bytes=config.journal.retain_bytes,
    )
    try:
        await journal.open()
    except JournalLocked as locked:
        raise JournalLocked(f"{locked.message}, and it does not answer: {nobody}") from locked
    try:
        names = {one.name for one in config.subscriptions} | set(await journal.cursors())
        names |= {one.name for one in watcher.wanted} if watcher is not None else set()
        return await steer(journal, StandingLoops(journal, sorted(names)), request)
    finally:
        await journal.close()


def who() -> str:
    """Return who asks, for the audit."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


# Held keys


def held_keys(config: Config, subscription: str | None = None) -> dict[str, list[HeldKey]]:
    """Return the keys that subscriptions hold, parked or being retried. Raises JournalError."""
    with open_journal(config) as view:
        names = view.held_subscriptions() if subscription is None else [subscription]
        return {name: list(view.held_keys(name)) for name in names}


def held_key(config: Config, subscription: str, number: int) -> tuple[HeldKey, list[Change]]:
    """Return one held key with the changes it holds, the failing one first. Raises ConfigError, JournalError."""
    with open_journal(config) as view:
        for key in view.held_keys(subscription):
            if key.number == number:
                held = view.held_changes(subscription, number, limit=HELD_CHANGES_SHOWN)
                return key, [one.change for one in held]
    raise ConfigError(
        [f"subscription {subscription!r} holds no key number {number}"],
        remedy="`watcher parked list` shows what is held.",
    )


def key_values(key: HeldKey) -> dict[str, Any]:
    """Write a held key as plain values; times are ISO 8601 in UTC."""

    def moment(at: float | None) -> str | None:
        return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")

    try:
        row = msgspec.json.decode(key.key)
    except msgspec.MsgspecError:
        row = key.key  # too long to be kept whole
    return {
        "number": key.number,
        "state": "parked" if key.parked else "retrying",
        "table": key.table,
        "key": row,
        "changes": key.changes,
        "attempts": key.attempts,
        "first_failed_at": moment(key.first_at),
        "last_failed_at": moment(key.last_at),
        "next_try_at": moment(key.due_at),
        "error": key.error,
        "remedy": key.remedy,
    }


def audits(config: Config, limit: int) -> list[Audit]:
    """Return what people did last, oldest first. Raises JournalError."""
    with open_journal(config) as view:
        return list(view.audits(limit=limit))


# Where a replay begins


def position_since(config: Config, text: str, now: Callable[[], float] = time.time) -> Position:
    """
    Return the position after which everything captured since a moment stands.

    The moment is ISO 8601 (local time where it has no zone), or a span such as 90s, 15m, 2h or 3d ago. Raises
    ConfigError, JournalError.
    """
    moment = _moment(text, now())
    with open_journal(config) as view:
        return view.position_before(moment)


def _moment(text: str, now: float) -> float:
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return now - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]]).total_seconds()
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise ConfigError(
            [f"--since: {text!r} is no moment; right would be 2026-01-31T09:00 or 15m, 2h, 3d"], remedy="Give another."
        ) from None


def positions(texts: Iterable[tuple[str, str | None]]) -> list[Position | None]:
    """Read positions as people write them. Raises ConfigError with a line for each bad one."""
    read: list[Position | None] = []
    faults = []
    for option, text in texts:
        try:
            read.append(None if text is None else Position.parse(text))
        except ValueError as error:
            faults.append(f"{option}: {error}")
    if faults:
        raise ConfigError(faults, remedy="`watcher tail --json` shows positions.")
    return read
