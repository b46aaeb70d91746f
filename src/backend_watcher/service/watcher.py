"""
`Watcher`: what a user's program touches.

    watcher = Watcher("shop")
    watcher.to(RedisCache(key="product:{id}"), table="products")

    @watcher.on("products", update=["stock"])
    async def notify_seller(change: Change) -> None: ...

Nothing is connected or checked here beyond the words themselves: `watcher run` puts it to work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, Unpack, get_args

from backend_watcher.contracts import Sink, TransactionalSink, Transform
from backend_watcher.delivery.batch import BatchLimits
from backend_watcher.delivery.route import ALL_OPERATIONS, Predicate, Rule
from backend_watcher.delivery.subscription import Options
from backend_watcher.errors import ConfigError
from backend_watcher.events.change import Operation
from backend_watcher.events.message import FULL_NAME, OWN
from backend_watcher.events.schema_change import SchemaChange
from backend_watcher.service.feeding import Feeding, faults_of, fed
from backend_watcher.service.messages import as_of_changes, of_prefix
from backend_watcher.sinks.handler import Handler

Function = TypeVar("Function", bound=Callable[..., Any])

NAME = re.compile(r"[a-z0-9_]{1,40}")

SchemaFunction = Callable[[SchemaChange], Any]

Wish = bool | Sequence[str]

RunIn = Literal["loop", "thread", "process"]
"""Where a function runs; without it an `async def` on the loop and a plain `def` in a thread."""

HANDLER_OPTIONS = Options()
SINK_OPTIONS = Options(concurrency=2)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A subscription as the user declared it; table names are as written."""

    name: str
    tables: tuple[str, ...]
    operations: frozenset[Operation]
    columns: frozenset[str]
    predicate: Predicate | None
    sink: Sink
    options: Options
    transforms: tuple[Transform, ...] = ()
    function: Callable[..., Any] | None = None
    run_in: RunIn | None = None
    processes: int = 1
    memory_bytes: int | None = None

    def rule(self, full_name: str) -> Rule:
        """Return the rule for one of its tables, by its full name."""
        return Rule(full_name, self.operations, self.columns, self.predicate)


@dataclass(slots=True)
class Watcher:
    """
    A named set of subscriptions. The name becomes the slot's and the journal's, so it stays the same.

    `dsn` is the PostgreSQL to watch; left out, it comes from `watcher.toml`, WATCHER_SOURCE__DSN or
    DATABASE_URL. Raises ConfigError for a name that PostgreSQL would not take for a slot.
    """

    name: str
    dsn: str | None = None
    wanted: list[Wanted] = field(default_factory=list, init=False)
    transforms: list[tuple[frozenset[str], Transform]] = field(default_factory=list, init=False)
    schema_functions: list[SchemaFunction] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError([f"Watcher({self.name!r}): a name has 1 to 40 of a-z, 0-9 and _"])

    def on(
        self,
        *tables: str,
        insert: bool | None = None,
        update: Wish | None = None,
        delete: bool | None = None,
        truncate: bool | None = None,
        when: Predicate | None = None,
        name: str | None = None,
        batch: int | None = None,
        run_in: RunIn | None = None,
        processes: int = 1,
        memory_bytes: int | None = None,
        **feeding: Unpack[Feeding],
    ) -> Callable[[Function], Function]:
        """
        Call a function for each change of the tables, or, with `batch`, for up to so many at a time.

        Without any of insert, update, delete and truncate it is called for all of them; `update=["stock"]`
        means updates that changed one of these columns. `when` is a predicate on the change. Of one row the
        function sees the changes in commit order, one at a time; `concurrency=1` keeps all of them so. An
        `async def` runs on an event loop of the subscription's own, a plain `def` in a thread;
        `run_in="process"` runs it in `processes` processes, each with `memory_bytes` at most, where it can
        neither eat the watcher's time nor end it. It may see a change again after a crash: `change.event_id` is
        the same then. It may raise `Retry(after_seconds)` or `Skip(reason)`. `feeding` are the options of
        every subscription.
        """
        operations, columns = _operations(insert, update, delete, truncate)

        def register(function: Function) -> Function:
            subscription = name or str(getattr(function, "__name__", type(function).__name__))
            given = {**feeding, "batch": BatchLimits().changes if batch is None else batch}
            faults = faults_of(given)
            options = HANDLER_OPTIONS if faults else fed(HANDLER_OPTIONS, given)
            sink = Handler(function, batch=batch is not None, timeout_seconds=options.timeout_seconds)
            transforms: tuple[Transform, ...] = ()
            where = (function, run_in, processes, memory_bytes)
            wanted = Wanted(subscription, tuple(tables), operations, columns, when, sink, options, transforms, *where)
            self._add(wanted, faults)
            return function

        return register

    def on_message(
        self, prefix: str, *, name: str | None = None, **feeding: Unpack[Feeding]
    ) -> Callable[[Function], Function]:
        """
        Call a function with each `Message` that an application writes with `pg_logical_emit_message(true, prefix, …)`.

        It comes in its place among the changes of its transaction, and only if that commits. Messages that are not
        transactional (`false`) are not delivered: they have no place in the order. The function is called, retried
        and parked as one of `on` is; what fails holds up the messages of its prefix.
        """

        def register(function: Function) -> Function:
            faults = [] if prefix else ["a prefix is not empty"]
            if prefix.startswith(OWN):
                faults.append(f"messages of {OWN}… are the watcher's own")
            subscription = name or str(getattr(function, "__name__", type(function).__name__))
            faults += faults_of(feeding)
            options = HANDLER_OPTIONS if faults else fed(HANDLER_OPTIONS, feeding)
            told = as_of_changes(function)
            sink = Handler(told, timeout_seconds=options.timeout_seconds)
            inserts = frozenset({Operation.INSERT})
            wanted = Wanted(subscription, (FULL_NAME,), inserts, frozenset(), of_prefix(prefix), sink, options)
            self._add(replace(wanted, function=told), faults)
            return function

        return register

    def to(
        self,
        sink: Sink,
        *,
        table: str | Iterable[str],
        insert: bool | None = None,
        update: Wish | None = None,
        delete: bool | None = None,
        truncate: bool | None = None,
        when: Predicate | None = None,
        transform: Transform | Sequence[Transform] = (),
        name: str | None = None,
        batch: int | None = None,
        **feeding: Unpack[Feeding],
    ) -> None:
        """
        Send the changes of one or more tables to a sink; the other arguments are as for `on`.

        What is not given is as the sink wants it, and otherwise as for every sink: two lanes, batches of 1,000.
        """
        tables = (table,) if isinstance(table, str) else tuple(table)
        operations, columns = _operations(insert, update, delete, truncate)
        kind = str(sink.describe().get("kind", type(sink).__name__))
        transforms = (transform,) if callable(transform) else tuple(transform)
        subscription = name or "_".join([kind, *(re.sub(r"\W", "_", t.rpartition(".")[2]) for t in tables)])
        given = {**getattr(sink, "feeding", {}), **feeding, **({} if batch is None else {"batch": batch})}
        faults = faults_of(given)
        if isinstance(sink, TransactionalSink) and given.get("concurrency", 1) > 1:
            faults.append("concurrency must be 1: the sink keeps one position, and needs all changes in commit order")
        options = SINK_OPTIONS if faults else fed(SINK_OPTIONS, given)
        self._add(Wanted(subscription, tables, operations, columns, when, sink, options, transforms), faults)

    def transform(self, *tables: str) -> Callable[[Function], Function]:
        """
        Pass every change of the tables through a function before any subscription sees it.

        It returns the change, `change.replace(new={…})`, or None to drop it; it must not do I/O. It applies to
        subscriptions declared before and after it.
        """

        def register(function: Function) -> Function:
            self.transforms.append((frozenset(tables), function))
            return function

        return register

    def on_schema_change(self, function: Function) -> Function:
        """
        Call a function with each `SchemaChange`: what became of a watched table, and whether to read its rows again.

        An `async def` runs on an event loop of its own, a plain `def` in a thread; each call has 30 s. One that fails
        is called again, five times in all, and the next change waits for it. After a crash it may be called again with
        the same `number`. What it does not take stays in `watcher status`.
        """
        self.schema_functions.append(function)
        return function

    def _add(self, wanted: Wanted, wrong: Sequence[str]) -> None:
        faults = [f"subscription {wanted.name!r}: {fault}" for fault in wrong]
        if not NAME.fullmatch(wanted.name):
            faults.append(f"subscription {wanted.name!r}: a name has 1 to 40 of a-z, 0-9 and _; give one with name=")
        if not wanted.tables:
            faults.append(f"subscription {wanted.name!r}: name at least one table")
        if any(there.name == wanted.name for there in self.wanted):
            faults.append(f"subscription {wanted.name!r} is declared twice; give one of them another name=")
        if wanted.run_in not in (None, *get_args(RunIn)):
            faults.append(f"subscription {wanted.name!r}: run_in is one of {', '.join(get_args(RunIn))}")
        if wanted.processes < 1:
            faults.append(f"subscription {wanted.name!r}: processes must be 1 or more")
        if faults:
            raise ConfigError(faults)
        self.wanted.append(wanted)

    def run(self) -> None:
        """Do what `watcher run` does, from a program: returns after SIGTERM or SIGINT, when all is drained."""
        from backend_watcher.service.supervise import run_watcher

        run_watcher(self)


def _operations(
    insert: bool | None, update: Wish | None, delete: bool | None, truncate: bool | None
) -> tuple[frozenset[Operation], frozenset[str]]:
    """Return the operations that were asked for, and the columns an update must have changed."""
    columns = frozenset(update) if update is not None and not isinstance(update, bool) else frozenset[str]()
    asked = {
        Operation.INSERT: insert,
        Operation.UPDATE: bool(update) if update is not None else None,
        Operation.DELETE: delete,
        Operation.TRUNCATE: truncate,
    }
    named = frozenset(operation for operation, wish in asked.items() if wish)
    if named:
        return named | ({Operation.READ} if Operation.INSERT in named else frozenset()), columns
    return ALL_OPERATIONS - {operation for operation, wish in asked.items() if wish is False}, columns
