"""Other settings for a watcher that runs: nothing is lost, and what did not change is not disturbed."""

from __future__ import annotations

import signal
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .judge import cache_differences, distinct, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import PROGRAM, Running, environment, pause, until
from .scale import dice, repeats
from .workload import Workload

PAUSE_SECONDS_MAX = 10.0
"""Of what does not change; the figure is reported, and is far below on a machine that has nothing else to do."""

CACHE = """
[[subscription]]
name = "{name}"
sink = "redis_cache"
table = "items"
key = "{key}:{{id}}"
url = "{url}"
batch = {batch}
"""


def settings(path: Path, url: str, batch: int, more: str = "") -> None:
    """Write the settings: a cache whose batches change, and perhaps a second one."""
    caches = [CACHE.format(name="changing", key="items", url=url, batch=batch)]
    if more:
        caches.append(CACHE.format(name=more, key=more, url=url, batch=batch))
    path.write_text("".join(caches))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.scenario("59", "settings read again under load")
def test_settings_change_under_load(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    rolls = dice("settings read again")
    path = tmp_path / "watcher.toml"
    settings(path, valkey.url, 10)
    environ = {**environment(tmp_path, postgres), "WATCHER_CONFIG": str(path)}
    count = repeats(10, 100)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Running(tmp_path, environ, program=PROGRAM) as running:
            running.wait_for_streaming(connection)
            walsender = _walsender(connection)
            with Workload(postgres.dsn, rolls.random()) as workload:
                running.wait_for_delivery()
                for number in range(count):
                    settings(path, valkey.url, rolls.randint(1, 500), f"more_{number}" if rolls.random() < 0.5 else "")
                    result.add(other_pause_seconds_max=_read_again(running))
                    pause(rolls.uniform(0, 0.2))
                workload.stop()
            facts = ledger.facts()
            until(lambda: distinct(tmp_path / "seen") >= len(facts), "the handler catching up")
            until(lambda: not cache_differences(connection, valkey.url, ["items"]), "the cache catching up")
            assert _walsender(connection) == walsender, "capture began again although its tables are the same"
            assert running.end(signal.SIGTERM) == 0
    result.add(runs=count)
    verdict = judge(facts, read_seen(tmp_path / "seen"))
    verdict.check(result)
    assert verdict.duplicates == 0, "what does not change is not even drained"
    assert result.figures["other_pause_seconds_max"] < PAUSE_SECONDS_MAX


def _read_again(running: Running) -> float:
    """Let it read its settings; return for how long the handler, which is not in them, delivered nothing."""
    said, size = running.log().count("settings read again"), running.size()
    running.send(signal.SIGHUP)
    silent = until(lambda: running.size() > size, "delivering while the settings are read")
    until(lambda: running.log().count("settings read again") > said, "reading the settings again")
    assert "the settings are refused" not in running.log()
    return silent


def _walsender(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT pid FROM pg_stat_replication WHERE state = 'streaming'").fetchone()
    assert row is not None
    return int(row[0])
