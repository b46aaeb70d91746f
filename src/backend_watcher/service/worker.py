"""
The process that runs a user's functions: `python -m backend_watcher.service.worker`, started by `sinks/process.py`.

It loads the same program as its parent, finds a subscription by its name, and calls its function with what it is sent,
one batch after the other, through the same predicate, transforms and `Handler` as if it ran in the watcher itself. It
never decides when to end: it is told to, or killed, or its parent is gone.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import mmap
import os
import resource
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend_watcher.decode.tables import load_table
from backend_watcher.delivery.coalesce import coalesce
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.delivery.transform import transformed
from backend_watcher.errors import ConfigError, PartlyWritten
from backend_watcher.events.change import Change
from backend_watcher.events.packed import unpack
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Stream
from backend_watcher.service import load
from backend_watcher.service.output import print_line_by_line
from backend_watcher.service.subscribed import subscription_of
from backend_watcher.service.watcher import Wanted, Watcher
from backend_watcher.sinks.handler import Handler
from backend_watcher.sinks.process_child import BEGUN, DONE
from backend_watcher.sinks.process_wire import (
    Batch,
    Done,
    Frames,
    Kind,
    Packed,
    Refused,
    Setup,
    Shape,
    failure_of,
    frame,
    read,
)

RECEIVE_BYTES = 1 << 18
CALL_SECONDS_MAX = 365 * 86400.0
"""The parent is who has the watch."""

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Work until told to end. The descriptors of the socket and of the shared memory are the arguments."""
    print_line_by_line()
    connection = socket.socket(fileno=int(sys.argv[1]))
    progress = memoryview(mmap.mmap(int(sys.argv[2]), mmap.PAGESIZE)).cast("Q")
    for number in (signal.SIGTERM, signal.SIGINT):
        # They are for the parent, which drains. A function, because what is ignored stays so in what we start.
        signal.signal(number, _ignore)
    threading.Thread(target=_end_with_parent, args=(connection.fileno(),), name="watcher-parent", daemon=True).start()
    asyncio.run(_serve(connection, progress))


def _ignore(number: int, frame: object) -> None:
    """Do nothing."""


def _end_with_parent(descriptor: int) -> None:
    """Wait until the other end of the socket is closed, then end, with all that was started here."""
    poll = select.poll()
    poll.register(descriptor, 0)
    poll.poll()
    _end()


def _die_with_parent(parent: int) -> None:
    """Ask the kernel for the same: a thread cannot do it while C code keeps the interpreter."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        _end()


def _end() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    # Not started by a watcher: the others of the group are not ours.
    os._exit(1)


async def _serve(connection: socket.socket, progress: memoryview) -> None:
    """Answer frames, one after the other."""
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    frames = Frames()
    work: _Work | None = None
    while data := await loop.sock_recv(connection, RECEIVE_BYTES):
        for kind, body in frames.feed(data):
            if kind is Kind.SETUP:
                try:
                    work = _Work(_prepared(read(body, Setup)), progress)
                except ConfigError as error:
                    await loop.sock_sendall(connection, frame(Kind.REFUSED, Refused(error.faults)))
                else:
                    await loop.sock_sendall(connection, frame(Kind.READY))
            elif kind is Kind.STOP:
                return
            elif work is not None and kind is Kind.TABLE:
                work.learn(read(body, Shape))
            elif work is not None and kind is Kind.BATCH:
                answer = frame(Kind.DONE, await work.do(read(body, Batch)))
                await loop.sock_sendall(connection, answer)


def _prepared(setup: Setup) -> Watcher:
    """Load the program and take on its limits. Raises ConfigError."""
    _die_with_parent(setup.parent)
    sys.path += [place for place in setup.path if place not in sys.path]
    load.in_worker = True
    watcher = load.load_watcher(setup.target)
    gc.collect()
    gc.freeze()
    if setup.memory_bytes is not None:
        _limit_memory(setup.memory_bytes)
    return watcher


def _limit_memory(size_bytes: int) -> None:
    if sys.platform == "linux":
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        if taken >= size_bytes:
            raise ConfigError([f"memory_bytes is {size_bytes}, and the program takes {taken} without any work"])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (size_bytes, hard))
    except (ValueError, OSError) as error:
        raise ConfigError([f"memory_bytes is {size_bytes}, which this system does not take: {error}"]) from None


class _Work:
    """What the parent has told, and the functions it has asked for."""

    def __init__(self, watcher: Watcher, progress: memoryview) -> None:
        self._watcher = watcher
        self._progress = progress
        self._wanted = {wanted.name: wanted for wanted in watcher.wanted}
        self._calls: dict[str, _Call] = {}
        self._tables: dict[int, Table] = {}
        self._streams: dict[tuple[str, str], Stream] = {}

    def learn(self, shape: Shape) -> None:
        """Remember a table."""
        self._tables[shape.version] = load_table(shape.dump)

    async def do(self, batch: Batch) -> Done:
        """Call the function that a batch is for, and say how that ended."""
        streams = [self._streams.setdefault(names, Stream(*names)) for names in batch.streams]
        try:
            call = self._call(batch.subscription)
            changes = [self._change(packed, streams) for packed in batch.changes]
            self._progress[BEGUN] = 1
            await call.run(changes, batch.coalesce)
        except PartlyWritten as error:
            answer = Done(error.settled, failure_of(error.cause))
            _let_go(error)
            return answer
        except BaseException as error:  # noqa: BLE001 whatever it is, the parent has to know
            answer = Done(None, failure_of(error))
            _let_go(error)
            return answer
        self._progress[DONE] = len(batch.changes)
        return Done()

    def _change(self, packed: Packed, streams: Sequence[Stream]) -> Change:
        return unpack(packed.data, self._tables[packed.table], streams[packed.stream])

    def _call(self, name: str) -> _Call:
        call = self._calls.get(name)
        if call is None:
            wanted = self._wanted.get(name)
            if wanted is None or wanted.function is None:
                raise ConfigError([f"the program has no function for the subscription {name!r} any more"])
            call = self._calls[name] = _Call(wanted, subscription_of(wanted, self._watcher), self._progress)
        return call


def _let_go(error: BaseException | None) -> None:
    """Forget what the functions that failed hold: it may be all the memory there is."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class _Call:
    """A user's function behind its predicate and transforms. What they drop is done."""

    def __init__(self, wanted: Wanted, subscription: Subscription, progress: memoryview) -> None:
        self._route = subscription.route
        self._transforms = subscription.transforms
        self._progress = progress
        self._done = 0
        self._prepared = False
        function: Any = wanted.function
        self._function = function
        declared = wanted.sink.describe()
        self._by_batch = bool(declared["batch"])
        if not self._by_batch:
            function = self._wait if declared["runs_in"] == "loop" else self._step
        self._handler = Handler(
            function, batch=self._by_batch, name=wanted.name, threads=1, timeout_seconds=CALL_SECONDS_MAX
        )

    async def run(self, changes: Sequence[Change], newest_only: bool) -> None:
        """Raise as `Handler.write` does."""
        self._done = 0
        self._prepared = newest_only
        if not self._by_batch and not newest_only:
            await self._handler.write(changes)
            return
        made: list[Change] = []
        for number, change in enumerate(changes):
            try:
                left = self._made(change)
            except Exception as error:
                # The function gets what comes before, as it would in the watcher itself.
                await self._write(made, newest_only)
                raise PartlyWritten(number, error) from error
            if left is not None:
                made.append(left)
        await self._write(made, newest_only)

    async def _write(self, made: list[Change], newest_only: bool) -> None:
        """Call the function with what was made. What fails has failed as a whole."""
        if newest_only:
            made, _ = coalesce(made)
        try:
            if made:
                await self._handler.write(made)
        except PartlyWritten as error:
            raise error.cause from error

    def _made(self, change: Change) -> Change | None:
        return transformed(self._route, self._transforms, change)

    async def _wait(self, change: Change) -> None:
        made = change if self._prepared else self._made(change)
        if made is not None:
            await self._function(made)
        self._count()

    def _step(self, change: Change) -> Any:
        made = change if self._prepared else self._made(change)
        result = None if made is None else self._function(made)
        # Handler refuses a result that has to be awaited.
        self._count()
        return result

    def _count(self) -> None:
        self._done += 1
        self._progress[DONE] = self._done


if __name__ == "__main__":
    main()
