"""
A user's function as a sink, in processes of its own: it can neither eat the watcher's time nor end it.

A process that ends in the middle (`os._exit`, a signal, a limit), or is at one call for longer than `timeout_seconds`
and is killed, has failed on exactly the change it was at: what it had done before counts. A function that is called
per batch fails with the whole batch. Another process takes its place; only then is the failed change tried again, so
two never work on one key.

The changes travel as the source sent them. Predicates and transforms are applied over there, where they are loaded
with the program (`service/worker.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from backend_watcher.contracts import Receipt
from backend_watcher.errors import HandlerDied, HandlerError, HandlerTimeout, PartlyWritten, SinkUnavailable
from backend_watcher.events.change import Change
from backend_watcher.events.packed import pack
from backend_watcher.sinks.process_child import Child, ChildEndedError, ChildSilentError
from backend_watcher.sinks.process_pool import Lease, Workers
from backend_watcher.sinks.process_wire import Batch, Done, Kind, Packed, Shape, error_of, frame, read

STARTS_MAX = 3
"""Processes that may end one after the other before they have begun with a batch."""

log = structlog.get_logger("watcher")


class ProcessHandler:
    """Calls the function of a subscription in one of `workers`, in the words of `Handler`."""

    times_itself = True

    def __init__(
        self, subscription: str, workers: Workers, *, batch: bool, timeout_seconds: float, coalesce: bool = False
    ) -> None:
        self._subscription = subscription
        self._workers = workers
        self._by_batch = batch
        self._coalesce = coalesce
        # The newest change of a key stands for others that may be anywhere in the batch.
        self._as_a_whole = batch or coalesce
        self.timeout_seconds = timeout_seconds
        self._traced = ""

    async def open(self) -> None:
        """Start a process and load the program. Raises SinkUnavailable."""
        await self._workers.join(self)

    async def close(self) -> None:
        """Let go of the processes; the last who does ends them."""
        await self._workers.leave(self)

    async def flush(self) -> None:
        """Nothing waits: a batch is done when `write` returns."""

    def describe(self) -> Mapping[str, Any]:
        """Say which function this is, and where it runs."""
        runs = {"runs_in": "process", "processes": self._workers.processes}
        return {"kind": "handler", "name": self._subscription, "batch": self._by_batch, **runs}

    async def write(self, batch: Sequence[Change]) -> Receipt:
        """Call the function. Raises PartlyWritten with a HandlerError; for a batch function the error itself."""
        for _ in range(STARTS_MAX):
            lease = await self._workers.lease(self)
            try:
                if await self._offer(lease, batch):
                    return Receipt.DURABLE
            finally:
                self._workers.give_back(lease)
        raise SinkUnavailable(f"{self._subscription}: worker processes end before they have begun")

    async def _offer(self, lease: Lease, batch: Sequence[Change]) -> bool:
        """Have a process do it; False where it ended before it began, which is not the function's doing."""
        child, lease.child = lease.child, None
        assert child is not None
        try:
            kind, body = await child.ask(
                self._frames(child, batch),
                self.timeout_seconds,
                lambda seconds: self._workers.note_silence(lease, seconds),
            )
        except ChildSilentError:
            await child.kill()
            error: HandlerError = HandlerTimeout(f"{self._subscription} took longer than {self.timeout_seconds:g} s")
            return self._broken(child, batch, error)
        except ChildEndedError:
            error = HandlerDied(f"the process that ran {self._subscription} ended: {await child.kill()}")
            return self._broken(child, batch, error)
        except BaseException:
            # Cancelled: nobody may still be at these keys when they are delivered again.
            child.kill_now()
            raise
        lease.child = child
        assert kind is Kind.DONE
        self._judge(read(body, Done))
        return True

    def _frames(self, child: Child, batch: Sequence[Change]) -> bytes:
        """Write the batch, and before it the tables that this process does not know yet."""
        parts: list[bytes] = []
        streams: dict[tuple[str, str], int] = {}
        packed: list[Packed] = []
        for change in batch:
            table, stream = change.table, change.transaction.stream
            if table.version not in child.tables:
                child.tables.add(table.version)
                parts.append(frame(Kind.TABLE, Shape(table.version, table.dump())))
            number = streams.setdefault((stream.system_identifier, stream.slot), len(streams))
            packed.append(Packed(number, table.version, pack(change)))
        parts.append(frame(Kind.BATCH, Batch(self._subscription, self._coalesce, list(streams), packed)))
        return b"".join(parts)

    def _broken(self, child: Child, batch: Sequence[Change], error: HandlerError) -> bool:
        """Say what a process has done that is gone now."""
        if not child.begun:
            return False
        if child.done >= len(batch):
            return True
        if self._as_a_whole:
            raise error
        raise PartlyWritten(child.done, error)

    def _judge(self, done: Done) -> None:
        if done.failure is None:
            return
        if done.failure.trace and done.failure.trace != self._traced:
            # Once for each place in the code: it may fail again and again.
            self._traced = done.failure.trace
            log.warning("function failed", subscription=self._subscription, where=done.failure.trace)
        error = error_of(done.failure)
        if done.settled is None:
            raise error
        raise PartlyWritten(done.settled, error)
