"""Delays: what counts, what a kill explains, and where the times come from."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from backend_watcher.demo.measure import Seen, cache_times, delays, handler_times
from backend_watcher.demo.stage import Phase

from .conftest import Shop


def test_without_a_kill_everything_counts() -> None:
    found = delays([Seen(1.0, 1.002), Seen(2.0, 2.004)], None)
    assert found.values_ms == pytest.approx([2, 4])
    assert found.outage_ms is None


def test_what_waited_for_a_new_watcher_is_a_figure_of_its_own() -> None:
    before, in_flight, waited = Seen(1.0, 1.002), Seen(4.999, 6.5), Seen(5.5, 6.6)
    behind_them, after = Seen(6.55, 6.7), Seen(7.0, 7.003)
    found = delays([after, behind_them, waited, before, in_flight], 5.0)
    assert sorted(found.values_ms) == pytest.approx([2, 3])
    assert found.outage_ms == pytest.approx(1700)


def test_in_a_short_run_the_last_that_waited_ends_the_outage() -> None:
    found = delays([Seen(1.0, 1.002), Seen(5.1, 6.5), Seen(5.5, 6.6)], 5.0)
    assert found.values_ms == pytest.approx([2])
    assert found.outage_ms == pytest.approx(1600)


def test_a_watcher_that_never_came_back_has_no_outage() -> None:
    found = delays([Seen(1.0, 1.002)], 5.0)
    assert found.values_ms == pytest.approx([2])
    assert found.outage_ms is None


def test_the_first_time_an_order_is_cached_counts(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "cache.txt"
    path.write_text("1 4000000000.5\n1 4000000009.0\n77 1.0\n")
    with psycopg.connect(shop.dsn) as connection:
        (seen,) = cache_times(path, connection)
        (now,) = connection.execute("SELECT extract(epoch FROM now())::float8").fetchall()
    assert seen.seen == 4000000000.5
    assert now[0] - 60 < seen.committed <= now[0]


def test_notes_of_one_handler_are_read(tmp_path: Path) -> None:
    path = tmp_path / "handlers.txt"
    path.write_text("notify_seller 1.000000 1.002000\nkeep_revenue 1.0 1.5\nnotify_sel")
    assert handler_times(path, "notify_seller") == [Seen(1.0, 1.002)]


def test_hears_of_every_order_that_is_cached(phase: Phase) -> None:
    import redis

    phase.listen_to_cache()
    with redis.Redis.from_url(phase.cache_url) as cache:
        cache.mset({"order:5": "a", "product:5": "b", "@order:5": "c"})
        # A round trip of the listener's own server, repeated until it has written what it heard.
        while not phase.cache_file.exists() or not phase.cache_file.read_text().endswith("\n"):
            cache.ping()
    assert [line.split()[0] for line in phase.cache_file.read_text().splitlines()] == ["5"]
