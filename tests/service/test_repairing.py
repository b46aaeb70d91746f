"""What is known of a repair, what is read from a file, how it is asked for; `tests/reconcile` does it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend_watcher import Watcher
from backend_watcher.capture.backfill_jobs import Backfill, BackfillState, load_backfills, save_backfill
from backend_watcher.errors import CannotVerify, ConfigError
from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.reconcile.compare import Difference, Kind
from backend_watcher.reconcile.repair import Plan, plan
from backend_watcher.reconcile.report import TableResult
from backend_watcher.service import repairing
from backend_watcher.service.config import Config, load_config
from backend_watcher.service.operate import audits
from backend_watcher.service.repairing import Repaired, failures, read_proof, repair, what_to_do
from backend_watcher.service.verifying import Proof
from backend_watcher.sinks import RedisCache, Stdout

MISSING = Difference(b"a:1", Kind.MISSING, b"{}", None, (("1",),))
EXTRA = Difference(b"a:2", Kind.EXTRA, None, b"{}")
PLAN = plan("cache", "public.a", [MISSING, EXTRA], {b"a:2": ("2",)})


def proof(*differences: Difference, **wished: Any) -> Proof:
    one = TableResult("cache", "public.a", complete=True, **wished)
    one.differences = list(differences)
    return Proof("shop", 0.0, 1.0, [one])


def program() -> tuple[Config, Watcher]:
    watcher = Watcher("shop", dsn="postgresql://127.0.0.1:1/shop")
    watcher.to(RedisCache("a:{id}", url="redis://127.0.0.1:1/0"), table="a", name="cache")
    watcher.to(Stdout(), table="a", name="lines")
    return load_config(None, {}, watcher=watcher), watcher


def test_all_must_be_known_for_the_shell_to_be_told_that_it_is_equal() -> None:
    before, unknown = proof(MISSING), proof(MISSING, unsettled=Counter({"moves": 1}))
    cut = proof(MISSING)
    cut.interrupted = True
    assert Repaired(before, [PLAN]).exit_code == 5
    assert Repaired(proof(), []).exit_code == 0
    assert Repaired(before, [PLAN], after=proof()).exit_code == 0
    assert Repaired(before, [PLAN], after=proof(EXTRA)).exit_code == 5
    assert Repaired(unknown, [PLAN], after=proof()).exit_code == 75
    assert Repaired(cut, [PLAN], after=proof()).exit_code == 75
    failed = proof()
    failed.error = CannotVerify("nothing moves")
    assert Repaired(before, [PLAN], after=failed).exit_code == 75


def test_it_is_told_to_programs() -> None:
    job = Backfill(3, "public.a", ("cache",), "root", 0.0, state=BackfillState.FAILED, detail="it is gone")
    strange = plan("cache", "public.a", [MISSING, EXTRA], {b"a:2": "no"})
    done = Repaired(proof(MISSING, EXTRA), [strange], [job], proof(EXTRA))
    plain = json.loads(json.dumps(done.as_plain()))
    assert (plain["repaired"], plain["exit_code"]) == (True, 5)
    assert plain["plans"] == [
        {
            "subscription": "cache",
            "table": "public.a",
            "read_again": 1,
            "removed": 0,
            "entries": ["a:1"],
            "cannot": [["a:2", "no"]],
        }
    ]
    assert plain["jobs"] == [{"number": 3, "state": "failed", "detail": "it is gone"}]
    assert failures(done) == ["repair 3 of public.a is failed: it is gone"]


def test_what_was_printed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "proof.json"
    strange = Difference(b"a:\xff", Kind.EXTRA, None, b"{}")
    path.write_text(json.dumps(proof(MISSING, EXTRA, unsettled=Counter({"moves": 2})).as_plain()))
    found = read_proof(path, "shop")
    (one,) = found.results
    assert [(d.name, d.kind, d.keys) for d in one.differences] == [
        (b"a:1", Kind.MISSING, (("1",),)),
        (b"a:2", Kind.EXTRA, ()),
    ]
    assert (one.complete, one.unsettled) == (True, Counter({"moves": 2}))
    path.write_text(json.dumps(proof(strange).as_plain()))
    (one,) = read_proof(path, "shop").results
    assert (one.differences, one.complete) == ([], False)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is not what `watcher verify --json` prints"),
        ("[]", "is not what"),
        ('{"watcher": "shop"}', "is not what"),
        ('{"watcher": "other"}', "is of watcher 'other', and not of 'shop'"),
        (None, "cannot be read: No such file"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str | None, fault: str) -> None:
    path = tmp_path / "proof.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=fault):
        read_proof(path, "shop")


@pytest.mark.parametrize(("name", "fault"), [("nobody", "'nobody' is unknown"), ("lines", "cannot be verified")])
async def test_what_cannot_be_verified_cannot_be_repaired(
    name: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = proof(MISSING)
    found.results[0].subscription = name
    with pytest.raises(ConfigError, match=fault):
        await what_to_do(*program(), found)


async def journal_of(config: Config) -> SqliteJournal:
    config.journal.path.parent.mkdir(exist_ok=True)
    journal = SqliteJournal(config.journal.path)
    await journal.open()
    return journal


async def test_where_nobody_runs_it_is_asked_for_and_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config, watcher = program()
    await (await journal_of(config)).close()
    done = await repair(config, watcher, proof(MISSING, EXTRA), [PLAN], reason="drift", stall_seconds_max=0.1)
    assert done.after is not None
    assert (done.exit_code, str(done.after.error)) == (
        75,
        "repair 1 of public.a is waiting: nothing has moved for 0.1 s",
    )
    # Asked for again it is the same.
    await repair(config, watcher, proof(MISSING, EXTRA), [PLAN], stall_seconds_max=0.1)
    journal = await journal_of(config)
    jobs = await load_backfills(journal)
    await journal.close()
    assert [(job.number, job.keys, job.repair, job.removes, job.subscriptions) for job in jobs] == [
        (1, (("1",),), True, False, ("cache",)),
        (2, (("2",),), True, True, ("cache",)),
    ]
    first, second, *_ = audits(config, 10)
    assert (first.action, first.subject) == ("repair", "cache")
    assert first.detail == "drift repair 1 of public.a: the rows of 1 keys are read again"
    assert second.detail.endswith("of 1 keys are read again, and what has no row is removed")


async def test_what_fails_is_said_and_looked_at_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config, watcher = program()
    await (await journal_of(config)).close()
    asked: list[object] = []
    operate = repairing.operate

    async def fails(*request: Any) -> str:
        said = await operate(*request)
        asked.append(request)
        journal = await journal_of(config)
        for job in await load_backfills(journal):
            await save_backfill(journal, replace(job, state=BackfillState.FAILED, detail="no privilege"))
        await journal.close()
        return said

    monkeypatch.setattr(repairing, "operate", fails)
    done = await repair(config, watcher, proof(MISSING), [Plan(*_fields(PLAN))], stall_seconds_max=5.0)
    assert failures(done) == [f"repair {n} of public.a is failed: no privilege" for n in (1, 2)]
    # The cache does not answer here.
    assert done.exit_code == 75
    assert len(asked) == 2


def _fields(one: Plan) -> Any:
    return one.subscription, one.table, one.rewrite, one.remove, one.mended, one.cannot
