"""
Where the demo plays: PostgreSQL, Valkey, a folder, and the processes of a phase, all on the loopback address.

Everything is ended, and the folder removed, when the stage is left, in whatever way that happens.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import redis

from backend_watcher.demo import seed
from backend_watcher.demo.processes import Child
from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey
from backend_watcher.errors import EmbeddedError

LISTENING_SECONDS_MAX = 60.0
HTTP_SECONDS_MAX = 10.0
POLL_SECONDS = 0.05

SETTINGS = {"track_commit_timestamp": "on", "shared_buffers": "128MB"}
"""The first for the figures (`measure.py`)."""

CONFIGURATION = """\
name = "shop"

[source]
dsn = "{dsn}"

[journal]
path = "{journal}"
"""


class Stage:
    """The servers of both phases."""

    def __init__(self) -> None:
        self._postgres = EmbeddedPostgres(settings=SETTINGS)
        self._valkey = EmbeddedValkey(settings={"notify-keyspace-events": "K$"})
        self._stack = ExitStack()
        self.folder = Path()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="watcher-demo-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            stack.enter_context(self._postgres)
            stack.enter_context(self._valkey)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def cache_url(self) -> str:
        """Where the cache is."""
        return self._valkey.url

    def new_database(self, name: str) -> str:
        """Make a database with the shop's tables, all empty; return its DSN."""
        with psycopg.connect(self._postgres.dsn, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}"')
        dsn = self._postgres.dsn.rpartition("/")[0] + f"/{name}"
        schema = resources.files("backend_watcher.demo").joinpath("schema.sql").read_bytes()
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(schema)
        return dsn

    def empty_cache(self) -> None:
        """Forget everything that is cached."""
        with redis.Redis.from_url(self.cache_url) as cache:
            cache.flushall()


class Phase:
    """One phase: a database of its own, an empty cache, and the processes it needs."""

    def __init__(self, stage: Stage, mode: str) -> None:
        self.mode = mode
        self._stage = stage
        self._stack = ExitStack()
        self.dsn = ""
        self._sellers_url = ""
        self._backend_url = ""
        self._environment: dict[str, str] = {}
        self.watcher: Child | None = None
        self.kills = 0
        self.killed_at: float | None = None

    def __enter__(self) -> Self:
        with self._stack:
            self._stage.empty_cache()
            self.dsn = self._stage.new_database(f"shop_{self.mode}")
            sellers = self._start("sellers", "backend_watcher.demo.sellers")
            self._sellers_url = sellers.first_line()["url"]
            self._environment = {
                "SHOP_MODE": self.mode,
                "DATABASE_URL": self.dsn,
                "CACHE_URL": self._stage.cache_url,
                "SELLERS_URL": self._sellers_url,
                "SHOP_STOPWATCH": str(self.handler_file),
            }
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.watcher is not None:
            self.watcher.end()
        self._stack.close()

    @property
    def cache_url(self) -> str:
        """Where the cache is."""
        return self._stage.cache_url

    @property
    def cache_file(self) -> Path:
        """What `measure` notes."""
        return self._stage.folder / f"{self.mode}-cache.txt"

    @property
    def handler_file(self) -> Path:
        """What the shop notes."""
        return self._stage.folder / f"{self.mode}-handlers.txt"

    @property
    def program(self) -> Path:
        """The shop's program, where a reader of the demo may look at it."""
        return self._stage.folder / "shop.py"

    @property
    def configuration(self) -> Path:
        """The watcher's configuration."""
        return self._stage.folder / "watcher.toml"

    def fill(self) -> None:
        """Write what the shop has before the first order."""
        with psycopg.connect(self.dsn) as connection:
            seed.fill(connection)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    def open_backend(self) -> None:
        """Start Backend 1."""
        self._backend_url = self._start("backend 1", "backend_watcher.demo.backend").first_line()["url"]

    def load(self, number: int, rate: float, seconds: float, warmup_seconds: float) -> Child:
        """Start the customers."""
        figures = [str(number), str(rate), str(seconds), str(warmup_seconds)]
        return self._start("load", "backend_watcher.demo.load", self._backend_url, *figures)

    def listen_to_cache(self) -> None:
        """Start noting when orders come into the cache."""
        self._start("measure", "backend_watcher.demo.measure", self.cache_url, str(self.cache_file)).first_line()

    def received(self) -> Any:
        """Ask the sellers what they were told."""
        host = self._sellers_url.removeprefix("http://")
        with closing(HTTPConnection(host, timeout=HTTP_SECONDS_MAX)) as connection:
            connection.request("GET", "/received")
            return json.load(connection.getresponse())

    def start_watcher(self) -> None:
        """Start `watcher run` on the shop's program, and wait until it listens."""
        self.program.write_bytes(resources.files("backend_watcher.demo").joinpath("shop.py").read_bytes())
        journal = self._stage.folder / "shop.journal"
        text = CONFIGURATION.format(dsn=self.dsn, journal=journal)
        self.configuration.write_text(text)
        self._run_watcher()
        end = time.monotonic() + LISTENING_SECONDS_MAX
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            query = "SELECT FROM pg_replication_slots WHERE active AND database = current_database()"
            while connection.execute(query).fetchone() is None:
                self.check_watcher()
                if time.monotonic() > end:
                    raise self.watcher_failed("does not listen")
                time.sleep(POLL_SECONDS)

    def kill_watcher(self) -> None:
        """End the watcher as a power failure would, and start it again."""
        assert self.watcher is not None
        self.killed_at = time.time()
        self.watcher.kill()
        self.kills += 1
        self._run_watcher()

    def check_watcher(self) -> None:
        """Raise EmbeddedError if the watcher ended by itself."""
        if self.watcher is not None and not self.watcher.running:
            raise self.watcher_failed("ended")

    def watcher_failed(self, what: str) -> EmbeddedError:
        """Return the error that says what its log says."""
        assert self.watcher is not None
        return self.watcher.failed(what)

    def _run_watcher(self) -> None:
        if self.watcher is not None:
            self.watcher.end()
        folder, environment = self._stage.folder, self._environment
        arguments = ("run", str(self.program), "--config", str(self.configuration))
        self.watcher = Child(
            "watcher",
            "backend_watcher",
            *arguments,
            folder=folder,
            environment=environment,
            works_in=folder,
            talks=False,
        )

    def _start(self, name: str, module: str, *arguments: str) -> Child:
        child = Child(name, module, *arguments, folder=self._stage.folder, environment=self._environment)
        self._stack.callback(child.end)
        return child
