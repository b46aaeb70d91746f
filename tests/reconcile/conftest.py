"""A source, a cache and a watcher that runs between them, for each module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey
from backend_watcher.service.config import Config, load_config
from backend_watcher.service.load import load_watcher
from backend_watcher.service.repairing import Repaired, repair, what_to_do
from backend_watcher.service.verifying import Asked, Proof, verify
from backend_watcher.service.watcher import Watcher
from faults.running import Running, environment, until

PROGRAM = Path(__file__).parent / "verified_program.py"
SCHEMA = """
CREATE TABLE items (id int PRIMARY KEY, version bigint NOT NULL, note text, secret text, kept bool NOT NULL);
CREATE TABLE words (word text PRIMARY KEY, n numeric, at timestamptz);
CREATE TABLE mails (id int PRIMARY KEY, mail text NOT NULL UNIQUE);
ALTER TABLE mails REPLICA IDENTITY FULL;
"""


class Stage:
    """What a test does to both sides, and how it asks."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
        self.folder = folder
        self.dsn = postgres.dsn
        self.environ = environment(folder, postgres, valkey)
        self.connection = psycopg.connect(postgres.dsn, autocommit=True)
        self.cache = redis.Redis.from_url(valkey.url)

    def run(self, *statements: str) -> None:
        """Run statements at the source."""
        for statement in statements:
            self.connection.execute(statement.encode())

    def until_equal(self, count: Callable[[], int], wanted: int) -> None:
        """Return when so many entries are there."""
        until(lambda: count() == wanted, f"{wanted} entries")

    def entries(self, prefix: str) -> int:
        """Count the entries of a cache."""
        return sum(1 for _ in self.cache.scan_iter(f"{prefix}:*", count=1000))

    @property
    def settings(self) -> dict[str, str]:
        """The environment for a command that asks the watcher that runs."""
        return {**self.environ, "WATCHER_JOURNAL__PATH": str(self.folder / ".watcher" / "faults.journal")}

    def read(self) -> tuple[Config, Watcher]:
        """Return the settings and the program."""
        watcher = load_watcher(str(PROGRAM))
        return load_config(None, self.settings, watcher=watcher), watcher

    async def verify(self, subscription: str | None = None, **asked: Any) -> Proof:
        """Verify in this process while another one delivers."""
        return await verify(*self.read(), Asked(subscription, **{"stall_seconds_max": 20.0, **asked}))

    async def repair(self, subscription: str | None = None, **asked: Any) -> Repaired:
        """Verify, and have what differs repaired."""
        config, watcher = self.read()
        before = await verify(config, watcher, Asked(subscription, **{"stall_seconds_max": 20.0, **asked}))
        plans = await what_to_do(config, watcher, before)
        return await repair(config, watcher, before, plans, reason="by a test", stall_seconds_max=20.0)


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """Servers, and nobody who watches."""
    with (
        EmbeddedPostgres(settings={"fsync": "off"}) as postgres,
        EmbeddedValkey() as valkey,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("FAULTS_REDIS", valkey.url)
        stage = Stage(folder, postgres, valkey)
        stage.run(SCHEMA)
        yield stage
        stage.connection.close()
        stage.cache.close()


@contextmanager
def watched(folder: Path, environ: dict[str, str], program: Path, connection: psycopg.Connection) -> Iterator[None]:
    """`watcher run` beside what is done inside, from the first change on."""
    with Running(folder, environ, program=program) as running:
        running.wait_for_streaming(connection)
        until(lambda: (folder / ".watcher" / "faults.journal").exists(), "the journal")
        yield
        assert running.end() == 0, running.log()[-3000:]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Servers, and `watcher run` on `verified_program.py`."""
    folder = tmp_path_factory.mktemp("verify")
    with staged(folder) as stage, watched(folder, stage.environ, PROGRAM, stage.connection):
        yield stage


@pytest.fixture
def empty(stage: Stage) -> Stage:
    """The same, with empty tables and an empty cache."""
    floors = ["@@i:{id}", "@@h:{id}", "@@e:{id}", "@@p:{id}", "@@w:{word}", "@@m:{mail}"]
    before = stage.cache.mget(floors)
    stage.run("TRUNCATE items, words, mails")
    # What a test did by hand stays after a truncate; that it has arrived is seen by the floors.
    until(lambda: all(a and a != b for a, b in zip(stage.cache.mget(floors), before, strict=True)), "the truncate")
    stage.cache.flushall()
    return stage
