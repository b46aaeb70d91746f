"""
One batch, a request for each change: different keys at once, one key strictly in order, and the truth about the rest.

A truncate or a changed primary key is sent when all before it is answered, and before all after it. After a failed
change no later one of its key is sent, be it the old key or the new one; after any, no truncate; and after a truncate
that was not delivered, nothing. An error that every change would meet ends the batch at once, and whatever was not
sent then failed with that error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeAlias

from backend_watcher.errors import SinkFailed, SomeFailed, WatcherError
from backend_watcher.events.change import TRUNCATE, Change

Send: TypeAlias = Callable[[Change], Awaitable[None]]

WAITS = "an earlier change of the same key failed"


class Round:
    """Offers a batch to `send`, up to `connections` changes at once."""

    def __init__(self, batch: Sequence[Change], send: Send, connections: int) -> None:
        self._batch = batch
        self._send = send
        self._connections = connections
        self._done = bytearray(len(batch))
        self._failures: dict[int, BaseException] = {}
        self._ended_by: WatcherError | None = None
        self._owed: set[object] = set()
        """Keys with a change that is not delivered."""
        self._truncate_owed = False

    async def run(self) -> None:
        """Return when all is delivered. Raises SomeFailed that names all else, or the error that stopped the first."""
        for chains in stages(self._batch):
            await self._at_once(chains)
            if self._ended_by is not None:
                break
        if not self._failures:
            return
        ended_by = self._ended_by
        if ended_by is not None and not any(self._done) and all(map(_blames_sink, self._failures.values())):
            raise ended_by
        if ended_by is not None:
            self._failures.update(
                (index, ended_by) for index, done in enumerate(self._done) if not done and index not in self._failures
            )
        raise SomeFailed(self._failures)

    async def _at_once(self, chains: list[list[int]]) -> None:
        if len(chains) == 1:
            await self._one_by_one(chains[0])
            return
        waiting = iter(chains)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self._connections, len(chains))):
                tasks.create_task(self._work(waiting))

    async def _work(self, waiting: Iterator[list[int]]) -> None:
        # The workers share one iterator: each takes the next key when it is through with one.
        for chain in waiting:
            await self._one_by_one(chain)
            if self._ended_by is not None:
                return

    async def _one_by_one(self, chain: list[int]) -> None:
        for index in chain:
            if self._ended_by is not None:
                return
            change = self._batch[index]
            if self._failures and self._must_wait(change):
                self._fail(index, SinkFailed(WAITS))
                continue
            try:
                await self._send(change)
            except Exception as error:  # noqa: BLE001 whatever it is, this change is not delivered, and others may be
                self._fail(index, error)
            else:
                self._done[index] = 1

    def _must_wait(self, change: Change) -> bool:
        if self._truncate_owed or change.code == TRUNCATE:
            return True
        return not self._owed.isdisjoint(_keys(change))

    def _fail(self, index: int, error: Exception) -> None:
        change = self._batch[index]
        self._failures[index] = error
        if isinstance(error, WatcherError) and error.blames_sink:
            self._ended_by = self._ended_by or error
        if change.code == TRUNCATE:
            self._truncate_owed = True
        else:
            self._owed.update(_keys(change))


def stages(batch: Sequence[Change]) -> Iterator[list[list[int]]]:
    """Yield what may be under way together: the indexes of each key's changes, in order; a barrier by itself."""
    chains: dict[tuple[str, bytes], list[int]] = {}
    for index, change in enumerate(batch):
        if change.code == TRUNCATE or change.key_changed():
            if chains:
                yield list(chains.values())
                chains = {}
            yield [[index]]
            continue
        chains.setdefault((change.table.full_name, change.key_bytes()), []).append(index)
    if chains:
        yield list(chains.values())


def _keys(change: Change) -> list[object]:
    """
    Return what stands for the key of a change, and for the one before it where it changed.

    Without a primary key a row is its own key where the server identifies it so (REPLICA IDENTITY FULL); otherwise
    no row has anything to do with another.
    """
    table = change.table
    keys: list[tuple[object, ...] | None]
    if table.primary_key:
        keys = [change.key, change.key_before]
    else:
        columns = [table.columns[index].name for index in table.identity_indexes]
        rows = [row for row in (change.new, change.old) if row is not None and columns]
        keys = [tuple(row[name] for name in columns) for row in rows]
    # As text: a key may be of a type that no set takes, such as a list.
    return [(table.full_name, repr(key)) for key in keys if key is not None]


def _blames_sink(error: BaseException) -> bool:
    return isinstance(error, WatcherError) and error.blames_sink
