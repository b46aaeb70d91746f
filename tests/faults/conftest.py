"""What the scenarios share: servers of their own, and a table of results at the end (`results.py`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .results import Part, Results, merge
from .workload import SCHEMA

_results = Results()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "scenario(id, name): which scenario of the fault run a test is a part of")


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
    if found := _results.as_json():
        terminalreporter.section(f"fault scenarios: {sum(bool(one['pass']) for one in found)} of {len(found)} passed")
        for line in _results.lines():
            terminalreporter.write_line(line)
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
