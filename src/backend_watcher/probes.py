"""
Named places that tests may watch, hold or break; free when nobody listens.

`reach("journal.before_commit")` costs one look at an empty dict. A test in the
same process arms a place with `arm()`; a test of a real process arms it from
outside with `WATCHER_PROBES=journal.before_commit=kill@3`: at the third time
the process is there it ends as by SIGKILL. `error` raises, and `hang` keeps the
thread there until the process ends, or `hang:0.5` for half a second.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

NAMES = frozenset(
    {
        "capture.publication_created",
        "capture.slot_created",
        "capture.identity_saved",
        "capture.received",
        "capture.committed",
        "capture.before_streamed",
        "capture.streamed_piece",
        "backfill.before_placed",
        "backfill.placed_piece",
        "backfill.before_mark",
        "backfill.placed",
        "backfill.before_note",
        "backfill.after_note",
        "capture.before_append",
        "capture.after_append",
        "capture.before_advance",
        "capture.before_feedback",
        "capture.after_feedback",
        "outbox.marked",
        "outbox.bound",
        "outbox.claimed",
        "outbox.piece",
        "outbox.before_done",
        "outbox.after_done",
        "outbox.emptied",
        "journal.before_insert",
        "journal.before_commit",
        "journal.after_commit",
        "journal.before_checkpoint",
        "journal.after_checkpoint",
        "delivery.before_write",
        "delivery.after_write",
        "delivery.before_cursor",
        "delivery.after_cursor",
        "delivery.before_hold",
        "delivery.after_hold",
        "delivery.before_let_go",
        "replica.before_commit",
        "replica.after_commit",
        "service.draining",
    }
)

_armed: dict[str, Callable[[], None]] = {}


class ProbeError(Exception):
    """Raised at a place that a test armed with `error`."""


def reach(name: str) -> None:
    """Say that the program is at the place `name`."""
    if _armed:
        action = _armed.get(name)
        if action is not None:
            action()


def arm(name: str, action: Callable[[], None]) -> None:
    """Do `action` whenever the place `name` is reached. Raises ValueError for a place that does not exist."""
    if name not in NAMES:
        raise ValueError(f"no probe is named {name!r}; there are: {', '.join(sorted(NAMES))}")
    _armed[name] = action


def disarm() -> None:
    """Forget every armed place."""
    _armed.clear()


def arm_from_environment(text: str | None = None) -> None:
    """Arm what `WATCHER_PROBES` says: `place=kill|error|hang[:seconds][@n]`, several divided by commas; n from 1."""
    for item in filter(None, (text if text is not None else os.environ.get("WATCHER_PROBES", "")).split(",")):
        name, _, wish = item.partition("=")
        told, _, nth = wish.partition("@")
        what, _, seconds = told.partition(":")
        if what not in _ACTIONS or (seconds and what != "hang"):
            raise ValueError(f"probe {name!r}: {told!r} is not one of {', '.join(sorted(_ACTIONS))}")
        arm(name.strip(), _at(int(nth or 1), _hang_for(float(seconds)) if seconds else _ACTIONS[what]))


def _at(nth: int, action: Callable[[], None]) -> Callable[[], None]:
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == nth:
            action()

    return count


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _error() -> None:
    raise ProbeError("armed by a test")


def _hang() -> None:
    # For ever, until a signal ends the process; other threads go on.
    threading.Event().wait()


def _hang_for(seconds: float) -> Callable[[], None]:
    def hang() -> None:
        threading.Event().wait(seconds)

    return hang


_ACTIONS: dict[str, Callable[[], None]] = {"kill": _kill, "error": _error, "hang": _hang}
