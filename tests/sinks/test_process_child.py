"""One process: it answers, it is silent, it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend_watcher.sinks.process_child import (
    END_SECONDS_MAX,
    Child,
    ChildEndedError,
    ChildSilentError,
    end_all,
    started,
)
from backend_watcher.sinks.process_wire import Batch, Done, Kind, frame, read

from .workshop import gone, lines, setup

PROGRAM = "@watcher.on('x', batch=9)\ndef work(changes): pass\n"
ASK = frame(Kind.BATCH, Batch("work", False, [], []))


@pytest.fixture
async def child(tmp_path: Path) -> AsyncIterator[Child]:
    child, kind, _ = await started(setup(tmp_path, PROGRAM), 30.0)
    assert kind is Kind.READY
    yield child
    child.kill_now()


async def test_it_answers_what_is_larger_than_a_socket_holds(child: Child) -> None:
    large = frame(Kind.BATCH, Batch("work" * 1_000_000, False, [], []))
    kind, body = await child.ask(large, 30.0, lambda _: None)
    assert kind is Kind.DONE
    failure = read(body, Done).failure
    assert failure is not None
    assert "no function for the subscription" in failure.message
    assert await child.ask(ASK, 30.0, lambda _: None) == (Kind.DONE, frame(Kind.DONE, Done())[5:])
    assert child.begun


async def test_one_that_is_stopped_is_silent(child: Child) -> None:
    os.kill(child.pid, signal.SIGSTOP)
    silences: list[float] = []
    with pytest.raises(ChildSilentError):
        await child.ask(ASK, 0.4, silences.append)
    assert silences == sorted(silences)
    assert silences[-1] >= 0.4
    assert not child.begun
    assert await child.kill() == "SIGKILL"
    assert not child.running


async def test_one_that_is_gone_has_ended(child: Child) -> None:
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ChildEndedError):
        await child.ask(ASK, 30.0, lambda _: None)
    assert await child.kill() == "SIGKILL"
    assert not child.running
    assert child.kill_now() == "SIGKILL"


async def test_they_end_together_and_in_bounded_time(tmp_path: Path) -> None:
    stays = "def stay(): threading.Event().wait()\nthreading.Thread(target=stay).start()\natexit.register(note, 1)\n"
    slow = "def leave(): threading.Event().wait(0.3); note(2)\natexit.register(leave)\n"
    goes = [(await started(setup(tmp_path, PROGRAM + slow), 30.0))[0] for _ in range(2)]
    stuck = [(await started(setup(tmp_path, PROGRAM + stays), 30.0))[0] for _ in range(2)]
    begun = time.monotonic()
    end_all([*stuck, *goes])
    assert time.monotonic() - begun < 2 * END_SECONDS_MAX
    assert all(gone(child.pid) for child in [*goes, *stuck])
    assert lines(tmp_path) == [["2"], ["2"]]


async def test_signals_for_the_parent_do_not_end_it(child: Child) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child.pid, number)
    assert await child.ask(ASK, 30.0, lambda _: None)
    assert os.getsid(child.pid) == child.pid


async def test_it_outlives_the_thread_and_loop_that_started_it(tmp_path: Path) -> None:
    children: list[Child] = []
    shape = setup(tmp_path, PROGRAM)

    def start() -> None:
        children.append(asyncio.run(started(shape, 30.0))[0])

    thread = threading.Thread(target=start)
    thread.start()
    await asyncio.to_thread(thread.join)
    (child,) = children
    try:
        assert await child.ask(ASK, 30.0, lambda _: None)
    finally:
        child.kill_now()
