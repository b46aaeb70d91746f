"""Two hundred wrong configurations: refused before anything is touched, in a line that names what is wrong."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backend_watcher.cli.main import main
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import ExitCode

from .results import Part
from .scale import dice
from .workload import SCHEMA

CASES = 200
TOUCHED = """
SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_publication),
       (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace)
"""

TEXTS: list[Any] = [True, 7, 1.5, [], {}]
NUMBERS: list[Any] = ["many", True, -1, [], {}, float("nan")]
KEYS: dict[tuple[str, str], list[Any]] = {
    ("", "name"): ["Shop!", "a" * 41, "no name", "ÄÖ", 5],
    ("source", "dsn"): [
        "nonsense",
        "postgresql://[",
        "http://127.0.0.1/db",
        "env:NO_SUCH_VARIABLE",
        "file:/no/such/file",
        5,
    ],
    ("source", "slot"): ["Big", "with space", "semi;colon", "x" * 64, "dash-ed", 5],
    ("source", "heartbeat_seconds"): [*NUMBERS, 0, 1e9],
    ("journal", "path"): ["", *TEXTS],
    ("journal", "quota_bytes"): [*NUMBERS, 0, 1 << 70, 1.5],
    ("journal", "retain_seconds"): [*NUMBERS],
    ("journal", "retain_bytes"): [*NUMBERS, 1.5],
    ("cache", "sink"): ["radish_cache", "handler", 7, []],
    ("cache", "table"): ["no..dot", "", "a.b.c", 7, []],
    ("cache", "concurrency"): [*NUMBERS, 0, 1001, 2.5],
    ("cache", "batch"): [*NUMBERS, 0, 10_000_000],
    ("cache", "batch_seconds"): [*NUMBERS, 3601],
    ("cache", "timeout_seconds"): [*NUMBERS, 0],
    ("cache", "max_in_flight"): [*NUMBERS, 0],
    ("cache", "update"): [7, "stock", {}],
    ("cache", "insert"): ["maybe", 7, []],
    ("cache", "delete"): ["maybe", 7, []],
    ("cache", "key"): ["no placeholder", "{", "{}", 7, []],
    ("cache", "url"): ["http://h", "nonsense", "env:NO_SUCH_VARIABLE", "file:/no/such/file", 7],
    ("cache", "format"): ["xml", 7],
    ("cache", "on_truncate"): ["explode"],
    ("cache", "expire_seconds"): ["soon", -1, []],
}
"""Of each key, values that are wrong."""


@dataclass
class Case:
    """A configuration with one fault, and what the refusal has to name."""

    what: str
    tables: dict[str, dict[str, Any]]
    names: str
    text: str | None = None
    environ: dict[str, str] = field(default_factory=dict)
    codes: tuple[int, ...] = (ExitCode.CONFIGURATION,)
    commands: tuple[str, ...] = ("check", "run")

    def toml(self) -> str:
        if self.text is not None:
            return self.text
        lines = [f"{key} = {_toml(value)}" for key, value in self.tables[""].items()]
        for table in ("source", "journal"):
            lines += [f"[{table}]", *(f"{key} = {_toml(value)}" for key, value in self.tables[table].items())]
        lines += ["[[subscription]]", *(f"{key} = {_toml(value)}" for key, value in self.tables["cache"].items())]
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value) if not isinstance(value, dict) else "{}"


def good(dsn: str) -> dict[str, dict[str, Any]]:
    return {
        "": {"name": "bad"},
        "source": {"dsn": dsn},
        "journal": {"path": ".watcher/bad.journal"},
        "cache": {
            "name": "cache",
            "sink": "redis_cache",
            "table": "items",
            "key": "item:{id}",
            "url": "redis://127.0.0.1:1/0",
        },
    }


def wrong_values(dsn: str) -> Iterator[Case]:
    for (table, key), values in KEYS.items():
        for value in values:
            tables = good(dsn)
            tables[table][key] = value
            yield Case(f"{table}.{key} = {value!r}", tables, key)


def two_at_once(dsn: str, rolls: random.Random) -> Iterator[Case]:
    """One is named at least: a sink that does not exist cannot say what is wrong with its options."""
    for _ in range(60):
        one, two = rolls.sample(sorted(KEYS), 2)
        tables = good(dsn)
        for table, key in (one, two):
            tables[table][key] = rolls.choice(KEYS[table, key])
        yield Case(f"{one[1]} and {two[1]}", tables, f"{one[1]} or {two[1]}")


def unknown_and_missing_keys(dsn: str, rolls: random.Random) -> Iterator[Case]:
    for table, key in KEYS:
        tables = good(dsn)
        spoiled = list(key)
        spoiled.insert(rolls.randrange(1, len(key)), rolls.choice("qzx"))
        tables[table]["".join(spoiled)] = "x"
        yield Case(f"unknown key {''.join(spoiled)}", tables, "".join(spoiled))
    for table, key in (("cache", "table"), ("cache", "key"), ("cache", "sink"), ("source", "dsn")):
        tables = good(dsn)
        del tables[table][key]
        yield Case(f"{key} is missing", tables, key)


def broken_texts(dsn: str) -> Iterator[Case]:
    whole = Case("", good(dsn), "").toml()
    for what, text, names in (
        ("a key twice", whole.replace("[journal]", '[journal]\npath = "x"'), "line"),
        ("a table twice", whole + "\n[source]\n", "line"),
        ("a name twice", whole + whole[whole.index("[[subscription]]") :], "cache"),
        ("cut short", whole[:-9], "at its end"),
        ("no text", "", ""),
        ("not TOML", "name: bad\n", "line"),
        ("no subscription", whole[: whole.index("[[subscription]]")], "subscription"),
        ("an unknown table", whole + "\n[jurnal]\npath = 'x'\n", "jurnal"),
    ):
        # Without a subscription there is nothing to run, and the source can be checked all the same.
        commands = ("run",) if what == "no subscription" else ("check", "run")
        yield Case(what, {}, names, text, commands=commands)


def environment_faults(dsn: str) -> Iterator[Case]:
    for name, value, names in (
        ("WATCHER_SOURCE__SLOT", "Not A Slot", "WATCHER_SOURCE__SLOT"),
        ("WATCHER_SOURCE__SLOTT", "x", "WATCHER_SOURCE__SLOTT"),
        ("WATCHER_JOURNAL__QUOTA_BYTES", "lots", "WATCHER_JOURNAL__QUOTA_BYTES"),
        ("WATCHER_SUBSCRIPTION__CACHE__BATCH", "0", "WATCHER_SUBSCRIPTION__CACHE__BATCH"),
        ("WATCHER_SUBSCRIPTION__CACHE__URL", "env:NO_SUCH", "WATCHER_SUBSCRIPTION__CACHE__URL"),
        ("WATCHER_NAME", "No!", "WATCHER_NAME"),
    ):
        yield Case(f"{name}={value}", good(dsn), names, environ={name: value})


def source_faults(dsn: str) -> Iterator[Case]:
    """The words are right, and the source is not as they say."""
    refused = (ExitCode.SOURCE_REFUSED, ExitCode.CONFIGURATION)
    place = dsn.partition("@")[2]
    server = dsn.rpartition("/")[0]
    for what, (key, value), names in (
        ("no such table", ("table", "no_such_table"), "no_such_table"),
        ("no such schema", ("table", "nowhere.items"), "nowhere.items"),
        ("a view", ("table", "a_view"), "a_view"),
        ("wrong password", ("dsn", f"postgresql://postgres:wrong@{place}"), "password"),
        ("no such role", ("dsn", f"postgresql://nobody_here:x@{place}"), "nobody_here"),
        ("no such database", ("dsn", f"{server}/missing"), "missing"),
        ("no TLS there", ("dsn", f"{dsn}?sslmode=require"), "SSL"),
        ("a weak role", ("dsn", f"postgresql://weak:weak@{place}"), "weak"),
    ):
        tables = good(dsn)
        tables["source" if key == "dsn" else "cache"][key] = value
        yield Case(what, tables, names, codes=refused)


def all_cases(dsn: str, rolls: random.Random) -> list[Case]:
    fixed = [*broken_texts(dsn), *environment_faults(dsn), *source_faults(dsn), *unknown_and_missing_keys(dsn, rolls)]
    cases = [*fixed, *wrong_values(dsn), *two_at_once(dsn, rolls)]
    assert len(cases) >= CASES
    return cases


@pytest.fixture
def source() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres() as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(SCHEMA)
            connection.execute("CREATE VIEW a_view AS SELECT * FROM items")
            connection.execute("CREATE ROLE weak LOGIN PASSWORD 'weak'")
        yield server


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> Callable[[Case, str], tuple[int, str]]:
    for name in list(os.environ):
        if name.startswith(("WATCHER_", "DATABASE_URL", "PG")):
            monkeypatch.delenv(name)

    def run(case: Case, command: str) -> tuple[int, str]:
        folder = tmp_path / secrets.token_hex(4)
        folder.mkdir()
        (folder / "watcher.toml").write_text(case.toml())
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            for name, value in case.environ.items():
                patch.setenv(name, value)
            code = main((command,))
        out, err = capfd.readouterr()
        assert not (folder / ".watcher").exists(), f"{case.what}: a folder was made"
        return code, out + err

    return run


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.scenario("57", "200 wrong configurations")
def test_what_is_wrong_is_refused_and_named(
    source: EmbeddedPostgres, call: Callable[[Case, str], tuple[int, str]], result: Part
) -> None:
    faults = []
    with psycopg.connect(source.dsn, autocommit=True) as connection:
        before = connection.execute(TOUCHED).fetchone()
        for case in all_cases(source.dsn, dice("bad configurations")):
            for command in case.commands:
                code, said = call(case, command)
                if wrong := fault_of(case, code, said):
                    faults.append(f"{command}, {case.what}: {wrong}")
                    # What is not refused would run for ever.
                    break
            if connection.execute(TOUCHED).fetchone() != before:
                faults.append(f"{case.what}: the source was changed")
                break
            result.add(runs=1)
    result.add(not_as_they_should=len(faults))
    assert not faults, "\n" + "\n".join(faults)


def fault_of(case: Case, code: int, said: str) -> str | None:
    """Say what is wrong with a refusal."""
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    if code not in case.codes:
        return f"exit {code} instead of {case.codes}: {said[:200]!r}"
    if "Traceback" in said or not lines:
        return f"no line of ours: {said[:200]!r}"
    if not any(name.lower() in line.lower() for name in case.names.split(" or ") for line in lines):
        return f"no line names {case.names!r}: {lines}"
    if "remedy:" not in said and "right would be" not in said:
        return f"no remedy: {said[:200]!r}"
    return None
