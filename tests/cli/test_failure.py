"""Errors as lines, as an object, as an exit code."""

from __future__ import annotations

import pytest

from backend_watcher.cli.failure import failure_of, report
from backend_watcher.errors import (
    ConfigError,
    EmbeddedError,
    JournalLost,
    PreflightFailed,
    SourceRefused,
    SourceUnavailable,
    WatcherError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(["a", "b"]), 2),
        (PreflightFailed(["a", "b"]), 3),
        (SourceRefused("a\nb"), 3),
        (JournalLost("a\nb"), 4),
        (SourceUnavailable("a\nb"), 75),
        (EmbeddedError("a\n\nb"), 75),
        (ExceptionGroup("", [ConfigError(["a", "b"])]), 2),
    ],
)
def test_every_error_is_lines_with_a_remedy(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    failure = failure_of(error)
    assert report(failure, as_json=False) == code
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert (out, lines[:2]) == ("", ["error: a", "error: b"])
    assert lines[2].startswith("remedy: ")
    assert len(lines) == 3
    found = failure.as_json()
    assert found["exit_code"] == code
    assert found["error"]["faults"] == ["a", "b"]
    assert found["error"]["remedy"] == failure.remedy


def test_what_a_terminal_would_obey_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    report(failure_of(WatcherError("red \x1b[31m\ttab", remedy="a\nb")), as_json=False)
    assert capsys.readouterr().err == "error: red �[31m tab\nremedy: a b\n"
