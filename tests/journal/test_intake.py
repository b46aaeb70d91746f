"""The queue: bounded, in order, and never a loop that stands still."""

import asyncio
import threading

import pytest

from backend_watcher.errors import JournalBroken, JournalError, OutOfOrder
from backend_watcher.events.position import START, Position
from backend_watcher.journal import intake as intake_module
from backend_watcher.journal.intake import Group, Intake, keep


def make(**options):
    wished = {"last": START, "stored_bytes": 0, "cursors": {}, "quota_bytes": None}
    return Intake(**wished | options)


async def put(intake, chunk):
    await intake.put(chunk, chunk.commit_end_lsn)


def start(intake, *chunks):
    return [asyncio.create_task(put(intake, one)) for one in chunks]


async def turn():
    """Let every task go as far as it can."""
    for _ in range(5):
        await asyncio.to_thread(int)


async def test_what_gathers_is_taken_together(chunk):
    intake = make()
    chunks = [chunk() for _ in range(3)]
    for one in chunks:
        await put(intake, one)
    await intake.put(None, 5)
    group = intake.take(0)
    assert group.chunks == chunks
    assert group.lsn == chunks[-1].commit_end_lsn
    assert intake.take_now() is None


async def test_a_full_queue_makes_the_next_wait_in_order(chunk):
    chunks = [chunk(4) for _ in range(5)]
    intake = make(queue_bytes=2 * len(chunks[0].payload))
    tasks = start(intake, *chunks)
    await turn()
    assert [task.done() for task in tasks] == [True, True, False, False, False]
    first = intake.take(0)
    assert first.chunks == chunks[:2]
    await turn()
    # Still under way to the disk: it still counts.
    assert not tasks[2].done()
    intake.settle(first, 0)
    await turn()
    assert [task.done() for task in tasks] == [True, True, True, True, False]
    second = intake.take(0)
    intake.settle(second, 0)
    await turn()
    assert second.chunks + intake.take(0).chunks == chunks[2:]


async def test_an_advance_waits_behind_the_chunks_before_it(chunk):
    one, other = chunk(4), chunk(4)
    intake = make(queue_bytes=1)
    tasks = start(intake, one, other)
    advance = asyncio.create_task(intake.put(None, 1 << 40))
    await turn()
    group = intake.take(0)
    assert (group.lsn, advance.done()) == (one.commit_end_lsn, False)
    intake.settle(group, 0)
    await turn()
    assert tasks[1].done()
    assert advance.done()
    assert intake.take(0).lsn == 1 << 40


async def test_order_is_checked_against_those_who_wait_too(chunk):
    one, other, third = chunk(), chunk(), chunk()
    intake = make(queue_bytes=1)
    tasks = start(intake, one, other)
    await turn()
    with pytest.raises(OutOfOrder, match="already has"):
        await put(intake, other)
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    # It never came in, so it may come again.
    tasks = start(intake, other, third)
    await turn()
    group = intake.take(0)
    intake.settle(group, 0)
    await turn()
    assert tasks[0].done()
    assert not tasks[1].done()
    tasks[1].cancel()


async def test_cancelling_the_first_lets_in_who_fits(chunk):
    small, large, last = chunk(1), chunk(50), chunk(1)
    intake = make(queue_bytes=len(small.payload) + len(last.payload))
    tasks = start(intake, small, large, last)
    await turn()
    assert [task.done() for task in tasks] == [True, False, False]
    tasks[1].cancel()
    await turn()
    assert tasks[2].done()
    assert intake.take(0).chunks == [small, last]


async def test_the_quota_counts_what_is_stored_and_queued(chunk):
    chunk(9)
    chunks = [chunk(4) for _ in range(3)]
    size = len(chunks[-1].payload)
    assert {len(one.payload) for one in chunks} == {size}
    intake = make(quota_bytes=3 * size, stored_bytes=size, cursors={"a": Position(7, 0), "b": Position(5, 0)})
    tasks = start(intake, *chunks)
    await turn()
    assert [task.done() for task in tasks] == [True, True, False]
    assert intake.full
    group = intake.take(0)
    assert group.pressure.shed_bytes == size
    assert group.pressure.oldest_cursor == Position(5, 0)
    intake.settle(group, 3 * size)
    await turn()
    assert not tasks[2].done()
    intake.settle(Group(), 2 * size)
    await turn()
    assert tasks[2].done()
    assert not intake.full


async def test_a_cursor_that_moves_while_somebody_waits_is_taken_at_once(chunk):
    intake = make(quota_bytes=1, stored_bytes=5)
    (task,) = start(intake, chunk())
    await turn()
    assert intake.take(0).cursors == {}
    intake.save_cursor("a", Position(3, 0))
    # Not after CURSOR_SECONDS: take_now would return it anyway, take(0) only if it is due.
    assert intake.take(60).cursors == {"a": Position(3, 0)}
    task.cancel()


async def test_a_cursor_waits_for_company_but_not_long(monkeypatch):
    monkeypatch.setattr(intake_module, "CURSOR_SECONDS", 3600.0)
    intake = make()
    intake.save_cursor("a", Position(3, 0))
    taken = asyncio.create_task(asyncio.to_thread(intake.take, 3600))
    await turn()
    assert not taken.done()
    await intake.put(None, 9)
    group = await taken
    assert (group.lsn, group.cursors) == (9, {"a": Position(3, 0)})
    monkeypatch.setattr(intake_module, "CURSOR_SECONDS", 0.01)
    intake.save_cursor("a", Position(4, 0))
    assert (await asyncio.to_thread(intake.take, 3600)).cursors == {"a": Position(4, 0)}


async def test_an_idle_writer_is_woken_by_the_first_cursor():
    intake = make()
    taken = asyncio.create_task(asyncio.to_thread(intake.take, 3600))
    await turn()
    intake.save_cursor("a", START)
    assert (await asyncio.wait_for(taken, 20)).cursors == {"a": START}


async def test_stop_leaves_what_is_queued_to_be_written(chunk):
    one, other = chunk(), chunk()
    intake = make(queue_bytes=1)
    tasks = start(intake, one, other)
    await turn()
    intake.save_cursor("a", START)
    intake.stop()
    with pytest.raises(JournalError, match="closed before there was room"):
        await tasks[1]
    group = intake.take(3600)
    assert (group.chunks, group.cursors) == ([one], {"a": START})
    intake.settle(group, 1)
    assert intake.take(3600) is None
    for refused in (put(intake, other), intake.settle_after()):
        with pytest.raises(JournalError, match="closed"):
            await refused
    with pytest.raises(JournalError, match="closed"):
        intake.save_cursor("a", Position(5, 5))


async def test_after_a_failure_everybody_is_told_for_ever(chunk):
    one, other = chunk(), chunk()
    intake = make(queue_bytes=1)
    flushed = asyncio.create_task(intake.settle_after())
    await turn()
    in_flight = intake.take(0)
    tasks = start(intake, one, other)
    gathering = asyncio.create_task(intake.settle_after())
    await turn()
    intake.fail(in_flight, JournalBroken("the disk is full", remedy="buy one"))
    for told in (flushed, gathering, tasks[1]):
        with pytest.raises(JournalBroken, match="disk is full") as caught:
            await told
        assert caught.value.remedy == "buy one"
    for _ in range(2):
        for refused in (put(intake, other), intake.settle_after(), intake.put(None, 1)):
            with pytest.raises(JournalBroken, match="disk is full"):
                await refused
        for call in (lambda: intake.save_cursor("a", START), lambda: intake.forget_cursor("a")):
            with pytest.raises(JournalBroken):
                call()
    assert intake.broken is not None


async def test_a_waiter_whose_loop_is_gone_harms_nobody(chunk):
    one, other, third = chunk(), chunk(), chunk()
    intake = make(queue_bytes=1)
    await put(intake, one)
    loop = asyncio.new_event_loop()
    task = loop.create_task(put(intake, other))
    await asyncio.to_thread(loop.run_until_complete, asyncio.wait_for(asyncio.shield(turn_in(loop)), 20))
    task._log_destroy_pending = False
    loop.close()
    tasks = start(intake, third)
    await turn()
    group = intake.take(0)
    intake.settle(group, 0)
    group = intake.take(0)
    intake.settle(group, 0)
    await turn()
    assert tasks[0].done()
    task.get_coro().close()


def turn_in(loop):
    future = loop.create_future()
    loop.call_later(0.01, future.set_result, None)
    return future


async def test_many_threads_wait_at_once(chunk):
    chunks = [chunk() for _ in range(40)]
    intake = make(queue_bytes=1)
    turns = iter(chunks)
    lock = threading.Lock()
    taken = []

    def write():
        while len(taken) < len(chunks):
            group = intake.take(20)
            taken.extend(group.chunks)
            intake.settle(group, 0)

    async def append():
        while True:
            with lock:
                one = next(turns, None)
                if one is None:
                    return
                task = asyncio.ensure_future(put(intake, one))
                await asyncio.wait([task], timeout=0)
            await task

    writer = asyncio.create_task(asyncio.to_thread(write))
    await asyncio.gather(*(asyncio.to_thread(asyncio.run, append()) for _ in range(4)))
    await writer
    assert taken == chunks


def test_keep():
    known = {"a": 1, "b": 2}
    keep(known, {"a": None, "b": 3, "c": 4, "d": None})
    assert known == {"b": 3, "c": 4}
