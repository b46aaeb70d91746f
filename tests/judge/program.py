"""The program under judgement: one subscription that takes everything the publication sends into JUDGE_MIRROR."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from backend_watcher import Change, Watcher
from backend_watcher.contracts import Receipt
from backend_watcher.delivery.route import Route
from backend_watcher.errors import SinkRejected
from backend_watcher.events.position import START, Position
from backend_watcher.events.transaction import Stream
from judge.mirror import Mirror


class Fold:
    """A sink that keeps its position with the data."""

    feeding: ClassVar[Mapping[str, Any]] = {
        "concurrency": 1,
        "batch": 10_000,
        "max_in_flight": 100_000,
        "timeout_seconds": 300.0,
    }

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mirror: Mirror | None = None

    def belongs_to(self, subscription: str) -> None:
        """There is only one."""

    async def position_of(self, stream: Stream) -> Position:
        """Say how far the mirror is."""
        await self.open()
        return self._mirror.place if self._mirror is not None else START

    async def open(self) -> None:
        """Open the file."""
        self._mirror = self._mirror or Mirror(self._path)

    async def write(self, batch: Sequence[Change]) -> Receipt:
        """Apply what is new."""
        await self.open()
        assert self._mirror is not None
        self._mirror.apply(batch)
        return Receipt.DURABLE

    async def write_late(self, batch: Sequence[Change]) -> Receipt:
        """Nothing is ever held here: the mirror takes everything."""
        raise SinkRejected("a change of the judge's was held")

    async def flush(self) -> None:
        """Nothing waits."""

    async def close(self) -> None:
        """Let go."""
        if self._mirror is not None:
            self._mirror.close()
            self._mirror = None

    def describe(self) -> Mapping[str, Any]:
        """Say what this is."""
        return {"kind": "judge"}


def everything(_: Route, changes: Sequence[Change], __: frozenset[str]) -> Sequence[Change]:
    """Take the place of `Route.select`: the tables of the regression SQL are not there yet when this begins."""
    return changes


Route.select = everything  # type: ignore[method-assign]

watcher = Watcher("judge")
watcher.to(Fold(Path(os.environ["JUDGE_MIRROR"])), table="judge_marks", name="fold")
