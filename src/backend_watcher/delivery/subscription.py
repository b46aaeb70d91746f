"""What a subscription is: a name, a route, transforms, a sink, and how it is to be fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from backend_watcher.contracts import Sink, Transform
from backend_watcher.delivery.batch import BatchLimits
from backend_watcher.delivery.route import Route


@dataclass(frozen=True, slots=True)
class Options:
    """
    How a subscription is fed.

    `concurrency` is the number of lanes: at 1 the whole subscription is in commit order, above it each key
    is. `max_in_flight` bounds the changes read and not yet settled.
    """

    concurrency: int = 8
    batch: BatchLimits = field(default_factory=BatchLimits)
    timeout_seconds: float = 30.0
    max_in_flight: int = 10_000


@dataclass(frozen=True, slots=True)
class Subscription:
    """A name that keeps its cursor, and everything its loop needs."""

    name: str
    route: Route
    sink: Sink
    transforms: Sequence[Transform] = ()
    options: Options = field(default_factory=Options)
