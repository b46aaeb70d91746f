"""Log lines: for people on a terminal, JSON otherwise; on standard error."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from backend_watcher.cli.logs import configure


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_in_a_pipe_a_line_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    structlog.get_logger("watcher").warning("delivery failed", subscription="cache", attempt=2)
    structlog.get_logger("watcher").debug("nothing")
    out, err = capsys.readouterr()
    assert out == ""
    line = json.loads(err)
    assert (line["event"], line["level"], line["subscription"]) == ("delivery failed", "warning", "cache")
    assert line["timestamp"].endswith("Z")


def test_on_a_terminal_it_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", as_json=False)
    structlog.get_logger("watcher").debug("draining", subscription="cache")
    err = capsys.readouterr().err
    assert "draining" in err
    assert not err.startswith("{")
