"""What an idle watcher costs the source: counted in the server's own log of statements."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres

from .results import Part
from .running import Running, environment, until
from .scale import repeats
from .source import insert, seen

QUERIES_A_SECOND_MAX = 0.2
LOOKS = repeats(4, 20)
"""The window reaches from one look at the surroundings to another, so that nothing of a period is left out."""
LINE = re.compile(
    r"^<(?P<when>[0-9.]+)\|backend_watcher:(?P<purpose>\w+)> LOG:  (?:statement|execute [^:]*): (?P<text>.*)",
    re.MULTILINE,
)
LOOK = "-- The slot, our walsender, the publication"
SETTINGS = {"log_statement": "all", "log_line_prefix": "<%n|%a> ", "log_replication_commands": "on"}


def queries(text: str) -> list[tuple[float, str, str]]:
    """Return what the sessions of the watcher asked: when, for what purpose, the first line of it."""
    return [(float(found["when"]), found["purpose"], found["text"]) for found in LINE.finditer(text)]


def looks(text: str) -> list[float]:
    """Return when it looked at its surroundings."""
    return [when for when, _, what in queries(text) if what.startswith(LOOK)]


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 400))
@pytest.mark.scenario("63", "queries on an idle source")
@pytest.mark.parametrize("postgres", [SETTINGS], indirect=True, ids=[""])
def test_an_idle_watcher_asks_little(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    with (
        psycopg.connect(postgres.dsn, autocommit=True) as connection,
        Running(tmp_path, environment(tmp_path, postgres)) as running,
    ):
        running.wait_for_streaming(connection)
        insert(connection, 1, 10)
        until(lambda: seen(running) >= 10, "delivery")
        begin = len(postgres.log_path.read_text())
        until(lambda: len(looks(postgres.log_path.read_text()[begin:])) > LOOKS, "looks", 300.0)
        whole = postgres.log_path.read_text()
        assert running.end() == 0
    window = whole[begin:]
    first, *_, last = looks(window)
    asked = [one for one in queries(window) if first <= one[0] < last]
    rate = len(asked) / (last - first)
    result.add(runs=1, queries_a_second_max=round(rate, 3), window_seconds=last - first)
    assert rate <= QUERIES_A_SECOND_MAX, asked
    # The heartbeat goes along with a look.
    assert "backend_watcher.heartbeat" in window
    assert [what for _, _, what in asked if not what.startswith(LOOK)] == []
    for expensive in ("pg_logical_slot_peek", "pg_logical_slot_get"):
        assert expensive not in whole
