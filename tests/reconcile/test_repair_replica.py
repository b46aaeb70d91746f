"""A real source, a real replica, a watcher between them: what was done by hand is mended, no other row is touched."""

from __future__ import annotations

from typing import Any

import pytest

from backend_watcher.reconcile.report import Answer
from backend_watcher.service.operate import held_keys
from backend_watcher.service.repairing import Repaired, repair, what_to_do
from backend_watcher.service.verifying import Asked, verify
from faults.scale import repeats
from faults.workload import Workload

from .test_verify import found
from .test_verify_replica import Stage, empty, rewrite, stage

__all__ = ["empty", "stage"]
ROWS = 2_000
FILL = f"INSERT INTO items SELECT n, 1, 'note ' || n, n / 7.0, now() FROM generate_series(1, {ROWS}) n"
UNDER_LOAD = repeats(2, 50)


async def repaired(stage: Stage, subscription: str, table: str | None = None) -> Repaired:
    config, watcher = stage.read()
    before = await verify(config, watcher, Asked(subscription, table, stall_seconds_max=20.0))
    plans = await what_to_do(config, watcher, before)
    done = await repair(config, watcher, before, plans, reason="by a test", stall_seconds_max=20.0)
    assert not any(held_keys(config).values())
    return done


def versions(stage: Stage, table: str) -> dict[Any, Any]:
    """Return, for each row of the target, who wrote it and where it lies."""
    rows = stage.copy.execute(f"SELECT {table}::text, xmin::text, ctid::text FROM {table}".encode()).fetchall()
    return {row: (xmin, ctid) for row, xmin, ctid in rows}


async def test_what_was_done_by_hand_is_mended_and_no_other_row_is_touched(empty: Stage) -> None:
    empty.run(
        FILL,
        "INSERT INTO words VALUES ('it''s', 1.0), (E'tab\\t\\\\', 2), ('ä', NULL)",
        "INSERT INTO pairs SELECT n, md5(n::text)::uuid, 'p' FROM generate_series(1, 9) n",
    )
    for table, count in (("items", ROWS), ("words", 3), ("pairs", 9)):
        empty.filled(table, count)
    right = {table: versions(empty, table) for table in ("items", "words", "pairs")}
    empty.by_hand(
        "UPDATE items SET note = 'by hand' WHERE id = 7",
        "DELETE FROM items WHERE id = 8",
        "INSERT INTO items VALUES (99999, 1, 'by hand')",
        "DELETE FROM words WHERE word = E'tab\\t\\\\'",
        "INSERT INTO words VALUES (E'new\\t''\\\\', 3)",
        "UPDATE pairs SET note = NULL WHERE a = 3",
        "INSERT INTO pairs VALUES (10, md5('x')::uuid, 'x')",
    )
    done = await repaired(empty, "copy")
    assert done.after is not None
    assert (done.exit_code, found(done.after)) == (0, {}), done.as_plain()
    assert sum(map(len, (found(done.before), [of for one in done.plans for of in one.cannot]))) == 7
    mended = {"items": 2, "words": 1, "pairs": 1}
    for table, before in right.items():
        after = versions(empty, table)
        assert after.keys() == before.keys()
        assert sum(after[row] != before[row] for row in before) == mended[table]
    assert (await empty.verify("copy")).answer is Answer.EQUAL


async def test_what_the_predicate_drops_is_removed(empty: Stage) -> None:
    empty.run("INSERT INTO items SELECT n, 1, 'note ' || n, 1, now() FROM generate_series(1, 100) n")
    empty.filled("loud.items", 50)
    empty.by_hand(
        "INSERT INTO loud.items SELECT 3, 1, 'NOTE 3', 1, now()",
        "INSERT INTO loud.items VALUES (7777, 1)",
        "UPDATE loud.items SET note = 'note 4' WHERE id = 4",
    )
    done = await repaired(empty, "loud")
    assert done.exit_code == 0, done.as_plain()
    assert empty.count("loud.items")() == 50
    assert (await empty.verify("loud")).answer is Answer.EQUAL
    # Nobody else got it.
    assert empty.count("items")() == 100


@pytest.mark.slow
async def test_while_the_same_rows_are_written(empty: Stage) -> None:
    empty.run(FILL)
    empty.filled("items", ROWS)
    for _ in range(UNDER_LOAD):
        with Workload(empty.dsn, "repair", rewrite, clients=3, pause_seconds=0.002) as load:
            empty.by_hand(
                "UPDATE items SET note = 'by hand' WHERE id % 50 = 1 OR id = 1999",
                "DELETE FROM items WHERE id % 50 = 2",
                "INSERT INTO items SELECT 100000 + n, 1, 'by hand' FROM generate_series(1, 20) n",
            )
            done = await repaired(empty, "copy", "items")
            assert done.after is not None
            assert done.after.error is None, done.as_plain()
            assert len(found(done.before)) >= 20
            assert '["100001"]' not in found(done.after)
            load.stop()
        proof = await empty.verify("copy", "items")
        assert proof.answer is Answer.EQUAL, proof.as_plain()
