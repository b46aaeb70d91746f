"""A real source, a real cache, a watcher between them: what was done by hand is found, and nothing else ever."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from backend_watcher.reconcile.report import Answer, TableResult
from backend_watcher.service.verifying import Proof
from faults.running import until
from faults.scale import repeats
from faults.workload import Client, Workload

from .conftest import Stage

ROWS = 10_000
FILL = f"INSERT INTO items SELECT n, 1, 'note ' || n, 's' || n, true FROM generate_series(1, {ROWS}) n"
UNDER_LOAD = repeats(3, 100)


def found(proof: Proof) -> dict[str, str]:
    """Return every entry that differs, and how."""
    return {one.name.decode(): str(one.kind) for result in proof.results for one in result.differences}


def only(proof: Proof) -> TableResult:
    (result,) = proof.results
    return result


def plain(proof: Proof) -> dict[str, Any]:
    (table,) = json.loads(json.dumps(proof.as_plain()))["tables"]
    return {one["entry"]: one for one in table["differences"]}


@pytest.mark.slow
async def test_what_was_done_by_hand_is_found_and_nothing_else(empty: Stage) -> None:
    empty.run(FILL)
    for prefix in ("i", "h"):
        empty.until_equal(lambda: empty.entries(prefix), ROWS)  # noqa: B023 called at once
    for name in ("plain", "hashes"):
        before = await empty.verify(name)
        assert (before.answer, before.exit_code) == (Answer.EQUAL, 0), before.as_plain()
        assert only(before).rows == only(before).entries == ROWS
        assert str(only(before).source) == str(only(before).sink)
        assert only(before).position is not None
        assert only(before).ranges == 2
    value = json.loads(empty.cache.get("i:7"))
    empty.cache.set("i:7", json.dumps({**value, "note": "changed by hand"}))
    empty.cache.delete("i:8")
    empty.cache.set("i:99999", json.dumps({**value, "id": 99999}))
    empty.cache.hset("h:7", "note", "changed by hand")
    empty.cache.delete("h:8")
    empty.cache.hset("h:99999", "id", "99999")
    for name, prefix in (("plain", "i"), ("hashes", "h")):
        proof = await empty.verify(name)
        assert found(proof) == {f"{prefix}:7": "different", f"{prefix}:8": "missing", f"{prefix}:99999": "extra"}
        assert (proof.answer, proof.exit_code) == (Answer.DIFFERENT, 5)
        assert only(proof).complete
        assert str(only(proof).source) != str(only(proof).sink)
        assert not only(proof).unsettled
        shown = plain(proof)
        assert shown[f"{prefix}:7"]["source"]["note"] == "note 7"
        assert shown[f"{prefix}:7"]["sink"]["note"] == "changed by hand"
        assert (shown[f"{prefix}:8"]["sink"], shown[f"{prefix}:99999"]["source"]) == (None, None)


async def test_what_only_looks_like_ours_is_left_alone(empty: Stage) -> None:
    empty.run("INSERT INTO items VALUES (1, 1, NULL, NULL, true)")
    empty.until_equal(lambda: empty.entries("h"), 1)
    empty.cache.set("i:x", "somebody else's")
    empty.cache.set("@i:5", "a position of a deleted row")
    empty.cache.hset("h:1", "theirs", "another program's field")
    assert found(await empty.verify("plain")) == {}
    assert found(await empty.verify("hashes")) == {}
    empty.cache.set("h:2", "not a hash")
    empty.cache.delete("i:1")
    empty.cache.hset("i:1", "id", "1")
    assert found(await empty.verify("plain")) == {"i:1": "missing"}


async def test_a_projection_is_verified_as_what_it_should_be(empty: Stage) -> None:
    empty.run("INSERT INTO items SELECT n, 1, 'n', 'very secret ' || n, true FROM generate_series(1, 100) n")
    empty.until_equal(lambda: empty.entries("p"), 50)
    proof = await empty.verify("projected")
    assert proof.answer is Answer.EQUAL, proof.as_plain()
    assert (only(proof).rows, only(proof).entries) == (100, 50)
    # An entry that the predicate drops, one that was written before the mask was, one that is not there.
    empty.cache.set("p:1", '{"id":1,"secret":"***","kept":true}')
    empty.cache.set("p:2", '{"id":2,"secret":"very secret 2","kept":true}')
    empty.cache.delete("p:4")
    proof = await empty.verify("projected", chunk_rows=30)
    assert found(proof) == {"p:1": "extra", "p:2": "different", "p:4": "missing"}
    assert "very secret" not in json.dumps(proof.as_plain())
    assert plain(proof)["p:2"]["sink"] == {"id": 2, "secret": "(masked)", "kept": True}
    assert plain(proof)["p:4"]["source"] == {"id": 4, "secret": "***", "kept": True}


async def test_what_has_expired_is_no_drift_but_what_was_deleted_is(empty: Stage) -> None:
    empty.run("INSERT INTO items SELECT n, 1, NULL, NULL, true FROM generate_series(1, 10) n")
    empty.until_equal(lambda: empty.entries("e"), 10)
    empty.cache.delete("e:1", "@e:1")
    empty.cache.delete("e:2")
    proof = await empty.verify("expiring")
    assert found(proof) == {"e:2": "missing"}
    assert only(proof).expired == 1


async def test_a_truncated_table_leaves_nothing_that_should_not_be(empty: Stage) -> None:
    empty.run("INSERT INTO items SELECT n, 1, NULL, NULL, true FROM generate_series(1, 10) n")
    empty.until_equal(lambda: empty.entries("i"), 10)
    empty.run("TRUNCATE items")
    empty.until_equal(lambda: empty.entries("i"), 0)
    assert (await empty.verify("plain")).answer is Answer.EQUAL
    empty.cache.set("i:3", "{}")
    assert found(await empty.verify("plain")) == {"i:3": "extra"}


async def test_keys_of_text_in_an_order_of_their_own(empty: Stage) -> None:
    empty.run(
        "INSERT INTO words SELECT (ARRAY['a', 'A', 'ä', 'Z', '-', 'tab\\t', '\\\\'])[n % 7 + 1] || n, n / 3.0, now()"
        " FROM generate_series(1, 400) n",
        "INSERT INTO words VALUES ('w:*?[', 'NaN', 'infinity'), ('', NULL, NULL)",
    )
    empty.until_equal(lambda: empty.entries("w"), 402)
    assert (await empty.verify("words", chunk_rows=50)).answer is Answer.EQUAL
    empty.cache.set("w:nobody", "{}")
    empty.cache.delete("w:w:*?[")
    assert found(await empty.verify("words", chunk_rows=50)) == {"w:nobody": "extra", "w:w:*?[": "missing"}


async def test_only_some_rows(empty: Stage) -> None:
    empty.run("INSERT INTO items SELECT n, 1, NULL, NULL, true FROM generate_series(1, 100) n")
    empty.until_equal(lambda: empty.entries("i"), 100)
    empty.cache.delete("i:5", "i:50")
    empty.cache.set("i:101", "{}")
    proof = await empty.verify("plain", where="id > 10")
    assert found(proof) == {"i:50": "missing"}
    assert (only(proof).rows, only(proof).extras_unknown) == (90, "only some rows were asked for")


def rewrite(connection: Any, client: Client) -> None:
    """Change, delete and make rows again, hot ones and others; mails are given from row to row."""
    dice = client.dice
    # Each client has keys of its own, so that no two wait for each other.
    key = 3 * dice.choice((dice.randint(0, 1), dice.randint(0, 600))) + client.number + 1
    row = client.row(key)
    with connection.transaction(force_rollback=dice.random() < 0.1):
        what = dice.random()
        if what < 0.5:
            connection.execute("UPDATE items SET version = version + 1, note = %(note)s WHERE id = %(id)s", row)
        elif what < 0.7:
            connection.execute("DELETE FROM items WHERE id = %(id)s", row)
        elif what < 0.9:
            connection.execute(
                "INSERT INTO items VALUES (%(id)s, %(version)s, %(note)s, 's', true) ON CONFLICT DO NOTHING", row
            )
        else:
            away = {"id": key * dice.choice((1, -1))}
            free = "NOT EXISTS (SELECT FROM items o WHERE o.id = -%(id)s)"
            connection.execute(f"UPDATE items SET id = -id WHERE id = %(id)s AND {free}".encode(), away)
    base = 10 * client.number
    one, other = (base + dice.randint(0, 4) for _ in range(2))
    with connection.transaction():
        connection.execute("DELETE FROM mails WHERE id = %s OR mail = %s", [one, f"mail{other}"])
        connection.execute("INSERT INTO mails VALUES (%s, %s)", [one, f"mail{other}"])


@pytest.mark.slow
@pytest.mark.timeout(repeats(240, 3600))
async def test_a_running_load_is_never_taken_for_drift(empty: Stage) -> None:
    empty.run("INSERT INTO items SELECT n, 1, 'n', 's', true FROM generate_series(1, 2000) n")
    empty.until_equal(lambda: empty.entries("h"), 2_000)
    again = 0
    with Workload(empty.dsn, "verify", rewrite, clients=3, pause_seconds=0.001) as load:
        for run in range(UNDER_LOAD):
            for name in ("plain", "hashes", "projected", "mails"):
                proof = await empty.verify(name, chunk_rows=200)
                assert found(proof) == {}, (run, name, proof.as_plain())
                assert proof.error is None
                again += only(proof).looked_again
        # What is drift is found all the same, though its neighbours move.
        empty.run("INSERT INTO items VALUES (5000, 1, 'still', 's', true), (5001, 1, 'still', 's', true)")
        until(lambda: empty.cache.exists("i:5000", "i:5001") == 2, "two more")
        empty.cache.delete("i:5000")
        empty.cache.set("i:5001", "{}")
        empty.cache.set("i:5002", "{}")
        drift = await empty.verify("plain", chunk_rows=200)
        load.stop()
    assert found(drift) == {"i:5000": "missing", "i:5001": "different", "i:5002": "extra"}
    assert again > 0
    assert (await empty.verify("plain")).exit_code == 5


async def test_it_can_be_ended_at_any_time(empty: Stage) -> None:
    empty.run("INSERT INTO items SELECT n, 1, NULL, NULL, true FROM generate_series(1, 100) n")
    empty.until_equal(lambda: empty.entries("i"), 100)
    task = asyncio.create_task(empty.verify("plain", chunk_rows=10, rows_per_second_max=1.0))
    asyncio.get_running_loop().call_later(2.0, task.cancel)
    proof = await task
    assert (proof.interrupted, proof.answer, proof.exit_code) == (True, Answer.PARTIAL, 75)
    assert 0 < only(proof).rows < 100
