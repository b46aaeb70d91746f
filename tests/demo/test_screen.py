"""What is shown where."""

from __future__ import annotations

import io

from rich.console import Console

from backend_watcher.demo.screen import Screen

from .test_report import GOOD

LINE = {"orders": 30, "seconds": 2.0, "p50_ms": 7.0, "p95_ms": 9.0, "p99_ms": 66.6}


def show(console: Console | None) -> None:
    with Screen(console, "80-160") as screen:
        screen.say("starting")
        screen.progress("inline", LINE, 10)
        screen.phase("inline", GOOD.inline)
        screen.killed(1)
        screen.phase("watched", GOOD.watched)
        screen.finish(GOOD)


def test_without_a_terminal_lines_and_one_table() -> None:
    output = io.StringIO()
    show(Console(file=output, width=120))
    text = output.getvalue()
    assert "starting" in text.splitlines()[0]
    assert text.count("the same orders, twice") == 1
    assert "1 ×, caught up after 900 ms" in text
    assert text.rstrip().endswith(": ok")
    assert "\x1b" not in text


def test_on_a_terminal_the_table_is_live() -> None:
    output = io.StringIO()
    show(Console(file=output, width=120, force_terminal=True))
    assert "\x1b" in output.getvalue()
    assert GOOD.verdict in output.getvalue()


def test_nothing_for_a_program(capsys: object) -> None:
    show(None)
