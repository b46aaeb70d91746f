"""
What the scenarios share: servers of their own, and a table of results at the end (`results.py`).

FAULTS_PARTS is a file from which the results of a run before this one are taken, and to which all are written: so
several runs, one after the other, end in one table. FAULTS_JSON is where the table is written for a program.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .results import Part, Results, merge
from .scale import FULL
from .workload import SCHEMA

DELIVERY = frozenset(
    str(number)
    for first, last in (
        (1, 9),
        (12, 14),
        (19, 22),
        (24, 27),
        (33, 33),
        (41, 46),
        (55, 59),
        (61, 62),
        (64, 64),
        (69, 69),
    )
    for number in range(first, last + 1)
)
"""The scenarios of what the watcher does with changes; the others are about what PostgreSQL says, and earlier rows."""

_results = Results()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "scenario(id, name): which scenario of the fault run a test is a part of")
    config.addinivalue_line("markers", "large: its full form takes many minutes by itself: `make faults-large`")
    config.addinivalue_line("markers", "source: about what PostgreSQL says, and rows of before: `make faults-source`")
    config.addinivalue_line("markers", "quiet: compares timings, and is run with nothing beside it in the full form")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say which are about the source; in the full form, several at once, begin with the longest by time limit."""
    for item in items:
        scenarios = {mark.args[0] for mark in item.iter_markers("scenario")}
        if scenarios and not scenarios & DELIVERY:
            item.add_marker("source")
    if FULL:
        items.sort(key=lambda item: -max((mark.args[0] for mark in item.iter_markers("timeout")), default=0))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Of several processes, each tells the first one what it has found."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["scenarios"] = _results.parts()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear what another process has found; one that was killed says nothing."""
    _results.add(getattr(node, "workeroutput", {}).get("scenarios", []))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    for mark in item.iter_markers("scenario"):
        scenario = _results.of(*mark.args)
        if report.skipped:
            scenario.skipped.append(str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr))
        elif report.failed:
            scenario.failed.append(item.name)
        elif call.when == "call":
            scenario.passed += 1
    return report


@pytest.fixture
def result(request: pytest.FixtureRequest) -> Iterator[Part]:
    """Where a test says its figures."""
    part = Part()
    yield part
    for mark in request.node.iter_markers("scenario"):
        for name, value in part.figures.items():
            merge(_results.of(*mark.args).figures, name, value)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if hasattr(terminalreporter.config, "workerinput"):
        return  # the first process says and writes it, for all
    if (path := os.environ.get("FAULTS_PARTS")) and Path(path).exists():
        _results.add(json.loads(Path(path).read_text()))
    if found := _results.as_json():
        terminalreporter.section(f"fault scenarios: {sum(bool(one['pass']) for one in found)} of {len(found)} passed")
        for line in _results.lines():
            terminalreporter.write_line(line)
    if path:
        Path(path).write_text(json.dumps(_results.parts()))
    if path := os.environ.get("FAULTS_JSON"):
        _results.write(Path(path))


@pytest.fixture
def postgres(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """A server that the test may stop and kill, with the tables of the workloads; its parameter is settings."""
    with EmbeddedPostgres(settings=getattr(request, "param", None)) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(SCHEMA)
        yield server


@pytest.fixture
def valkey() -> Iterator[EmbeddedValkey]:
    """A cache that the test may stop and kill."""
    with EmbeddedValkey() as server:
        yield server
