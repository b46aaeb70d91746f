"""
The program of the delivery scenarios: FAULTS_SCENARIO names one of the functions below.

Every subscription writes down what it took (`seen_NAME`, as `judge.read_seen` reads it) and how long after the commit
(`lag_NAME`). Empty files in the working directory are switches, so that a test can turn them while the program runs.
"""

import asyncio
import functools
import os
import threading
import time
from collections.abc import Sequence

from backend_watcher import Change, Watcher
from backend_watcher.contracts import Receipt
from backend_watcher.errors import SinkFailed, SinkTimeout, SomeFailed
from backend_watcher.service import stall
from backend_watcher.sinks import RedisCache, Stdout, Webhook

SIX = tuple(f"sub_{letter}" for letter in "abcdef")
LOOK_SECONDS = 0.05
FOR_EVER_SECONDS = 3600.0
ATTEMPTS = 4
FAILS_AT = (2, 6)
"""Items 3 and 7 of each ten."""
BATCH = 10

setting = os.environ.get
if seconds := setting("FAULTS_STALLED_SECONDS"):
    stall.STALLED_SECONDS = float(seconds)
watcher = Watcher("faults")
_never = threading.Event()


@functools.cache
def _file(name: str) -> int:
    return os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def line(change: Change) -> str:
    """Write what `judge.read_seen` reads."""
    version = change.row["version"] if change.new is not None else -1
    return f"{os.getpid()} {change.table.name} {change.operation} {change.row['id']} {version} 0 {change.event_id}\n"


def note(name: str, change: Change) -> None:
    """Write down that a subscription took a change, and how late."""
    now = time.time()
    os.write(_file(f"seen_{name}"), line(change).encode())
    lag = now - change.commit_time.timestamp()
    os.write(_file(f"lag_{name}"), f"{now} {lag} {change.row['id']}\n".encode())


def is_on(switch: str) -> bool:
    """Say whether a switch is on."""
    return os.path.exists(switch)


async def wait_for(switch: str) -> None:
    """Give way to others until a switch is on."""
    while not is_on(switch):
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(LOOK_SECONDS, passed.set)
        await passed.wait()


def block_until(switch: str) -> None:
    """Let nobody else run until a switch is on."""
    while not is_on(switch):
        _never.wait(LOOK_SECONDS)


def is_poison(change: Change) -> bool:
    """Say whether a row is one that nothing passes through until `mended` is on."""
    return change.new is not None and (change.row["note"] or "").startswith("poison")


def six() -> None:
    """Six handlers; from `hang` to `release` the last one hangs, and with FAULTS_HANG=blocks it blocks its loop."""
    for name in SIX:

        @watcher.on("items", name=name, timeout_seconds=FOR_EVER_SECONDS)
        async def handler(change: Change, name: str = name) -> None:
            if name == SIX[-1] and is_on("hang") and not is_on("release"):
                if setting("FAULTS_HANG") == "blocks":
                    block_until("release")
                else:
                    await wait_for("release")
            note(name, change)


def poison() -> None:
    """A handler that fails on poison; FAULTS_ATTEMPTS, FAULTS_PARKED_MAX."""
    attempts, most = int(setting("FAULTS_ATTEMPTS", str(ATTEMPTS))), int(setting("FAULTS_PARKED_MAX", "100000"))

    @watcher.on("items", name="note", attempts=attempts, retry_seconds_max=0.3, parked_max=most)
    async def handler(change: Change) -> None:
        if is_poison(change) and not is_on("mended"):
            raise ValueError("poisoned")
        note("note", change)


def two() -> None:
    """Two plain handlers."""
    for name in ("here", "there"):

        @watcher.on("items", name=name)
        async def handler(change: Change, name: str = name) -> None:
            note(name, change)


def silent() -> None:
    """A sink that never answers, a handler that blocks its event loop, both until `release`; and one that works."""
    watcher.to(Mute(), table="items", name="mute", timeout_seconds=FOR_EVER_SECONDS)

    @watcher.on("items", name="blocked", timeout_seconds=FOR_EVER_SECONDS)
    async def blocked(change: Change) -> None:
        block_until("release")
        note("blocked", change)

    @watcher.on("items", name="fine")
    async def fine(change: Change) -> None:
        note("fine", change)


def webhook() -> None:
    """A webhook to FAULTS_URL on this machine."""
    watcher.to(_hook(), table="items", name="hook", retry_seconds_max=1.0)


def _hook() -> Webhook:
    return Webhook(
        setting("FAULTS_URL", ""),
        secret=setting("FAULTS_SECRET", ""),
        connections=4,
        timeout_seconds=1.0,
        allow_http=True,
        allow_networks=["127.0.0.0/8"],
        ca_file=setting("FAULTS_CA"),
    )


def partial() -> None:
    """Of ten items the third and the seventh fail, once each: a sink of the program's own, and hashes in Redis."""
    watcher.to(Tenths("tenths"), table="items", name="tenths", batch=BATCH, batch_seconds=0.3, retry_seconds_max=0.3)
    cache = RedisCache(key="items:{id}", url=setting("FAULTS_REDIS", ""), format="hash")
    watcher.to(Offered("hashes", cache), table="items", name="hashes", batch=BATCH, retry_seconds_max=0.3)


def forgetful() -> None:
    """Sinks that do it, and lose the answer: FAULTS_LOST times each, every second time."""
    times = int(setting("FAULTS_LOST", "0"))
    lines = open("lines", "ab", buffering=0)  # noqa: SIM115 open as long as the process
    file, cache = Stdout(lines), RedisCache(key="items:{id}", url=setting("FAULTS_REDIS", ""))
    for name, sink in (("file", file), ("cache", cache)):
        watcher.to(Forgetful(name, sink, times), table="items", name=name, batch=BATCH, concurrency=1)
    watcher.to(_hook(), table="items", name="hook", retry_seconds_max=1.0)
    every_second = Every("handler", times)

    @watcher.on("items", name="handler", retry_seconds_max=0.3)
    async def handler(change: Change) -> None:
        note("handler", change)
        if every_second():
            raise RuntimeError("the answer was lost")


class Every:
    """Says yes every second time, so many times, and writes down how often: `lost_NAME`."""

    def __init__(self, name: str, times: int) -> None:
        self._name = name
        self._left = times
        self._turn = False

    def __call__(self) -> bool:
        self._turn = not self._turn
        if not self._turn or not self._left:
            return False
        self._left -= 1
        os.write(_file(f"lost_{self._name}"), b"\n")
        return True


class Around:
    """A sink around another."""

    def __init__(self, name: str, inner: RedisCache | Stdout | None = None) -> None:
        self._name = name
        self._inner = inner

    async def open(self) -> None:
        """Open what is inside."""
        if self._inner is not None:
            await self._inner.open()

    async def close(self) -> None:
        """Close what is inside."""
        if self._inner is not None:
            await self._inner.close()

    async def flush(self) -> None:
        """Nothing waits."""

    def describe(self) -> dict[str, str]:
        """Say what this is."""
        return {"kind": self._name}

    async def write(self, batch: Sequence[Change]) -> Receipt:
        """Write what is inside, or note it."""
        if self._inner is not None:
            return await self._inner.write(batch)
        for change in batch:
            note(self._name, change)
        return Receipt.DURABLE


class Offered(Around):
    """Writes down everything it is offered: `offered_NAME`."""

    async def write(self, batch: Sequence[Change]) -> Receipt:
        """Note all, and write it."""
        os.write(_file(f"offered_{self._name}"), "".join(map(line, batch)).encode())
        return await super().write(batch)


class Tenths(Offered):
    """Fails at the third and the seventh of ten, each change once; and with it what follows of its key."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._failed: set[str] = set()

    async def write(self, batch: Sequence[Change]) -> Receipt:
        """Take all but those."""
        os.write(_file(f"offered_{self._name}"), "".join(map(line, batch)).encode())
        failures: dict[int, BaseException] = {}
        keys: set[bytes] = set()
        for at, change in enumerate(batch):
            fails = len(batch) == BATCH and at in FAILS_AT and change.event_id not in self._failed
            if fails:
                self._failed.add(change.event_id)
            if fails or change.key_bytes() in keys:
                failures[at] = SinkFailed(f"item {at + 1} of {len(batch)}")
                keys.add(change.key_bytes())
            else:
                note(self._name, change)
        if failures:
            os.write(_file("failed_" + self._name), "".join(line(batch[at]) for at in failures).encode())
            raise SomeFailed(failures)
        return Receipt.DURABLE


class Forgetful(Around):
    """Writes, and loses the answer."""

    def __init__(self, name: str, inner: RedisCache | Stdout, times: int) -> None:
        super().__init__(name, inner)
        self._every_second = Every(name, times)

    async def write(self, batch: Sequence[Change]) -> Receipt:
        """Write it; say so or not."""
        receipt = await super().write(batch)
        if self._every_second():
            raise SinkTimeout("the answer was lost")
        return receipt


class Mute(Around):
    """Takes everything, and says nothing until `release`."""

    def __init__(self) -> None:
        super().__init__("mute")

    async def write(self, batch: Sequence[Change]) -> Receipt:
        """Wait, then take it."""
        await wait_for("release")
        return await super().write(batch)


{one.__name__: one for one in (six, poison, two, silent, webhook, partial, forgetful)}[setting("FAULTS_SCENARIO", "")]()
