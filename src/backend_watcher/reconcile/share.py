"""The share of changes that were visible in the sink within N seconds, over the last minutes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from backend_watcher.reconcile.sampling import LOOKS_SECONDS, Seen

WINDOW_SECONDS = 600.0
SLICE_SECONDS = 60.0
"""The window moves on by so much: it is kept as ten numbers, not as changes."""


@dataclass(slots=True)
class Within:
    """How many of the changes that were looked at were visible within so many seconds of their commit."""

    seconds: float
    visible: int = 0
    missed: int = 0
    unknown: int = 0

    @property
    def share(self) -> float | None:
        """Of those of which it is known; None where there is none."""
        known = self.visible + self.missed
        return self.visible / known if known else None


class Shares:
    """Counts looks. Times are monotonic seconds."""

    def __init__(self, looks_seconds: Sequence[float] = LOOKS_SECONDS) -> None:
        self._looks_seconds = tuple(looks_seconds)
        self._slices: dict[int, list[Within]] = {}

    def add(self, look: int, seen: Seen, now: float) -> None:
        """Count one look, by its number."""
        self._forget(now)
        counts = self._slices.setdefault(int(now // SLICE_SECONDS), [Within(at) for at in self._looks_seconds])[look]
        if seen is Seen.VISIBLE:
            counts.visible += 1
        elif seen is Seen.MISSED:
            counts.missed += 1
        else:
            counts.unknown += 1

    def within(self, now: float) -> list[Within]:
        """Return what was counted in the window, one for each look."""
        self._forget(now)
        found = [Within(at) for at in self._looks_seconds]
        for counts in self._slices.values():
            for total, one in zip(found, counts, strict=True):
                total.visible += one.visible
                total.missed += one.missed
                total.unknown += one.unknown
        return found

    def _forget(self, now: float) -> None:
        oldest = int((now - WINDOW_SECONDS) // SLICE_SECONDS)
        for number in [number for number in self._slices if number <= oldest]:
            del self._slices[number]


@dataclass(slots=True)
class Visible:
    """What `watcher status` shows of a subscription's read-back."""

    window_seconds: float = WINDOW_SECONDS
    within: list[Within] = field(default_factory=list)

    def as_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        within = [asdict(one) | {"share": one.share} for one in self.within]
        return {"window_seconds": self.window_seconds, "within": within}


def note_name(subscription: str) -> str:
    """Return the name of the journal's note that holds what was seen of a subscription."""
    return f"read_back:{subscription}"


def dump(visible: Visible) -> str:
    """Write a note."""
    return msgspec.json.encode(visible).decode()


def load(text: str | None) -> Visible | None:
    """Read a note; None where there is none, or none that can be read."""
    try:
        return None if text is None else msgspec.json.decode(text, type=Visible)
    except msgspec.MsgspecError:
        return None
