"""Children: their lines, their log, their end."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend_watcher.demo.processes import Child
from backend_watcher.errors import EmbeddedError


def child(tmp_path: Path, program: str) -> Child:
    (tmp_path / "program.py").write_text(program)
    return Child("a child", "program", folder=tmp_path, environment={"PYTHONPATH": str(tmp_path)})


def test_reads_lines_until_the_end(tmp_path: Path) -> None:
    one = child(tmp_path, "print('[1]'); print('[2]', end='\\n{')")
    assert [line for line in one.lines(30) if line is not None] == [[1], [2]]
    one.end()
    assert not one.running


def test_one_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    one = child(tmp_path, "raise SystemExit('no such shop')")
    with pytest.raises(EmbeddedError, match=r"a child did not start.*\n.*no such shop"):
        one.first_line()
    one.end()


def test_is_killed_and_may_be_ended_twice(tmp_path: Path) -> None:
    one = child(tmp_path, "import signal; print('{}', flush=True); signal.pause()")
    assert one.first_line() == {}
    assert one.running
    one.kill()
    assert not one.running
    one.end()
    one.end()


def test_that_waits_yields_none(tmp_path: Path) -> None:
    one = child(tmp_path, "import signal; signal.pause()")
    assert next(one.lines(30)) is None
    one.end()
