"""Some changes of a batch fail and the others do not: only the keys that failed are offered again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest
import redis

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .hook_receiver import TAKEN, Answer, Receiver, Request
from .judge import Seen, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import until
from .scale import dice, repeats
from .shell import SECRET, Scene
from .workload import Workload

CHANGES = repeats(1_500, 50_000)
LOAD_SECONDS_MAX = repeats(120, 420)
ROWS = 10
ITEMS = (3, 7)
VERSIONS = repeats(5, 50)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(repeats(120, 600)),
    pytest.mark.scenario("44", "items 3 and 7 of a batch of 10 fail"),
]


def write_tens(connection: psycopg.Connection, begin: int = 1) -> None:
    """Change ten rows in one transaction, again and again."""
    put = "INSERT INTO items SELECT n, %s, '' FROM generate_series(1, %s) n"
    more = " ON CONFLICT (id) DO UPDATE SET version = excluded.version"
    for version in range(begin, begin + VERSIONS):
        connection.execute(put + more, [version, ROWS])


def offered_again(offered: Sequence[Seen], may_come_again: set[int]) -> int:
    """How many changes came again whose keys had not failed."""
    times = Counter(one.position for one in offered)
    keys = {one.position: one.fact.key for one in offered}
    return sum(count > 1 and keys[position] not in may_come_again for position, count in times.items())


def test_a_sink_that_names_what_failed(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    """SomeFailed, under load: what is offered again failed before, or follows on such a key."""
    scene = Scene(tmp_path, postgres, "partial", valkey)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with scene.run() as running:
            running.wait_for_streaming(connection)
            with Workload(postgres.dsn, dice("partial").random()) as workload:
                until(lambda: scene.count("tenths") > CHANGES, "the load", LOAD_SECONDS_MAX)
                workload.stop()
            facts = ledger.facts()
            until(lambda: scene.count("tenths") == len(facts), "the end")
            until(lambda: not scene.held("tenths"), "letting go of what was held")
            assert running.end() == 0
    failed = {one.position for one in read_seen(tmp_path / "failed_tenths")}
    times = Counter(one.position for one in read_seen(tmp_path / "offered_tenths"))
    needless = sum(count > 1 for position, count in times.items() if position not in failed)
    result.add(runs=1, failures=len(failed), offered=sum(times.values()), offered_needlessly=needless)
    print(f"{len(facts)} changes, {len(failed)} failed once, {needless} offered again without need")
    verdict = judge(facts, read_seen(scene.seen("tenths")))
    verdict.check(result)
    assert verdict.duplicates == 0
    assert len(failed) > 0
    assert needless == 0


def test_hashes_of_which_two_are_something_else(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    """Redis refuses two of ten entries of a pipeline: these two keys are parked, and delivered when it is mended."""
    scene = Scene(tmp_path, postgres, "partial", valkey)
    with (
        psycopg.connect(postgres.dsn, autocommit=True) as connection,
        redis.Redis.from_url(valkey.url, decode_responses=True) as cache,
        scene.run() as running,
    ):
        running.wait_for_streaming(connection)
        for item in ITEMS:
            cache.set(f"items:{item}", "not a hash")
        write_tens(connection)
        others = [f"items:{n}" for n in range(1, ROWS + 1) if n not in ITEMS]
        until(lambda: all(cache.hget(key, "version") == str(VERSIONS) for key in others), "the others", 30.0)
        until(lambda: sum(key.changes for key in scene.held("hashes")) == 2 * VERSIONS, "parking", 30.0)
        assert all(key.parked for key in scene.held("hashes"))
        cache.delete(*(f"items:{item}" for item in ITEMS))
        scene.shell("parked", "redrive", "hashes", "--all")
        until(lambda: not scene.held("hashes"), "letting go of what was parked")
        different = sum(cache.hget(f"items:{n}", "version") != str(VERSIONS) for n in range(1, ROWS + 1))
        assert running.end() == 0
    offered = read_seen(tmp_path / "offered_hashes")
    needless = offered_again(offered, set(ITEMS))
    result.add(runs=1, offered=len(offered), offered_needlessly=needless, different=different)
    print(f"{len(offered)} offered for {ROWS * VERSIONS}, {needless} without need, {different} different at the end")
    assert different == 0


def test_a_receiver_that_refuses_two_of_ten(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    def refuse(request: Request) -> Answer:
        again = request.seen.fact.key in ITEMS and request.number == 1
        return Answer(500, takes=False) if again else TAKEN

    with psycopg.connect(postgres.dsn, autocommit=True) as connection, Receiver(refuse) as receiver:
        ledger = Ledger(connection)
        scene = Scene(tmp_path, postgres, "webhook", FAULTS_URL=receiver.url, FAULTS_SECRET=SECRET)
        with scene.run() as running:
            running.wait_for_streaming(connection)
            write_tens(connection)
            facts = ledger.facts()
            until(lambda: receiver.distinct() == len(facts), "all of it")
            assert running.end() == 0
    requests = [request.seen for request in receiver.requests]
    needless = offered_again(requests, set(ITEMS))
    result.add(runs=1, offered=len(requests), offered_needlessly=needless)
    verdict = judge(facts, receiver.taken)
    verdict.check(result)
    assert verdict.duplicates == 0
    assert needless == 0
    assert len(requests) == (ROWS + len(ITEMS)) * VERSIONS
