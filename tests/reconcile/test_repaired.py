"""A real source, a real cache, a watcher between them: what was done by hand is mended, and nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend_watcher.cli.main import main
from backend_watcher.reconcile.report import Answer
from backend_watcher.service.operate import audits, held_keys
from backend_watcher.service.repairing import Repaired
from faults.running import until
from faults.scale import repeats
from faults.workload import Workload

from .conftest import PROGRAM, Stage
from .test_verify import found, rewrite

ROWS = 1_000
FILL = f"INSERT INTO items SELECT n, 1, 'note ' || n, 's' || n, true FROM generate_series(1, {ROWS}) n"
UNDER_LOAD = repeats(2, 50)


def everything(stage: Stage) -> dict[bytes, Any]:
    """Return all that the cache holds, entries and positions."""
    cache = stage.cache
    names = list(cache.scan_iter(count=1000))
    kinds = [cache.type(name) for name in names]
    return {
        name: cache.hgetall(name) if kind == b"hash" else cache.get(name)
        for name, kind in zip(names, kinds, strict=True)
    }


def changed(before: dict[bytes, Any], after: dict[bytes, Any]) -> set[bytes]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def cannot(done: Repaired) -> dict[str, str]:
    return {of.name.decode(): why for one in done.plans for of, why in one.cannot}


async def test_what_was_done_by_hand_is_mended_and_nothing_else_is_touched(empty: Stage) -> None:
    empty.run(FILL)
    for prefix in ("i", "h", "e"):
        empty.until_equal(lambda: empty.entries(prefix), ROWS)  # noqa: B023 called at once
    empty.until_equal(lambda: empty.entries("p"), ROWS // 2)
    right = everything(empty)
    cache = empty.cache
    cache.set("i:7", json.dumps({**json.loads(cache.get("i:7")), "note": "by hand"}))
    cache.delete("i:8")
    cache.set("i:99999", "{}")
    cache.hset("h:7", "note", "by hand")
    cache.delete("h:8")
    cache.hset("h:99999", "id", "99999")
    for name, prefix in (("plain", "i"), ("hashes", "h")):
        before = everything(empty)
        done = await empty.repair(name)
        mended = {f"{prefix}:{number}" for number in (7, 8, 99999)}
        assert found(done.before).keys() == mended
        assert done.after is not None
        assert (done.exit_code, found(done.after), cannot(done)) == (0, {}, {})
        (plan,) = done.plans
        assert (plan.rewrite, plan.remove) == ((("7",), ("8",)), (("99999",),))
        assert [job.rows for job in done.jobs] == [2, 1]
        touched = changed(before, everything(empty))
        # The positions of the mended entries are new; those of all others, of other subscriptions too, are not.
        assert touched == {one.encode() for one in mended} | {f"@{one}".encode() for one in mended}
        after = await empty.verify(name)
        assert (after.answer, after.exit_code) == (Answer.EQUAL, 0)
    left = changed(right, everything(empty))
    assert left == {f"@{prefix}:{number}".encode() for prefix in "ih" for number in (7, 8, 99999)}
    assert not await_held(empty)
    audited = [(one.action, one.subject, one.detail) for one in audits(empty.read()[0], 4)]
    assert [(action, subject) for action, subject, _ in audited] == [
        ("repair", "plain"),
        ("repair", "plain"),
        ("repair", "hashes"),
        ("repair", "hashes"),
    ]
    assert "by a test repair" in audited[0][2]
    assert "public.items: the rows of 2 keys are read again" in audited[0][2]


def await_held(stage: Stage) -> dict[str, list[Any]]:
    return {name: keys for name, keys in held_keys(stage.read()[0]).items() if keys}


async def test_what_the_predicate_drops_is_removed_and_what_is_masked_stays_so(empty: Stage) -> None:
    empty.run("INSERT INTO items SELECT n, 1, 'n', 'very secret ' || n, true FROM generate_series(1, 100) n")
    empty.until_equal(lambda: empty.entries("p"), 50)
    cache = empty.cache
    # One that a row should not have, one that no row has and the predicate would not take, one from before the mask.
    cache.set("p:1", '{"id":1,"secret":"very secret 1","kept":true}')
    cache.set("p:7777", "{}")
    cache.set("p:2", '{"id":2,"secret":"very secret 2","kept":true}')
    cache.delete("p:4")
    done = await empty.repair("projected")
    assert found(done.before) == {"p:1": "extra", "p:7777": "extra", "p:2": "different", "p:4": "missing"}
    assert (done.exit_code, cannot(done)) == (0, {}), done.as_plain()
    assert "very secret" not in json.dumps(done.as_plain())
    assert cache.mget("p:1", "p:7777") == [None, None]
    assert json.loads(cache.get("p:2"))["secret"] == json.loads(cache.get("p:4"))["secret"] == "***"
    assert (await empty.verify("projected")).answer is Answer.EQUAL
    assert not await_held(empty)


async def test_what_cannot_be_repaired_is_said_and_left_alone(empty: Stage) -> None:
    empty.run(
        "INSERT INTO items SELECT n, 1, 'n', 's', true FROM generate_series(1, 10) n",
        "INSERT INTO mails VALUES (1, 'ann'), (2, 'bob')",
    )
    empty.until_equal(lambda: empty.entries("i"), 10)
    empty.until_equal(lambda: empty.entries("m"), 2)
    cache = empty.cache
    for name in ("i:007", "i:99999999999", "i:77", "m:nobody"):
        cache.set(name, "{}")
    cache.delete("i:3", "m:bob")
    done = await empty.repair("plain")
    assert cannot(done) == {
        "i:007": "its name is not the one that a row with this key has",
        "i:99999999999": "its name holds what is no key of the table",
    }
    assert done.after is not None
    assert (done.exit_code, found(done.after)) == (5, {"i:007": "extra", "i:99999999999": "extra"})
    assert cache.exists("i:77") == 0
    # The row with that key is as it was.
    assert json.loads(cache.get("i:7"))["id"] == 7
    done = await empty.repair("mails")
    assert cannot(done) == {"m:nobody": "'m:{mail}' is not made from the primary key"}
    assert done.after is not None
    assert (done.exit_code, found(done.after)) == (5, {"m:nobody": "extra"})
    assert not await_held(empty)


async def test_keys_of_text_and_entries_that_expire(empty: Stage) -> None:
    strange = ["it's", "tab\t\\", "", "w:*?[", "ä"]
    for word in strange:
        empty.connection.execute("INSERT INTO words VALUES (%s, 1, now())", [word])
    empty.run("INSERT INTO items SELECT n, 1, NULL, NULL, true FROM generate_series(1, 10) n")
    empty.until_equal(lambda: empty.entries("w"), len(strange))
    empty.until_equal(lambda: empty.entries("e"), 10)
    cache = empty.cache
    cache.delete(*(f"w:{word}" for word in strange), "e:2")
    for word in ("nobody's\t\\", "ö"):
        cache.set(f"w:{word}", "{}")
    cache.set("e:77", "{}")
    for name in ("words", "expiring"):
        done = await empty.repair(name)
        assert (done.exit_code, cannot(done)) == (0, {}), done.as_plain()
        assert (await empty.verify(name)).answer is Answer.EQUAL
    assert empty.entries("w") == len(strange)
    assert 0 < cache.ttl("e:2") <= 3600


@pytest.mark.slow
@pytest.mark.timeout(repeats(240, 3600))
async def test_while_the_same_keys_are_updated(empty: Stage) -> None:
    empty.run("INSERT INTO items SELECT n, 1, 'n', 's', true FROM generate_series(1, 2000) n")
    for prefix in ("i", "h"):
        empty.until_equal(lambda: empty.entries(prefix), 2_000)  # noqa: B023 called at once
    cache = empty.cache
    mended = 0
    for _ in range(UNDER_LOAD):
        with Workload(empty.dsn, "repair", rewrite, clients=3, pause_seconds=0.001) as load:
            # Keys that clients write, now and then or all the time, with and without a row, and keys that stand still.
            for key in (*range(1, 60), 1990, 1995, 100_000):
                damage = ("{}", None)[key % 2]
                if damage is None:
                    cache.delete(f"i:{key}", f"h:{key}")
                else:
                    cache.set(f"i:{key}", damage)
                    cache.delete(f"h:{key}")
                    cache.hset(f"h:{key}", "note", "by hand")
            for name, prefix in (("plain", "i"), ("hashes", "h")):
                done = await empty.repair(name, chunk_rows=200)
                assert done.after is not None
                assert done.after.error is None, done.as_plain()
                assert cannot(done) == {}
                assert not {f"{prefix}:1990", f"{prefix}:1995", f"{prefix}:100000"} & found(done.after).keys()
                assert {f"{prefix}:1990", f"{prefix}:100000"} <= found(done.before).keys()
                mended += len(found(done.before))
            load.stop()
        for name in ("plain", "hashes"):
            proof = await empty.verify(name)
            assert proof.answer is Answer.EQUAL, proof.as_plain()
    assert mended > 0
    assert not await_held(empty)


def test_the_command_shows_and_asks_before_it_does(
    empty: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, value in empty.settings.items():
        monkeypatch.setenv(name, value)
    empty.run("INSERT INTO items SELECT n, 1, NULL, NULL, true FROM generate_series(1, 10) n")
    empty.until_equal(lambda: empty.entries("i"), 10)
    empty.cache.delete("i:3")
    empty.cache.set("i:77", "{}")
    command = ["repair", "plain", "--app", str(PROGRAM)]
    before = everything(empty)
    assert main(command) == 5
    out = capsys.readouterr().out
    assert "plain public.items: 1 row is to be read again and delivered: 'i:3'" in out
    assert "plain public.items: 1 entry is to be removed: 'i:77'" in out
    assert "nothing was changed; with --yes it is done" in out
    assert changed(before, everything(empty)) == set()
    assert main(["verify", "plain", "--app", str(PROGRAM), "--json"]) == 5
    (tmp_path / "proof.json").write_text(capsys.readouterr().out)
    # What the file says may not be so any more.
    empty.run("INSERT INTO items VALUES (77, 1, 'new', NULL, true)", "DELETE FROM items WHERE id = 3")
    until(lambda: b"new" in (empty.cache.get("i:77") or b""), "the new row")
    assert main([*command, "--from", str(tmp_path / "proof.json"), "--yes", "--json", "--reason", "a test"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert (plain["repaired"], plain["exit_code"], plain["after"]["verdict"]) == (True, 0, "equal")
    assert b"new" in empty.cache.get("i:77")
    assert empty.cache.get("i:3") is None
    assert main(command) == 0
    assert "to be" not in capsys.readouterr().out
    assert main(["audit", "-n", "1", "--app", str(PROGRAM)]) == 0
    assert "a test repair" in capsys.readouterr().out
