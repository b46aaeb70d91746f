"""Tables, sizes and times for people."""

from __future__ import annotations

import sys

import pytest

from backend_watcher.cli.screen import print_json, print_pairs, print_table, size, span, width


def test_in_a_pipe_a_table_is_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "state"), [("a", "[bold]running[/]"), ("long_name", "x")])
    print_pairs([("a", "b"), ("empty", ""), ("long", "c")])
    assert capsys.readouterr().out == (
        "name       state\na          [bold]running[/]\nlong_name  x\na     b\nlong  c\n"
    )
    assert width() == sys.maxsize


def test_on_a_terminal_it_is_a_table_that_takes_text_as_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    print_table(("name", "state"), [("a", "[bold]x[/]")], "title")
    assert "[bold]x[/]" in capsys.readouterr().out
    assert 0 < width() < 100_000


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": "é\n", "b": sys})
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "–"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (10 << 30, "10.0 GiB"), (1 << 60, "1048576.0 TiB")],
)
def test_sizes(count: int | None, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.0, "0 s"), (0.25, "0.2 s"), (59.4, "59 s"), (300, "5 min"), (7200, "2 h"), (864_000, "10 d")],
)
def test_times(seconds: float | None, text: str) -> None:
    assert span(seconds) == text
