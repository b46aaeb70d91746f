"""
Whether a replica can take over from its source, and its sequences, which no change ever carries.

The source is asked first, then the subscription has to deliver all that was committed before, then the replica is
asked: so one that is called ready has every row and every number that the source had when the command began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from backend_watcher.delivery.subscription import Subscription
from backend_watcher.errors import CannotVerify, ConfigError, ExitCode, SinkUnavailable, SourceError
from backend_watcher.events.message import FULL_NAME as MESSAGES
from backend_watcher.events.position import format_lsn
from backend_watcher.journal.view import SqliteJournalView
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.names import parse_name
from backend_watcher.postgres.sequences import Numbers, go_on_behind, sequences_of
from backend_watcher.reconcile.cutover import Compared, State, compare_sequences
from backend_watcher.reconcile.follow import STALL_SECONDS_MAX, Follower
from backend_watcher.service.config import Config
from backend_watcher.service.control import open_journal
from backend_watcher.service.declared import wanted_of
from backend_watcher.service.sources import reading_source
from backend_watcher.service.subscribed import subscription_of
from backend_watcher.service.watcher import Watcher
from backend_watcher.sinks import PostgresReplica

Tables = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Readiness:
    """
    What was found: the sequences, how many were set, and why it is not ready, nothing if it is.

    `position` is up to where all is delivered; `written` says that the source was written to meanwhile.
    """

    subscription: str
    tables: list[str]
    sequences: list[Compared[Numbers]] = field(default_factory=list)
    changed: int = 0
    position: str | None = None
    written: bool = False
    reasons: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 for ready, 75 for not yet."""
        return ExitCode.TEMPORARY if self.reasons else ExitCode.CLEAN

    def as_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "subscription": self.subscription,
            "ready": not self.reasons,
            "reasons": self.reasons,
            "position": self.position,
            "written": self.written,
            "changed": self.changed,
            "sequences": [
                {
                    "table": self.tables[one.source.place],
                    "column": one.source.column,
                    "sequence": one.source.full_name,
                    "source": one.source.last_value,
                    "replica": one.replica.last_value if one.replica is not None else None,
                    "state": str(one.state),
                }
                for one in self.sequences
            ],
            "exit_code": self.exit_code,
        }


async def cut_over(
    config: Config,
    watcher: Watcher | None,
    name: str,
    *,
    set_sequences: bool,
    stall_seconds_max: float = STALL_SECONDS_MAX,
) -> Readiness:
    """
    Say whether the replica of a subscription can take over; with `set_sequences` mend its sequences first.

    Raises ConfigError where it is no replica, JournalError without a journal, SourceErrors, SinkUnavailable.
    """
    subscription = _replica(config, watcher, name)
    sink = subscription.sink
    assert isinstance(sink, PostgresReplica)
    found = Readiness(name, sorted(subscription.route.tables - {MESSAGES}))
    source = reading_source(config.source)
    with open_journal(config) as view:
        try:
            here = [parse_name(table) for table in found.tables]
            async with await connect(config.source.dsn, purpose="cutover", read_only=True) as conn:
                given = await sequences_of(conn, here)
            mark = await source.mark()
            await _caught_up(view, subscription, mark, stall_seconds_max, found)
            dsn, schema = sink.target
            await _compare(dsn, [(schema or own, table) for own, table in here], given, found, change=set_sequences)
            later = await source.mark()
            await Follower(view, name, stall_seconds_max).captured(later)
            last = view.state().last
            found.written = last is not None and last.commit_lsn > mark
        except CannotVerify as error:
            found.reasons.append(error.message)
        finally:
            await source.close()
    if found.written:
        found.reasons.append("the source is still written to: stop what writes, and ask again")
    return found


def _replica(config: Config, watcher: Watcher | None, name: str) -> Subscription:
    every = {one.name: subscription_of(one, watcher) for one in wanted_of(config, watcher)}
    replicas = sorted(one.name for one in every.values() if isinstance(one.sink, PostgresReplica))
    if name not in replicas:
        what = "is no PostgreSQL replica" if name in every else "is unknown"
        there = f"; there are: {', '.join(replicas)}" if replicas else "; there is none"
        raise ConfigError([f"subscription {name!r} {what}{there}"])
    return every[name]


async def _caught_up(
    view: SqliteJournalView, subscription: Subscription, mark: int, stall_seconds_max: float, found: Readiness
) -> None:
    await Follower(view, subscription.name, stall_seconds_max).delivered(mark)
    found.position = format_lsn(mark)
    if held := len(view.held_keys(subscription.name)):
        found.reasons.append(f"{held} keys are parked: `watcher parked list {subscription.name}`")


async def _compare(dsn: str, tables: Tables, given: Sequence[Numbers], found: Readiness, *, change: bool) -> None:
    try:
        async with await connect(dsn, purpose="cutover", read_only=not change) as conn:
            found.sequences = compare_sequences(given, await sequences_of(conn, tables))
            if change:
                found.changed = await _set(conn, found.sequences)
                found.sequences = compare_sequences(given, await sequences_of(conn, tables))
    except SourceError as error:
        # The same questions, and another server.
        raise SinkUnavailable(f"the replica: {error.message}", remedy=error.remedy) from error
    for one in found.sequences:
        of = f"{found.tables[one.source.place]}.{one.source.column}"
        if one.state is State.BEHIND:
            found.reasons.append(f"{of}: its sequence at the replica would give numbers twice; `--set` lets it go on")
        elif one.state is State.MISSING:
            found.reasons.append(f"{of} takes its numbers from {one.source.full_name}, and at the replica from none")
        elif one.state is State.UNREADABLE:
            found.reasons.append(f"{of}: the role may not see its sequence; GRANT SELECT ON SEQUENCE is what it needs")


async def _set(conn: Connection, sequences: Sequence[Compared[Numbers]]) -> int:
    changed = 0
    for one in sequences:
        if one.state is State.BEHIND and one.replica is not None and one.source.last_value is not None:
            changed += await go_on_behind(conn, one.replica.oid, one.source.last_value)
    return changed
