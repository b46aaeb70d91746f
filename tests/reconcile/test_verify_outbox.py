"""What is heard through an outbox is verified as what is heard through a slot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey
from backend_watcher.reconcile.report import Answer
from faults.running import Running, until

from .conftest import PROGRAM, SCHEMA, Stage

COMMAND_SECONDS_MAX = 60.0


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Servers, the outbox, and `watcher run` that reads it."""
    with (
        EmbeddedPostgres(settings={"fsync": "off", "wal_level": "replica"}) as postgres,
        EmbeddedValkey() as valkey,
    ):
        monkeypatch.setenv("FAULTS_REDIS", valkey.url)
        stage = Stage(tmp_path, postgres, valkey)
        stage.environ["WATCHER_SOURCE__KIND"] = "outbox"
        stage.run(SCHEMA)
        install = [sys.executable, "-m", "backend_watcher", "outbox", "install", str(PROGRAM)]
        done = subprocess.run(
            install, cwd=tmp_path, env=stage.environ, capture_output=True, timeout=COMMAND_SECONDS_MAX, check=False
        )
        assert done.returncode == 0, done.stderr
        with Running(tmp_path, stage.environ, program=PROGRAM) as running:
            until(lambda: (tmp_path / ".watcher" / "faults.journal").exists(), "the journal")
            yield stage
            assert running.end() == 0, running.log()[-3000:]
        stage.connection.close()
        stage.cache.close()


async def test_what_was_done_by_hand_is_found_and_nothing_else(heard: Stage) -> None:
    heard.run("INSERT INTO items SELECT n, n, 'note', 's', true FROM generate_series(1, 500) n")
    heard.until_equal(lambda: heard.entries("i"), 500)
    proof = await heard.verify("plain")
    (result,) = proof.results
    assert (proof.answer, result.rows, result.unsettled) == (Answer.EQUAL, 500, {})
    assert result.position is not None
    heard.cache.delete("i:7")
    heard.cache.set("i:8", "{}")
    heard.cache.set("i:900", "{}")
    heard.run("UPDATE items SET version = version + 1 WHERE id > 400")
    proof = await heard.verify("plain")
    found = {one.name: str(one.kind) for one in proof.results[0].differences}
    assert found == {b"i:7": "missing", b"i:8": "different", b"i:900": "extra"}
    done = subprocess.run(
        [sys.executable, "-m", "backend_watcher", "repair", "plain", "--app", str(PROGRAM), "--yes"],
        cwd=heard.folder,
        env=heard.environ,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert heard.entries("i") == 500
    assert (await heard.verify("plain")).answer is Answer.EQUAL
