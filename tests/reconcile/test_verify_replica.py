"""A real source, a real replica, a watcher between them: what was done by hand is found, and nothing else ever."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.reconcile.bisect import PART_ROWS
from backend_watcher.reconcile.compare import MASKED, Kind
from backend_watcher.reconcile.follow import Follower
from backend_watcher.reconcile.report import Answer
from backend_watcher.service.config import Config, load_config
from backend_watcher.service.control import open_journal
from backend_watcher.service.declared import wanted_of
from backend_watcher.service.load import load_watcher
from backend_watcher.service.readable import Readable
from backend_watcher.service.sources import reading_source
from backend_watcher.service.subscribed import subscription_of
from backend_watcher.service.verifying import Asked, Proof, verify
from backend_watcher.service.watcher import Watcher
from faults.running import environment, until
from faults.scale import repeats
from faults.workload import Client, Workload
from sinks.test_postgres_replica_delivered import KINDS, TABLES

from .conftest import watched
from .test_verify import found, only, plain

PROGRAM = Path(__file__).parent / "replicated_program.py"
ITEMS = (
    "CREATE TABLE items (id int PRIMARY KEY, version bigint NOT NULL, note text, weight numeric(9, 2), at timestamptz)"
)
# Of all tables of that file the one with a column of every kind.
KINDS_TABLE = TABLES[TABLES.index("CREATE TABLE kinds") :]
SCHEMA = f"""
{ITEMS};
CREATE TABLE words (word text PRIMARY KEY, n numeric);
CREATE TABLE pairs (a int, b uuid, note text, PRIMARY KEY (b, a));
{KINDS_TABLE}
CREATE TABLE bag (a int);
ALTER TABLE bag REPLICA IDENTITY FULL;
"""
ROWS = 20_000
FILL = f"INSERT INTO items SELECT n, 1, 'note ' || n, n / 7.0, now() FROM generate_series(1, {ROWS}) n"
UNDER_LOAD = repeats(2, 100)


class Stage:
    """What a test does to both sides, and how it asks."""

    def __init__(self, folder: Path, source: str, target: str) -> None:
        self.folder = folder
        self.dsn = source
        self.environ = {**environment(folder, source), "FAULTS_REPLICA": target}
        self.connection = psycopg.connect(source, autocommit=True)
        self.copy = psycopg.connect(target, autocommit=True)

    def run(self, *statements: str) -> None:
        """Run statements at the source."""
        for statement in statements:
            self.connection.execute(statement.encode())

    def by_hand(self, *statements: str) -> None:
        """Run statements at the target."""
        for statement in statements:
            self.copy.execute(statement.encode())

    def count(self, table: str) -> Callable[[], int]:
        """Return what counts the rows of a table of the target."""
        return lambda: self.copy.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()[0]  # type: ignore[index]

    def filled(self, table: str, count: int) -> None:
        """Return when a table of the target has so many rows."""
        there = self.count(table)
        until(lambda: there() == count, f"{count} rows of {table}")

    def read(self) -> tuple[Config, Watcher]:
        """Return the settings and the program."""
        watcher = load_watcher(str(PROGRAM))
        environ = {**self.environ, "WATCHER_JOURNAL__PATH": str(self.folder / ".watcher" / "faults.journal")}
        return load_config(None, environ, watcher=watcher), watcher

    async def verify(self, subscription: str = "copy", table: str | None = None, **asked: Any) -> Proof:
        """Verify in this process while another one delivers."""
        return await verify(*self.read(), Asked(subscription, table, **{"stall_seconds_max": 20.0, **asked}))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server with two databases, and `watcher run` on `replicated_program.py` between them."""
    folder = tmp_path_factory.mktemp("replica")
    with EmbeddedPostgres(settings={"fsync": "off"}) as postgres, pytest.MonkeyPatch.context() as patch:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE copy")
        target = f"{postgres.dsn.rpartition('/')[0]}/copy"
        patch.setenv("FAULTS_REPLICA", target)
        stage = Stage(folder, postgres.dsn, target)
        stage.run(SCHEMA)
        stage.by_hand(SCHEMA, "CREATE SCHEMA loud", ITEMS.replace("items", "loud.items"))
        with watched(folder, stage.environ, PROGRAM, stage.connection):
            yield stage
        stage.connection.close()
        stage.copy.close()


@pytest.fixture
def empty(stage: Stage) -> Stage:
    """The same, with empty tables on both sides."""
    # A truncate takes what a test did by hand with it; that it has arrived is seen by what comes behind it.
    stage.run("TRUNCATE items, words, pairs, bag, kinds", "INSERT INTO bag VALUES (1)")
    stage.filled("bag", 1)
    stage.run("TRUNCATE bag")
    stage.filled("bag", 0)
    stage.filled("loud.items", 0)
    return stage


@pytest.mark.slow
async def test_what_was_done_by_hand_is_found_by_digests_and_little_is_read(empty: Stage) -> None:
    empty.run(FILL)
    empty.filled("items", ROWS)
    before = await empty.verify(table="items")
    assert (before.answer, before.exit_code) == (Answer.EQUAL, 0), before.as_plain()
    assert only(before).rows == only(before).entries == ROWS
    assert (only(before).by_digests, only(before).read_again) == (True, 0)
    assert only(before).position is not None
    empty.by_hand(
        "UPDATE items SET weight = weight + 0.01 WHERE id = 7777",
        "DELETE FROM items WHERE id = 12345",
        "INSERT INTO items SELECT 99999, version, note, weight, at FROM items WHERE id = 1",
    )
    proof = await empty.verify(table="items")
    assert found(proof) == {'["7777"]': "different", '["12345"]': "missing", '["99999"]': "extra"}
    assert (proof.answer, proof.exit_code) == (Answer.DIFFERENT, 5)
    result = only(proof)
    assert result.complete
    assert not result.unsettled
    assert result.source != result.sink
    assert (result.rows, result.entries) == (ROWS, ROWS)
    # A part for each of them, and they themselves once more.
    assert 3 <= result.read_again <= 3 * PART_ROWS + 3
    seven = plain(proof)['["7777"]']
    assert (seven["source"]["weight"], seven["sink"]["weight"]) == ("1111.00", "1111.01")
    assert (plain(proof)['["12345"]']["sink"], plain(proof)['["99999"]']["source"]) == (None, None)


async def test_what_lies_beyond_the_keys_of_the_source_is_found_too(empty: Stage) -> None:
    empty.by_hand("INSERT INTO pairs VALUES (1, gen_random_uuid(), 'nobody')")
    proof = await empty.verify(table="pairs")
    assert [one.kind for one in only(proof).differences] == [Kind.EXTRA]
    empty.by_hand("DELETE FROM pairs")
    empty.run(
        "INSERT INTO pairs SELECT n, ('80000000-0000-0000-0000-0000000000' || (10 + n % 20))::uuid, 'n'"
        " FROM generate_series(1, 1000) n"
    )
    empty.filled("pairs", 1000)
    lowest, highest = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"
    empty.by_hand(f"INSERT INTO pairs VALUES (0, '{lowest}'), (5, '{highest}')", "DELETE FROM pairs WHERE a = 21")
    proof = await empty.verify(table="pairs")
    gone = "80000000-0000-0000-0000-000000000011"
    assert found(proof) == {
        f'["{lowest}", "0"]': "extra",
        f'["{highest}", "5"]': "extra",
        f'["{gone}", "21"]': "missing",
    }
    assert only(proof).by_digests


async def test_values_of_every_kind_have_one_digest_on_both_sides(empty: Stage) -> None:
    empty.run(KINDS)
    empty.filled("kinds", 3)
    proof = await empty.verify(table="kinds")
    assert (proof.answer, only(proof).by_digests, only(proof).read_again) == (Answer.EQUAL, True, 0), proof.as_plain()
    empty.by_hand("UPDATE kinds SET j = '{\"a\": null}' WHERE id = 1", "UPDATE kinds SET f = 0 WHERE id = 1")
    proof = await empty.verify(table="kinds")
    assert found(proof) == {'["1"]': "different"}
    one = plain(proof)['["1"]']
    assert {name for name in one["source"] if one["source"][name] != one["sink"][name]} == {"j", "f"}


async def test_a_table_that_is_another_one_altogether(empty: Stage) -> None:
    empty.run("INSERT INTO items SELECT n, 1 FROM generate_series(1, 3000) n")
    empty.filled("items", 3000)
    empty.by_hand("UPDATE items SET version = 2", "DELETE FROM items WHERE id % 3 = 0")
    empty.by_hand("INSERT INTO items SELECT n, 1 FROM generate_series(3001, 4000) n")
    result = only(await empty.verify(table="items"))
    kinds = [result.count(kind) for kind in (Kind.MISSING, Kind.DIFFERENT, Kind.EXTRA)]
    assert (kinds, result.rows, result.complete) == ([1000, 2000, 1000], 3000, True)


async def test_rows_that_a_transform_made_are_verified_one_by_one(empty: Stage) -> None:
    empty.run("INSERT INTO items SELECT n, 1, 'note ' || n, n / 7.0, now() FROM generate_series(1, 200) n")
    empty.filled("loud.items", 100)
    proof = await empty.verify("loud", chunk_rows=30)
    assert proof.answer is Answer.EQUAL, proof.as_plain()
    assert (only(proof).rows, only(proof).entries) == (200, 100)
    empty.by_hand(
        "UPDATE loud.items SET note = 'note 2' WHERE id = 2",
        "DELETE FROM loud.items WHERE id = 4",
        "INSERT INTO loud.items VALUES (5, 1), (-1, 1)",
    )
    proof = await empty.verify("loud", chunk_rows=30)
    assert found(proof) == {'["2"]': "different", '["4"]': "missing", '["5"]': "extra", '["-1"]': "extra"}
    two = plain(proof)['["2"]']
    # What a transform writes otherwise may be what nobody is to see.
    assert (two["source"]["note"], two["sink"]["note"]) == ("NOTE 2", MASKED)


async def test_keys_of_text_in_an_order_of_their_own(empty: Stage) -> None:
    empty.run(
        "INSERT INTO words SELECT (ARRAY['a', 'A', 'ä', 'Z', '-', E'tab\\t', E'\\\\'])[n % 7 + 1] || n, n / 3.0"
        " FROM generate_series(1, 400) n",
        "INSERT INTO words VALUES ('[\"w\"]', 'NaN'), ('', NULL)",
    )
    empty.filled("words", 402)
    proof = await empty.verify(table="words", chunk_rows=50)
    assert (proof.answer, only(proof).rows, only(proof).entries) == (Answer.EQUAL, 402, 402), proof.as_plain()
    empty.by_hand("INSERT INTO words VALUES ('nobody')", "DELETE FROM words WHERE word = ''")
    empty.by_hand("UPDATE words SET n = n * 1.0 WHERE word = 'a7'")
    expected = {'["nobody"]': "extra", '[""]': "missing", '["a7"]': "different"}
    assert found(await empty.verify(table="words", chunk_rows=50)) == expected


async def test_a_table_without_a_key_is_left_out_of_several(empty: Stage) -> None:
    empty.run("INSERT INTO bag VALUES (1), (1)", "INSERT INTO items (id, version) VALUES (1, 1)")
    empty.filled("items", 1)
    proof = await empty.verify()
    assert {one.table: one.answer for one in proof.results} == {
        f"public.{name}": Answer.EQUAL for name in ("items", "kinds", "words", "pairs")
    }
    assert list(proof.left_out) == ["copy public.bag"]
    assert "has no key" in proof.left_out["copy public.bag"]
    empty.run("TRUNCATE bag")


async def test_only_some_rows(empty: Stage) -> None:
    empty.run("INSERT INTO items SELECT n, 1 FROM generate_series(1, 100) n")
    empty.filled("items", 100)
    empty.by_hand("DELETE FROM items WHERE id IN (5, 50)", "INSERT INTO items VALUES (101, 1)")
    proof = await empty.verify(table="items", where="id > 10")
    assert found(proof) == {'["50"]': "missing"}
    assert (only(proof).rows, only(proof).extras_unknown) == (90, "only some rows were asked for")


def rewrite(connection: Any, client: Client) -> None:
    """Change, delete and make rows again, hot ones and others, and give rows other keys."""
    dice = client.dice
    # Each client has keys of its own, so that no two wait for each other.
    key = 3 * (dice.randint(0, 1) if dice.random() < 0.1 else dice.randint(0, 6000)) + client.number + 1
    row = client.row(key)
    with connection.transaction(force_rollback=dice.random() < 0.1):
        what = dice.random()
        if what < 0.5:
            connection.execute("UPDATE items SET version = version + 1, note = %(note)s WHERE id = %(id)s", row)
        elif what < 0.7:
            connection.execute("DELETE FROM items WHERE id = %(id)s", row)
        elif what < 0.9:
            insert = "INSERT INTO items VALUES (%(id)s, %(version)s, %(note)s, 1, now()) ON CONFLICT DO NOTHING"
            connection.execute(insert.encode(), row)
        else:
            away = {"id": key * dice.choice((1, -1))}
            free = "NOT EXISTS (SELECT FROM items o WHERE o.id = -%(id)s)"
            connection.execute(f"UPDATE items SET id = -id WHERE id = %(id)s AND {free}".encode(), away)


@pytest.mark.slow
@pytest.mark.timeout(repeats(240, 3600))
async def test_a_running_load_is_never_taken_for_drift(empty: Stage) -> None:
    empty.run(FILL)
    empty.filled("items", ROWS)
    again = {"copy": 0, "loud": 0}
    with Workload(empty.dsn, "verify", rewrite, clients=3, pause_seconds=0.001) as load:
        for run in range(UNDER_LOAD):
            for name in ("copy", "loud"):
                proof = await empty.verify(name, "items")
                assert found(proof) == {}, (run, name, proof.as_plain())
                assert proof.error is None
                assert only(proof).by_digests == (name == "copy")
                again[name] += only(proof).looked_again
        # What is drift is found all the same, though its neighbours move.
        empty.run("INSERT INTO items VALUES (50000, 1, 'still'), (50001, 1, 'still')")
        until(lambda: empty.count("items WHERE id >= 50000")() == 2, "two more")
        empty.by_hand("DELETE FROM items WHERE id = 50000", "UPDATE items SET note = NULL WHERE id = 50001")
        empty.by_hand("INSERT INTO items VALUES (50002, 1)")
        drift = await empty.verify(table="items")
        load.stop()
    assert found(drift) == {'["50000"]': "missing", '["50001"]': "different", '["50002"]': "extra"}
    assert min(again.values()) > 0


@pytest.mark.slow
async def test_a_slow_scan_of_a_replica_goes_by_digests_too(empty: Stage) -> None:
    empty.run(FILL)
    empty.filled("items", ROWS)
    empty.by_hand("UPDATE items SET version = 7 WHERE id = 77")
    config, watcher = empty.read()
    (subscription,) = (subscription_of(one, watcher) for one in wanted_of(config, watcher) if one.name == "copy")
    readable = Readable(subscription, copy.deepcopy(subscription.sink), None)
    source, sink = reading_source(config.source), readable.reader()
    with open_journal(config) as view:
        follower = Follower(view, "copy", 20.0)
        verification = readable.verification(source, sink, follower, rows_per_second_max=ROWS / 2, slowly=True)
        try:
            await sink.open_to_read()
            await verification.run(["public.items"])
        finally:
            await source.close()
            await sink.close()
    (result,) = verification.results
    assert (result.by_digests, result.complete, result.rows) == (True, True, ROWS)
    assert [one.name for one in result.differences] == [b'["77"]']
    assert result.seconds >= 1.0
