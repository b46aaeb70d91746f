"""
What people do to subscriptions: pause, resume, replay, redrive, discard, forget, repair. Each goes into the audit.

The same operations run in the process that has the journal, and, where none runs, on the journal itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import msgspec

from backend_watcher.capture.backfill_jobs import BackfillState
from backend_watcher.contracts import Audit, Journal
from backend_watcher.delivery.route import Route
from backend_watcher.delivery.run import SubscriptionLoop
from backend_watcher.delivery.steer import Replay
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.errors import ConfigError
from backend_watcher.events.position import START, Position
from backend_watcher.service.backfilling import ask, ask_repair, steer_backfill
from backend_watcher.service.schema import mark_seen
from backend_watcher.service.skip import skip_undecodable
from backend_watcher.sinks.memory import Memory

T = TypeVar("T")

SEEN, SKIP = "seen", "skip"
"""The operations on schema changes and on the source; they concern no subscription."""

BACKFILL = "backfill"
"""The operation that reads tables; it may concern several subscriptions."""

REPAIR = "repair"

_LATEST = Position((1 << 63) - 1, 0)
"""As far as the subscription is when the replay begins."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    One operation on one subscription, by whom, and why.

    `number` is a held key's, None for all; `everything` says that a discard takes what waits behind too. `after` and
    `to` are the range of a replay, `table` a full name and `key` the key's value. What begins with `subscriptions` is
    a backfill's. A repair is of some `keys` of a `table`, and `removes` what has no row.
    """

    operation: str
    subscription: str
    by: str
    reason: str = ""
    number: int | None = None
    everything: bool = False
    after: tuple[int, int] | None = None
    to: tuple[int, int] | None = None
    table: str | None = None
    key: str | None = None
    subscriptions: list[str] = []
    tables: list[str] = []
    where: str | None = None
    keys: list[list[str]] = []
    rows_per_second_max: float | None = None
    removes: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: a sentence, and the faults where it was refused."""

    said: str = ""
    faults: list[str] = []


class Loops(Protocol):
    """Where the loops of subscriptions are to be asked."""

    @property
    def names(self) -> list[str]:
        """The names of the subscriptions."""
        ...

    async def ask(self, name: str, question: Callable[[SubscriptionLoop], Coroutine[Any, Any, T]]) -> T:
        """Ask one."""
        ...


class StandingLoops:
    """The loops of a journal that nobody runs: they have their state, and deliver nothing."""

    def __init__(self, journal: Journal, names: list[str]) -> None:
        self._journal = journal
        self.names = sorted(names)

    async def ask(self, name: str, question: Callable[[SubscriptionLoop], Coroutine[Any, Any, T]]) -> T:
        """Ask a loop that takes up what the journal says of it. Raises KeyError."""
        if name not in self.names:
            raise KeyError(name)
        cursor = (await self._journal.cursors()).get(name, self._journal.last_position)
        subscription = Subscription(name, Route({}), Memory())
        loop = SubscriptionLoop(subscription, self._journal, cursor, _Clock(), _Silent())
        await loop.take_up()
        return await question(loop)


async def steer(journal: Journal, loops: Loops, request: Request) -> Answer:
    """Do what is asked. A request that cannot be done is answered with its faults."""
    operation = _OPERATIONS.get(request.operation)
    try:
        if operation is None:
            raise ConfigError([f"operation {request.operation!r}: there are {', '.join(_OPERATIONS)}"])
        known = set(loops.names) | (set(await journal.cursors()) if request.operation == "forget" else set())
        named = request.subscriptions if request.operation in _OF_NONE else [request.subscription]
        if strange := [name for name in named if name not in known]:
            there = ", ".join(sorted(known)) or "none"
            raise ConfigError([f"subscription {name!r} is unknown; there are: {there}" for name in strange])
        said = await operation(journal, loops, request)
    except ConfigError as error:
        return Answer(faults=error.faults)
    except RuntimeError as error:
        return Answer(faults=[f"subscription {request.subscription!r} has stopped: {error}"])
    await journal.audit(
        Audit(time.time(), request.by, request.operation, _subject(request), f"{request.reason} {said}".strip())
    )
    return Answer(said=said)


def _subject(request: Request) -> str:
    if request.operation == SKIP:
        return "source"
    if request.operation in _OF_NONE:
        about = "schema" if request.operation == SEEN else BACKFILL
        return about if request.number is None else f"{about}/{request.number}"
    return request.subscription if request.number is None else f"{request.subscription}/{request.number}"


async def _pause(journal: Journal, loops: Loops, request: Request) -> str:
    await loops.ask(request.subscription, lambda loop: loop.pause(request.by, request.reason))
    return "paused"


async def _resume(journal: Journal, loops: Loops, request: Request) -> str:
    await loops.ask(request.subscription, lambda loop: loop.resume())
    return "resumed"


async def _replay(journal: Journal, loops: Loops, request: Request) -> str:
    after = Position(*request.after) if request.after is not None else START
    await _refuse_forgotten(journal, after)
    to = Position(*request.to) if request.to is not None else _LATEST
    wish = Replay(after, to, request.table, request.key, request.by, time.time())
    replay = await loops.ask(request.subscription, lambda loop: loop.replay(wish))
    return f"replaying what was committed after {replay.after}, up to {replay.to}"


async def _refuse_forgotten(journal: Journal, after: Position) -> None:
    """Refuse a replay that would begin later than it was asked to: what is missing would be missed by nobody."""
    first = (await journal.state()).first
    if first is not None and after != START and Position(after.commit_lsn, after.ordinal + 1) < first:
        raise ConfigError(
            [f"the journal begins at {first}: what was committed before is not in it any more"],
            remedy="All there is: --from start. Rows of before: `watcher backfill start`.",
        )


async def _redrive(journal: Journal, loops: Loops, request: Request) -> str:
    async def redrive(loop: SubscriptionLoop) -> int:
        return loop.redrive(request.number)

    count = await _of_key(loops, request, redrive)
    return f"{count} parked {'key is' if count == 1 else 'keys are'} tried again"


async def _discard(journal: Journal, loops: Loops, request: Request) -> str:
    number = request.number
    faults = [
        f"{name}: is missing"
        for name, given in (("number", number is not None), ("reason", request.reason))
        if not given
    ]
    if faults or number is None:
        raise ConfigError(faults)
    # Said before they are gone: the audit is the only place that will know of them.
    first = await journal.held_changes(request.subscription, number, limit=1)
    count = await _of_key(loops, request, lambda loop: loop.discard(number, everything=request.everything))
    from_ = f", from {first[0].change.position} of {first[0].change.table.full_name} on" if first else ""
    return f"{count} {'change is' if count == 1 else 'changes are'} discarded{from_}"


async def _of_key(loops: Loops, request: Request, question: Callable[[SubscriptionLoop], Coroutine[Any, Any, T]]) -> T:
    try:
        return await loops.ask(request.subscription, question)
    except KeyError:
        raise ConfigError([f"subscription {request.subscription!r} holds no key number {request.number}"]) from None


async def _forget(journal: Journal, loops: Loops, request: Request) -> str:
    if request.subscription in loops.names and not isinstance(loops, StandingLoops):
        raise ConfigError([f"subscription {request.subscription!r} is running; take it out of the program first"])
    journal.forget_cursor(request.subscription)
    await journal.flush()
    return "its cursor and what it held are forgotten"


async def _seen(journal: Journal, loops: Loops, request: Request) -> str:
    return await mark_seen(journal, request.number, request.by)


async def _backfill(journal: Journal, loops: Loops, request: Request) -> str:
    return await ask(
        journal,
        request.tables,
        request.subscriptions,
        request.by,
        where=request.where,
        keys=request.keys,
        rows_per_second_max=request.rows_per_second_max,
    )


async def _repair(journal: Journal, loops: Loops, request: Request) -> str:
    return await ask_repair(
        journal, request.subscription, request.table or "", request.keys, request.by, removes=request.removes
    )


def _backfill_to(state: BackfillState) -> Callable[[Journal, Loops, Request], Coroutine[Any, Any, str]]:
    async def steer_it(journal: Journal, loops: Loops, request: Request) -> str:
        return await steer_backfill(journal, request.number, state, at_once=isinstance(loops, StandingLoops))

    return steer_it


async def _skip(journal: Journal, loops: Loops, request: Request) -> str:
    if not request.reason:
        raise ConfigError(["reason: is missing"])
    return await skip_undecodable(journal, request.to[0] if request.to is not None else 0)


_OPERATIONS: dict[str, Callable[[Journal, Loops, Request], Coroutine[Any, Any, str]]] = {
    "pause": _pause,
    "resume": _resume,
    "replay": _replay,
    "redrive": _redrive,
    "discard": _discard,
    "forget": _forget,
    SEEN: _seen,
    BACKFILL: _backfill,
    REPAIR: _repair,
    "backfill_pause": _backfill_to(BackfillState.PAUSED),
    "backfill_resume": _backfill_to(BackfillState.WAITING),
    "backfill_cancel": _backfill_to(BackfillState.CANCELLED),
    SKIP: _skip,
}

_OF_NONE = frozenset({SEEN, SKIP, BACKFILL, "backfill_pause", "backfill_resume", "backfill_cancel"})
"""Operations that are about no single subscription."""


class _Clock:
    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


class _Silent:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *told: None
