"""A user's function as a sink: order, failures, threads, cancellation."""

from __future__ import annotations

import asyncio
import functools
import threading
from contextvars import ContextVar

import pytest

from backend_watcher.contracts import Receipt
from backend_watcher.errors import ConfigError, HandlerError, HandlerTimeout, PartlyWritten, RetryKind
from backend_watcher.events.change import Change
from backend_watcher.sinks.handler import Handler
from backend_watcher.testing.conformance_sink import insert

WAIT_SECONDS = 10.0
BATCH = [insert(1, 1, "a"), insert(2, 2, "b"), insert(3, 3, "c")]


def failing(at: int, error: BaseException, is_async: bool, seen: list[int]):
    def sync(change: Change) -> None:
        if change.key[0] == at:
            raise error
        seen.append(change.key[0])

    async def wait(change: Change) -> None:
        sync(change)

    return wait if is_async else sync


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("error", [ValueError("no stock"), SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("at", [1, 3])
async def test_a_failure_says_how_many_were_done(is_async: bool, error: BaseException, at: int) -> None:
    seen: list[int] = []
    sink = Handler(failing(at, error, is_async, seen))
    with pytest.raises(PartlyWritten) as caught:
        await sink.write(BATCH)
    await sink.close()
    assert caught.value.settled == at - 1
    assert seen == list(range(1, at))
    assert isinstance(caught.value.cause, HandlerError)
    assert caught.value.cause.message == f"{type(error).__name__}: {error}"
    assert caught.value.cause.__cause__ is error
    assert caught.value.cause.retry is RetryKind.LATER


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_failed_batch_is_failed_as_a_whole(is_async: bool) -> None:
    def sync(changes: list[Change]) -> None:
        raise SystemExit(3)

    async def wait(changes: list[Change]) -> None:
        sync(changes)

    sink = Handler(wait if is_async else sync, batch=True)
    with pytest.raises(HandlerError, match="SystemExit: 3"):
        await sink.write(BATCH)
    await sink.close()


async def test_a_stop_iteration_in_a_thread_is_a_failure_like_any_other() -> None:
    def stop(change: Change) -> None:
        next(iter([]))

    sink = Handler(stop)
    with pytest.raises(PartlyWritten, match="StopIteration"):
        await sink.write(BATCH)
    await sink.close()


async def test_a_whole_batch_stays_on_the_loop_or_goes_to_one_thread() -> None:
    threads: list[threading.Thread] = []

    async def wait(change: Change) -> None:
        threads.append(threading.current_thread())

    def sync(change: Change) -> None:
        threads.append(threading.current_thread())

    assert await Handler(wait).write(BATCH) is Receipt.DURABLE
    assert set(threads) == {threading.current_thread()}
    threads.clear()
    sink = Handler(sync)
    assert await sink.write(BATCH) is Receipt.DURABLE
    await sink.close()
    assert len(set(threads)) == 1
    assert threading.current_thread() not in threads


async def test_no_task_is_made_for_a_change() -> None:
    tasks: list[object] = []

    async def wait(change: Change) -> None:
        tasks.append(asyncio.current_task())

    await Handler(wait).write(BATCH)
    assert len(set(tasks)) == 1


@pytest.mark.parametrize("batch", [True, False])
async def test_cancelling_passes_through(batch: bool) -> None:
    started = asyncio.Event()

    async def wait(change: object) -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Handler(wait, batch=batch).write(BATCH))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_of_the_functions_own_making_is_a_failure() -> None:
    async def wait(change: Change) -> None:
        raise asyncio.CancelledError("a task of mine")

    with pytest.raises(PartlyWritten, match="CancelledError"):
        await Handler(wait).write(BATCH)


@pytest.mark.parametrize("by_batch", [True, False])
@pytest.mark.parametrize("waits", [True, False])
async def test_a_function_that_cancels_its_own_task_cancels_nothing_else(by_batch: bool, waits: bool) -> None:
    async def cancel(change: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if waits:
            await asyncio.Event().wait()

    sink = Handler(cancel, batch=by_batch)
    with pytest.raises(HandlerError if by_batch else PartlyWritten, match="CancelledError"):
        await sink.write(BATCH[:1])
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_batch_that_takes_too_long_fails_as_a_whole(is_async: bool) -> None:
    release = threading.Event()

    async def wait(changes: object) -> None:
        await asyncio.Event().wait()

    def sync(changes: object) -> None:
        release.wait(WAIT_SECONDS)

    sink = Handler(wait if is_async else sync, batch=True, name="slow", timeout_seconds=0.05)
    with pytest.raises(HandlerTimeout, match=r"slow took longer than 0\.05 s"):
        await sink.write(BATCH)
    release.set()
    await sink.close()


async def test_a_thread_that_never_ends_fails_each_try_of_its_keys_and_no_other() -> None:
    release, seen = threading.Event(), []

    def stuck(change: Change) -> None:
        if change.key[0] == 1:
            release.wait(WAIT_SECONDS)
        seen.append(change.key[0])

    sink = Handler(stuck, name="stuck", timeout_seconds=0.05)
    for message in ("took longer", "still runs"):
        with pytest.raises(PartlyWritten, match=message) as caught:
            await sink.write(BATCH)
        assert isinstance(caught.value.cause, HandlerTimeout)
    await sink.write([insert(9, 9, "other")])
    assert seen == [9]
    release.set()
    await sink.close()


async def test_only_the_row_that_a_stuck_thread_is_at_waits_for_it() -> None:
    release, seen = threading.Event(), []

    def stuck(change: Change) -> None:
        if change.key[0] == 1:
            release.wait(WAIT_SECONDS)
        seen.append(change.key[0])

    sink = Handler(stuck, name="stuck", timeout_seconds=0.05)
    with pytest.raises(PartlyWritten, match="took longer"):
        await sink.write([insert(0, 0, "x"), insert(1, 1, "x"), insert(2, 2, "x")])
    await sink.write([insert(3, 2, "x")])
    with pytest.raises(PartlyWritten, match="still runs") as caught:
        await sink.write([insert(4, 3, "x"), insert(5, 1, "x"), insert(6, 4, "x")])
    assert (caught.value.settled, seen) == (1, [0, 2, 3])
    release.set()
    await sink.close()


async def test_a_cancelled_thread_stops_after_its_change_and_is_waited_for_by_its_keys() -> None:
    seen: list[int] = []
    started, release = threading.Event(), threading.Event()

    def slow(change: Change) -> None:
        if change.key[0] == 1 and not started.is_set():
            started.set()
            release.wait(WAIT_SECONDS)
        seen.append(change.key[0])

    sink = Handler(slow)
    first = asyncio.create_task(sink.write(BATCH))
    await asyncio.to_thread(started.wait, WAIT_SECONDS)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await sink.write([insert(9, 9, "other")])
    again = asyncio.create_task(sink.write(BATCH))
    # Another whole batch passes by, and this one has not begun.
    await sink.write([insert(10, 10, "other")])
    assert seen == [9, 10]
    release.set()
    await again
    assert seen == [9, 10, 1, 1, 2, 3]
    await sink.close()


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_call_that_takes_too_long_keeps_what_was_done_before(is_async: bool) -> None:
    release = threading.Event()

    async def wait(change: Change) -> None:
        if change.key[0] == 2:
            await asyncio.Event().wait()

    def sync(change: Change) -> None:
        if change.key[0] == 2:
            release.wait(WAIT_SECONDS)

    sink = Handler(wait if is_async else sync, name="slow", timeout_seconds=0.05)
    with pytest.raises(PartlyWritten) as caught:
        await sink.write(BATCH)
    release.set()
    await sink.close()
    assert caught.value.settled == 1
    assert isinstance(caught.value.cause, HandlerTimeout)
    assert caught.value.cause.message == "slow took longer than 0.05 s"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_plain_function_that_gives_something_to_await_is_refused() -> None:
    async def wait(change: Change) -> None: ...

    sink = Handler(lambda change: wait(change))
    with pytest.raises(PartlyWritten, match="not an async def"):
        await sink.write(BATCH)
    await sink.close()


class Callable:
    async def __call__(self, change: Change) -> None: ...


async def wait(first: object, change: Change) -> None: ...


@pytest.mark.parametrize("function", [Callable(), functools.partial(wait, 1), functools.partial(Callable())])
async def test_whatever_can_be_awaited_runs_on_the_loop(function: object) -> None:
    sink = Handler(function)
    assert sink.describe()["runs_in"] == "loop"
    await sink.write(BATCH)


def test_it_is_named_for_its_function() -> None:
    assert Handler(wait).describe() == {
        "kind": "handler",
        "name": f"{__name__}.wait",
        "batch": False,
        "runs_in": "loop",
    }
    assert Handler(functools.partial(wait, 1)).describe()["name"] == f"{__name__}.wait"
    assert Handler(Callable(), name="mine", batch=True).describe()["name"] == "mine"


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="str is not a function"):
        Handler("print")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="threads"):
        Handler(print, threads=0)


request: ContextVar[str] = ContextVar("request")


async def test_a_thread_sees_the_context_of_the_delivery() -> None:
    seen: list[str] = []
    request.set("r-1")
    sink = Handler(lambda change: seen.append(request.get()))
    await sink.write(BATCH[:1])
    await sink.close()
    assert seen == ["r-1"]
