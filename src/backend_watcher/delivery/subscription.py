"""What a subscription is: a name, a route, transforms, a sink, and how it is to be fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from backend_watcher.contracts import Sink, TransactionalSink, Transform
from backend_watcher.delivery.batch import BatchLimits
from backend_watcher.delivery.retry import Patience
from backend_watcher.delivery.route import Route
from backend_watcher.delivery.transform import transformed
from backend_watcher.events.change import Change


class Start(StrEnum):
    """Where a subscription begins that has no cursor yet."""

    NOW = "now"
    OLDEST = "oldest"
    BACKFILL = "backfill"


@dataclass(frozen=True, slots=True)
class Options:
    """
    How a subscription is fed.

    `concurrency` is the number of lanes: at 1 the whole subscription is in commit order as long as nothing fails,
    above it each key is. `max_in_flight` and `max_in_flight_bytes` bound what is read and not yet settled;
    `parked_max` how many changes are held because of their keys before the subscription waits. With `coalesce` a
    batch has the newest change of each key only. With `whole_transactions`, which needs one lane, a batch begins and
    ends between two transactions; one that is larger than half of what may be in flight comes in parts all the same.
    `read_back_per_second` is how many changes are looked for in the sink afterwards, None as many as is usual;
    every `verify_every_seconds` all of its tables are compared with the sink, never at 0.
    """

    concurrency: int = 8
    batch: BatchLimits = field(default_factory=BatchLimits)
    timeout_seconds: float = 30.0
    max_in_flight: int = 10_000
    max_in_flight_bytes: int = 32 << 20
    coalesce: bool = False
    whole_transactions: bool = False
    patience: Patience = field(default_factory=Patience)
    parked_max: int = 100_000
    start: Start = Start.NOW
    read_back_per_second: float | None = None
    verify_every_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Subscription:
    """A name that keeps its cursor, and everything its loop needs."""

    name: str
    route: Route
    sink: Sink
    transforms: Sequence[Transform] = ()
    options: Options = field(default_factory=Options)

    def passed(self, change: Change) -> Change | None:
        """Return what reaches the sink of a change, None where nothing does. Raises HandlerError."""
        return transformed(self.route, self.transforms, change)

    def leaves_as_they_are(self, table: str) -> bool:
        """Say that the rows of a table, by its full name, reach the sink as the source has them."""
        return not self.transforms and self.route.rules[table].predicate is None

    def __post_init__(self) -> None:
        """Feed a sink that keeps its position with the data in the only way that it can be fed."""
        if isinstance(self.sink, TransactionalSink):
            object.__setattr__(self, "options", replace(self.options, concurrency=1, whole_transactions=True))
