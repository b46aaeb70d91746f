"""The command line as such: help, version, exit codes, and the last resort."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from backend_watcher import __version__
from backend_watcher.cli import init
from backend_watcher.version import is_compiled
from cli.commands import Done, command, environment, watcher

Run = Callable[..., Done]


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = watcher(tmp_path, "--version")
    kind = "compiled" if is_compiled() else "pure Python"
    assert (done.code, done.out) == (0, f"backend-watcher {__version__} ({kind})\n")


def test_help(run: Run) -> None:
    for words in ((), ("--help",), ("-h",)):
        done = run(*words)
        assert done.code == 0
        assert all(name in done.out for name in ("demo", "init", "check", "run", "status", "tail", "dev"))
    assert run("run", "--help").code == 0


@pytest.mark.parametrize(
    ("words", "said", "remedy"),
    [
        (("runn",), "No such command 'runn'", "`watcher --help`"),
        (("run", "--foo"), "No such option: --foo", "`watcher run --help`"),
        (("tail", "-n", "many"), "Invalid value for '-n'", "`watcher tail --help`"),
        (("status", "a", "b"), "unexpected extra argument", "`watcher status --help`"),
    ],
)
def test_a_wrong_command_line_is_two_lines_and_exit_code_2(
    run: Run, words: tuple[str, ...], said: str, remedy: str
) -> None:
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    first, second = done.err.splitlines()
    assert first.startswith("error: ")
    assert said in first
    assert second.startswith("remedy: ")
    assert remedy in second
    done = run(*words, "--json")
    assert done.err == ""
    assert done.json["exit_code"] == done.code == 2
    assert done.json["error"]["kind"] == "UsageError"
    assert said in done.json["error"]["message"]


def test_what_nobody_expected_is_one_line_and_kept_in_a_file(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> str:
        raise RuntimeError("hm\nsecond line")

    monkeypatch.setattr(init, "_name", fail)
    done = run("init")
    assert done.code == 75
    assert done.err == (
        "error: the watcher did not expect this: RuntimeError: hm\nremedy: Report it, with .watcher/crash.txt.\n"
    )
    crash = folder / ".watcher" / "crash.txt"
    assert "in fail" in crash.read_text()
    assert crash.stat().st_mode & 0o777 == 0o600
    assert run("init", "--json").json["exit_code"] == 75


def test_a_reader_that_goes_away_is_no_fault(tmp_path: Path) -> None:
    child = subprocess.Popen(
        command("--help"), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    with child.stderr:
        said = child.stderr.read()
    assert (child.wait(), said) == (0, b"")
