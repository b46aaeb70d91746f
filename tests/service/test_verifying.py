"""What can be verified, and what is said where it cannot; `tests/reconcile` does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend_watcher import Watcher
from backend_watcher.errors import CannotVerify, ConfigError, ExitCode, JournalError
from backend_watcher.reconcile.compare import Difference, Kind
from backend_watcher.reconcile.report import Answer, TableResult
from backend_watcher.service.config import Config, load_config
from backend_watcher.service.verifying import Asked, Proof, page_of, verify
from backend_watcher.sinks import RedisCache, Stdout


def program() -> tuple[Config, Watcher]:
    watcher = Watcher("shop", dsn="postgresql://127.0.0.1:1/shop")
    watcher.to(RedisCache("a:{id}"), table=["a", "b"], name="cache")
    watcher.to(RedisCache("c:{id}"), table="a", insert=True, name="part")
    watcher.to(Stdout(), table="a", name="lines")
    return load_config(None, {}, watcher=watcher), watcher


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        (Asked("nobody"), "'nobody' is unknown; there are: cache, lines, part"),
        (Asked("lines"), "a sink of the kind stdout cannot be read back"),
        (Asked("part"), "takes some operations only"),
        (Asked("cache", "c"), "it does not listen to that table"),
        (Asked("cache", rows_per_second_max=0), "above 0"),
    ],
)
async def test_what_cannot_be_verified_is_refused(
    asked: Asked, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, watcher = program()
    with pytest.raises(ConfigError, match=fault):
        await verify(config, watcher, asked)


async def test_without_a_journal_there_is_nothing_to_go_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JournalError, match="no journal"):
        await verify(*program(), Asked())


def proof(*, differs: bool = False, complete: bool = True) -> Proof:
    one = TableResult("cache", "public.a", complete=complete)
    one.differences = [Difference(b"a:1", Kind.MISSING, b"{}", None)] if differs else []
    return Proof("shop", 0.0, 1.0, [one])


def test_the_shell_is_told_of_drift_before_all_else() -> None:
    assert proof().exit_code == ExitCode.CLEAN
    drift = proof(differs=True, complete=False)
    drift.error, drift.interrupted = CannotVerify("nothing moves"), True
    assert (drift.exit_code, drift.answer) == (ExitCode.DRIFT, Answer.DIFFERENT)
    for cut in (proof(), proof()):
        cut.interrupted = True
        assert (cut.exit_code, cut.answer) == (ExitCode.TEMPORARY, Answer.PARTIAL)
    failed = proof()
    failed.error = CannotVerify("nothing moves")
    assert (failed.exit_code, failed.as_plain()["error"]) == (75, "CannotVerify: nothing moves")


def test_the_page_says_when_it_was() -> None:
    assert "1970-01-01 00:00:00 UTC to 1970-01-01 00:00:01 UTC" in page_of(proof(differs=True))
