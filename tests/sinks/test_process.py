"""A user's function in processes of its own: what it may do to them, and what counts then."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend_watcher.contracts import Receipt, Sink
from backend_watcher.errors import (
    HandlerDied,
    HandlerError,
    HandlerTimeout,
    PartlyWritten,
    Retry,
    RetryKind,
    SinkUnavailable,
    Skip,
)
from backend_watcher.events.row import UNCHANGED
from backend_watcher.testing import builders
from backend_watcher.testing.conformance_sink import MakeSink, Read, Seen, SinkConformance, insert

from .workshop import gone, lines, running

WAIT_SECONDS = 20.0
BATCH = [insert(1, 1, "a"), insert(2, 2, "b"), insert(3, 3, "c")]
LARGE = 512 << 20

NOTE = "note(os.getpid(), change.key[0], change.event_id)\n"
KINDS = {
    "async": f"@watcher.on('products')\nasync def work(change):\n    {NOTE}",
    "plain": f"@watcher.on('products')\ndef work(change):\n    {NOTE}",
    "async batch": f"@watcher.on('products', batch=9)\nasync def work(changes):\n    for change in changes: {NOTE}",
    "plain batch": f"@watcher.on('products', batch=9)\ndef work(changes):\n    for change in changes: {NOTE}",
}


def at_two(doing: str, kind: str = "") -> str:
    """Write a program whose function does something at key 2."""
    body = f"    if change.key[0] == 2:\n        {doing}\n    note(os.getpid(), change.key[0])\n"
    return f"@watcher.on('products')\n{kind}{' ' * bool(kind)}def work(change):\n{body}"


async def until(condition) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_function_runs_elsewhere_and_in_order(tmp_path: Path, kind: str) -> None:
    async with running(tmp_path, KINDS[kind], batch="batch" in kind) as sink:
        assert await sink.write(BATCH) is Receipt.DURABLE
        assert await sink.write([insert(4, 4, "d")]) is Receipt.DURABLE
        assert sink.describe()["runs_in"] == "process"
    (pid,) = {line[0] for line in lines(tmp_path)}
    assert int(pid) != os.getpid()
    assert [line[1:] for line in lines(tmp_path)] == [
        [str(n), change.event_id] for n, change in enumerate([*BATCH, insert(4, 4, "d")], 1)
    ]
    assert gone(int(pid))


ENDS = {
    "os._exit": ("os._exit(3)", "exit code 3"),
    "a signal": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "a fault in C": ("ctypes.string_at(0)", "SIGSEGV"),
}


@pytest.mark.parametrize("kind", ["async", ""])
@pytest.mark.parametrize("how", ENDS)
async def test_a_process_that_ends_has_failed_on_the_change_it_was_at(tmp_path: Path, how: str, kind: str) -> None:
    doing, told = ENDS[how]
    async with running(tmp_path, at_two(doing, kind)) as sink:
        with pytest.raises(PartlyWritten) as caught:
            await sink.write(BATCH)
        assert caught.value.settled == 1
        assert isinstance(caught.value.cause, HandlerDied)
        assert told in caught.value.cause.message
        await sink.write(BATCH[2:])
    pids = [line[0] for line in lines(tmp_path)]
    assert [line[1] for line in lines(tmp_path)] == ["1", "3"]
    assert pids[0] != pids[1], "it was replaced"


async def test_a_batch_function_fails_as_a_whole(tmp_path: Path) -> None:
    async with running(
        tmp_path, "@watcher.on('x', batch=9)\ndef work(changes):\n    os._exit(7)\n", batch=True
    ) as sink:
        with pytest.raises(HandlerDied, match="exit code 7"):
            await sink.write(BATCH)


HANGS = {
    "waits": ("threading.Event().wait()", ""),
    "waits on the loop": ("await asyncio.Event().wait()", "async"),
    "blocks the loop": ("threading.Event().wait()", "async"),
    "computes": ("while True: pass", ""),
    "keeps the interpreter": ("ctypes.PyDLL(None).pause()", ""),
    "refuses to be cancelled": ("signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64)); threading.Event().wait()", ""),
}


@pytest.mark.parametrize("how", HANGS)
async def test_a_call_that_takes_too_long_is_killed(tmp_path: Path, how: str) -> None:
    doing, kind = HANGS[how]
    async with running(tmp_path, at_two(doing, kind), timeout_seconds=0.4) as sink:
        begun = time.monotonic()
        with pytest.raises(PartlyWritten) as caught:
            await sink.write(BATCH)
        assert 0.4 <= time.monotonic() - begun < 5
        assert caught.value.settled == 1
        assert isinstance(caught.value.cause, HandlerTimeout)
        assert gone(int(lines(tmp_path)[0][0]))
        await sink.write(BATCH[2:])


async def test_a_long_run_of_short_calls_is_left_alone(tmp_path: Path) -> None:
    program = "@watcher.on('x')\ndef work(change):\n    threading.Event().wait(0.15)\n"
    async with running(tmp_path, program, timeout_seconds=0.5) as sink:
        assert await sink.write([insert(n, n, "x") for n in range(1, 8)]) is Receipt.DURABLE


@pytest.mark.parametrize(
    ("doing", "message"),
    [
        ("raise ValueError('no stock')", "ValueError: no stock"),
        ("sys.exit(3)", "SystemExit: 3"),
        ("(f := lambda: f())()", "RecursionError"),
        ("asyncio.current_task().cancel(); await asyncio.Event().wait()", "CancelledError"),
        ("return change.new['nothing']", "KeyError"),
    ],
)
async def test_what_it_raises_comes_back_as_words_and_the_process_goes_on(
    tmp_path: Path, doing: str, message: str
) -> None:
    async with running(tmp_path, at_two(doing, "async")) as sink:
        with pytest.raises(PartlyWritten) as caught:
            await sink.write(BATCH)
        assert caught.value.settled == 1
        assert type(caught.value.cause) is HandlerError
        assert message in caught.value.cause.message
        await sink.write(BATCH[2:])
    assert len({line[0] for line in lines(tmp_path)}) == 1


async def test_a_wrong_type_is_a_failure(tmp_path: Path) -> None:
    program = "async def lost(): pass\n@watcher.on('x')\ndef work(change):\n    return lost()\n"
    async with running(tmp_path, program) as sink:
        with pytest.raises(PartlyWritten, match="not an async def"):
            await sink.write(BATCH)


HOG = """
@watcher.on("products")
def work(change):
    held = []
    try:
        while change.key[0] == 2:
            held.append(bytearray(10 << 20))
    finally:
        note(os.getpid(), len(held))
"""


async def test_memory_has_a_limit_and_the_process_outlives_it(tmp_path: Path) -> None:
    async with running(tmp_path, HOG, memory_bytes=LARGE) as sink:
        for _ in range(3):
            with pytest.raises(PartlyWritten, match="MemoryError") as caught:
                await sink.write(BATCH[1:])
            assert caught.value.settled == 0
        await sink.write(BATCH[2:])
    assert len({line[0] for line in lines(tmp_path)}) == 1
    *hogs, last = [int(line[1]) for line in lines(tmp_path)]
    assert last == 0
    assert min(hogs) > max(hogs) / 2 > 5, "what it held was free again"


async def test_a_limit_that_the_program_alone_exceeds_is_named(tmp_path: Path) -> None:
    with pytest.raises(SinkUnavailable, match="memory_bytes is 1048576, and the program takes"):
        async with running(tmp_path, KINDS["async"], memory_bytes=1 << 20):
            pass


@pytest.mark.parametrize(
    ("doing", "expected"),
    [
        ("raise Retry(2.5, 'later')", (Retry, "later", RetryKind.LATER, 2.5)),
        ("raise Skip('not for us')", (Skip, "not for us", RetryKind.SKIP, None)),
        (
            "raise type('Bad', (HandlerError,), {'retry': RetryKind.PARK, 'remedy': 'mend it'})('bad row')",
            (HandlerError, "bad row", RetryKind.PARK, None),
        ),
    ],
)
async def test_what_a_function_asks_for_is_heard(tmp_path: Path, doing: str, expected: tuple[object, ...]) -> None:
    async with running(tmp_path, at_two(doing)) as sink:
        with pytest.raises(PartlyWritten) as caught:
            await sink.write(BATCH)
    cause = caught.value.cause
    assert isinstance(cause, HandlerError)
    assert (type(cause), cause.message, cause.retry, cause.after_seconds) == expected


async def test_the_log_says_where_once_and_never_what(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with running(tmp_path, at_two("raise ValueError(change.new['name'] * 3)")) as sink:
        for _ in range(2):
            with pytest.raises(PartlyWritten, match="bbb"):
                await sink.write(BATCH)
    out, err = capfd.readouterr()
    assert (out + err).count("function failed") == 1
    assert "program.py" in out + err
    assert "bbb" not in out + err


async def test_predicates_and_transforms_are_applied_over_there(tmp_path: Path) -> None:
    program = (
        "@watcher.on('products', when=lambda c: c.new['name'] != 'b')\n"
        "def work(change):\n    note(change.new['name'])\n    if change.key[0] == 3: os._exit(1)\n"
        "@watcher.transform('products')\ndef louder(change):\n"
        "    if change.key[0] == 4: raise ValueError('no')\n"
        "    return change.replace(new={**change.new, 'name': change.new['name'].upper()})\n"
    )
    async with running(tmp_path, program) as sink:
        with pytest.raises(PartlyWritten) as caught:
            await sink.write(BATCH)
        assert caught.value.settled == 2, "what is dropped is done"
        with pytest.raises(PartlyWritten, match="transform louder") as caught:
            await sink.write([insert(5, 5, "e"), insert(4, 4, "d")])
        assert caught.value.settled == 1
    assert lines(tmp_path) == [["A"], ["C"], ["E"]]


async def test_a_batch_function_gets_what_comes_before_a_failing_transform(tmp_path: Path) -> None:
    program = (
        "@watcher.on('products', batch=9, when=lambda c: 1 // (c.key[0] - 3) or True)\n"
        "def work(changes):\n    note(*[c.key[0] for c in changes])\n"
    )
    async with running(tmp_path, program, batch=True) as sink:
        with pytest.raises(PartlyWritten, match="ZeroDivisionError") as caught:
            await sink.write(BATCH)
    assert caught.value.settled == 2
    assert lines(tmp_path) == [["1", "2"]]


@pytest.mark.parametrize("kind", ["plain", "plain batch"])
async def test_only_the_newest_change_of_a_key_with_what_it_leaves_out(tmp_path: Path, kind: str) -> None:
    program = KINDS[kind].replace("event_id", "new['name']")
    large = builders.change("update", new={"id": 1, "name": UNCHANGED, "stock": 5}, lsn=9)
    async with running(tmp_path, program, batch="batch" in kind, coalesce=True) as sink:
        await sink.write([insert(1, 1, "kept"), insert(2, 2, "b"), large])
    assert [line[1:] for line in lines(tmp_path)] == [["2", "b"], ["1", "kept"]]


async def test_one_that_hangs_leaves_the_other_process_to_others(tmp_path: Path) -> None:
    async with running(tmp_path, at_two("threading.Event().wait()"), processes=2, timeout_seconds=60) as sink:
        await sink.write(BATCH[:1])
        stuck = asyncio.create_task(sink.write(BATCH[1:2]))
        for n in range(20):
            async with asyncio.timeout(WAIT_SECONDS):
                await sink.write([insert(n + 10, n + 10, "x")])
        assert not stuck.done()
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
    assert all(gone(int(line[0])) for line in lines(tmp_path))


async def test_a_cancelled_batch_has_ended_before_its_keys_come_again(tmp_path: Path) -> None:
    program = "@watcher.on('x')\ndef work(change):\n    note(os.getpid())\n    threading.Event().wait()\n"
    async with running(tmp_path, program) as sink:
        first = asyncio.create_task(sink.write(BATCH))
        await until(lambda: lines(tmp_path))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert gone(int(lines(tmp_path)[0][0]))


async def test_a_process_that_ends_with_nothing_to_do_is_nobodys_fault(tmp_path: Path) -> None:
    async with running(tmp_path, KINDS["plain"]) as sink:
        for number in range(3):
            assert await sink.write([insert(number + 1, 1, "a")]) is Receipt.DURABLE
            pid = int(lines(tmp_path)[-1][0])
            os.kill(pid, signal.SIGKILL)
            if number:
                await until(lambda pid=pid: gone(pid))
    assert len({line[0] for line in lines(tmp_path)}) == 3


async def test_processes_end_in_order_and_those_that_do_not_are_killed(tmp_path: Path) -> None:
    ends = KINDS["plain"] + "atexit.register(note, 'ended')\n"
    async with running(tmp_path, ends) as sink:
        await sink.write(BATCH)
    assert lines(tmp_path)[-1] == ["ended"]
    stays = KINDS["plain"] + "threading.Thread(target=threading.Event().wait).start()\n"
    async with running(tmp_path, stays) as sink:
        await sink.write(BATCH)
    assert gone(int(lines(tmp_path)[-1][0]))
    await sink.close()


async def test_what_a_killed_function_started_ends_with_it(tmp_path: Path) -> None:
    start = "import subprocess; note(subprocess.Popen(['sleep', '600']).pid); threading.Event().wait()"
    async with running(tmp_path, f"@watcher.on('x')\ndef work(change):\n    {start}\n", timeout_seconds=0.5) as sink:
        with pytest.raises(PartlyWritten):
            await sink.write(BATCH)
    await until(lambda: gone(int(lines(tmp_path)[0][0])))


async def test_one_that_ended_is_noticed_though_what_it_started_holds_its_socket(tmp_path: Path) -> None:
    async with running(
        tmp_path, at_two("pid = os.fork()\n        if pid: note(pid); os._exit(9)\n        signal.pause()")
    ) as sink:
        with pytest.raises(PartlyWritten, match="exit code 9") as caught:
            await sink.write(BATCH)
        assert caught.value.settled == 1
    await until(lambda: gone(int(lines(tmp_path)[1][0])))


async def test_a_program_that_does_not_load_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(SinkUnavailable, match=r"cannot load the program: .*NameError"):
        async with running(tmp_path, "nothing_of_this_name\n"):
            pass
    with pytest.raises(SinkUnavailable, match="ended while it loaded"):
        async with running(tmp_path, "os._exit(1)\n"):
            pass
    async with running(tmp_path, KINDS["plain"], name="other") as sink:
        with pytest.raises(HandlerError, match="no function for the subscription 'other'"):
            await sink.write(BATCH)


PARENT = """
import asyncio, os, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from sinks.workshop import running
from sinks.test_process import BATCH

async def main():
    folder = Path(sys.argv[1])
    program = "@watcher.on('x')\\ndef work(change):\\n    note(os.getpid())\\n    " + sys.argv[2] + "\\n"
    async with running(folder, program) as sink:
        await sink.write(BATCH)

asyncio.run(main())
"""


@pytest.mark.parametrize("doing", ["while True: pass", "ctypes.PyDLL(None).pause()"])
async def test_no_process_outlives_a_parent_that_is_killed(tmp_path: Path, doing: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), doing, *sys.path])
    try:
        await until(lambda: lines(tmp_path) or parent.poll() is not None)
        (pid,) = {int(line[0]) for line in lines(tmp_path)}
        assert not gone(pid)
    finally:
        parent.kill()
        parent.wait()
    await until(lambda: gone(pid))


class TestContract(SinkConformance):
    @pytest.fixture
    async def sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        program = "@watcher.on('products')\nasync def work(change):\n    note(change.code, *change.key, *(c[0] for c in"
        program += " [change.key_before] if c), str((change.new or {}).get('name')).replace(' ', '~'))\n"
        async with running(tmp_path, program) as sink:
            yield sink

    @pytest.fixture
    def make(self, sink: Sink) -> MakeSink:
        return lambda: sink

    @pytest.fixture
    def read(self, tmp_path: Path) -> Read:
        async def read() -> Seen:
            names: dict[int, str] = {}
            for code, *rest in lines(tmp_path):
                if code == "3":
                    names.clear()
                elif code == "2":
                    names.pop(int(rest[0]), None)
                else:
                    for key in rest[:-1]:
                        names.pop(int(key), None)
                    names[int(rest[0])] = rest[-1].replace("~", " ")
            return names

        return read
