"""The stage: its servers answer, a phase begins empty, and nothing is left behind."""

from __future__ import annotations

import psycopg
import redis

from backend_watcher.demo.stage import Phase, Stage


def test_a_phase_begins_empty_and_ends_its_processes(stage: Stage) -> None:
    with redis.Redis.from_url(stage.cache_url) as cache:
        cache.set("product:1", "of before")
        with Phase(stage, "watched") as phase:
            assert cache.dbsize() == 0
            sellers = phase._start("sellers too", "backend_watcher.demo.sellers")
            sellers.first_line()
            with psycopg.connect(phase.dsn) as connection:
                assert connection.execute("SELECT count(*) FROM products").fetchone() == (0,)
    assert not sellers.running


def test_a_database_can_be_made_again(stage: Stage) -> None:
    for _ in range(2):
        with psycopg.connect(stage.new_database("shop_again")) as connection:
            connection.execute("INSERT INTO sellers (id, name) VALUES (1, 'Toko Melati')")


def test_everything_is_gone_afterwards() -> None:
    with Stage() as stage:
        folder, url = stage.folder, stage.cache_url
        assert folder.is_dir()
    assert not folder.exists()
    with redis.Redis.from_url(url) as cache:
        try:
            cache.ping()
        except redis.ConnectionError:
            return
    raise AssertionError("the cache still answers")
