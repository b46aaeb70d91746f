"""How a subscription is fed, in the words of a user: the options that `on`, `to` and `[[subscription]]` share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypedDict

from backend_watcher.delivery.subscription import Options, Start

READ_BACK_PER_SECOND_MAX = 100.0
VERIFY_EVERY_SECONDS_MIN = 60.0


class Feeding(TypedDict, total=False):
    """
    Options of every subscription; all have defaults. The last two are for sinks that can be read back.

    | option               | means                                                                             |
    |----------------------|-----------------------------------------------------------------------------------|
    | batch_seconds        | how long the first change of a batch may wait for company                         |
    | concurrency          | so many lanes: keys at a time; 1 keeps the whole subscription in commit order     |
    | timeout_seconds      | how long one call or one batch may take                                           |
    | max_in_flight        | changes read and not yet settled                                                  |
    | coalesce             | only the newest change of each key within a batch                                 |
    | attempts             | tries of a failing change before its key is parked                                |
    | retry_seconds_max    | the longest wait between two of them                                              |
    | park                 | False: a failing change is tried for ever, and what shares its lane waits         |
    | parked_max           | changes held because of failing keys; at so many the subscription waits           |
    | start                | where it begins the first time: "now", "oldest" for all the journal still has, or |
    |                      | "backfill" with the rows that are already in its tables                           |
    | read_back_per_second | delivered changes looked for in the sink 1, 5 and 60 s later; 0 for none          |
    | verify_every_seconds | how often all rows are compared with the sink, slowly; 0 for never                |
    """

    batch_seconds: float
    concurrency: int
    timeout_seconds: float
    max_in_flight: int
    coalesce: bool
    attempts: int
    retry_seconds_max: float
    park: bool
    parked_max: int
    start: Literal["now", "oldest", "backfill"]
    read_back_per_second: float | None
    verify_every_seconds: float


NAMES = tuple(Feeding.__annotations__)

_LEAST = {"concurrency": 1, "max_in_flight": 1, "attempts": 1, "parked_max": 1}
_ABOVE_ZERO = ("timeout_seconds", "retry_seconds_max")


def fed(options: Options, given: Mapping[str, Any]) -> Options:
    """Return the options with those that are given; `batch` may be among them."""
    batch, patience = options.batch, options.patience
    start = given.get("start")
    return replace(
        options,
        batch=replace(
            batch,
            changes=given.get("batch", batch.changes),
            seconds=given.get("batch_seconds", batch.seconds),
        ),
        patience=replace(
            patience,
            attempts=given.get("attempts", patience.attempts),
            seconds_max=given.get("retry_seconds_max", patience.seconds_max),
            park=given.get("park", patience.park),
        ),
        start=options.start if start is None else Start(start),
        **{name: given[name] for name in _PLAIN if name in given},
    )


_PLAIN = (
    "concurrency",
    "timeout_seconds",
    "max_in_flight",
    "coalesce",
    "parked_max",
    "read_back_per_second",
    "verify_every_seconds",
)


def faults_of(given: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with options as a program gives them: `option: what would be right`."""
    faults = [f"{name} is unknown; there are: {', '.join(NAMES)}" for name in given if name not in (*NAMES, "batch")]
    faults += [f"{name} must be {least} or more" for name, least in _LEAST.items() if given.get(name, least) < least]
    faults += [f"{name} must be above 0" for name in _ABOVE_ZERO if given.get(name, 1.0) <= 0]
    if given.get("batch", 1) < 1:
        faults.append("batch must be 1 or more")
    if given.get("batch_seconds", 0.0) < 0:
        faults.append("batch_seconds must not be below 0")
    if not 0 <= (given.get("read_back_per_second") or 0.0) <= READ_BACK_PER_SECOND_MAX:
        faults.append(f"read_back_per_second must be from 0 to {READ_BACK_PER_SECOND_MAX:g}")
    if 0 != given.get("verify_every_seconds", 0.0) < VERIFY_EVERY_SECONDS_MIN:
        faults.append(f"verify_every_seconds must be {VERIFY_EVERY_SECONDS_MIN:g} or more, or 0 for never")
    if given.get("start", "now") not in list(Start):
        faults.append(f"start is {given['start']!r}; right would be {' or '.join(map(repr, map(str, Start)))}")
    return faults
