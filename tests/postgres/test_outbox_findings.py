"""Which kind is recommended, and what is said of an outbox that is not whole. Facts in, findings out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backend_watcher.postgres.catalog import ColumnFacts, Found, TableFacts
from backend_watcher.postgres.findings import Finding, Level
from backend_watcher.postgres.outbox_findings import EVENT_COLUMNS, judge_kind, judge_outbox
from backend_watcher.postgres.outbox_install import ROW_TRIGGER, TRUNCATE_TRIGGER, Installed

from .test_server_findings import SERVER

TABLE = TableFacts(
    oid=20000,
    schema="public",
    name="orders",
    quoted="public.orders",
    kind="r",
    persistence="p",
    is_system=False,
    primary_key=("id",),
    replica_identity="d",
    unidentified=(),
    without_old_values=(),
    candidate_index=None,
    columns=tuple(ColumnFacts(name, 25, -1, "text", "", False) for name in EVENT_COLUMNS),
    owner="app",
    owned=True,
    can_select=True,
    row_security=False,
    is_partition=False,
    partition_root=None,
)
WHOLE = Installed(True, True, (), {20000: {ROW_TRIGGER: (1, "A"), TRUNCATE_TRIGGER: (2, "A")}})


def judged(installed: Installed = WHOLE, table: TableFacts = TABLE, **more: Any) -> list[Finding]:
    found = Found({"public.orders": table}, more.pop("missing", {}))
    values = {
        "event_table": None,
        "notify": True,
        "prepared_transactions": 0,
        "commits_per_second": 1.0,
        "server": SERVER,
    } | more
    return list(judge_outbox(installed, found, **values))


def bad(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings if finding.level is not Level.OK]


def test_an_outbox_that_is_whole_is_all_right() -> None:
    assert bad(judged()) == []


@pytest.mark.parametrize(
    ("installed", "codes"),
    [
        (Installed(False, None, (), {}), ["outbox_missing"]),
        (replace(WHOLE, rights=("SELECT ON watcher.outbox",)), ["outbox_rights"]),
        (replace(WHOLE, notifies=False), ["outbox_notify"]),
        (replace(WHOLE, triggers={}), ["outbox_trigger"]),
        (replace(WHOLE, triggers={20000: {ROW_TRIGGER: (1, "O"), TRUNCATE_TRIGGER: (2, "A")}}), ["outbox_trigger"]),
        (replace(WHOLE, triggers={20000: {ROW_TRIGGER: (1, "A")}}), ["outbox_trigger"]),
    ],
)
def test_what_is_missing_is_named_with_what_mends_it(installed: Installed, codes: list[str]) -> None:
    findings = judged(installed)
    assert bad(findings) == codes
    assert all(finding.remedy for finding in findings if finding.level is not Level.OK)


def test_tables_that_cannot_be_heard_by_triggers_are_named() -> None:
    assert bad(judged(table=replace(TABLE, kind="v"))) == ["not_publishable"]
    assert bad(judged(table=replace(TABLE, primary_key=()))) == ["no_primary_key"]
    assert bad(judged(missing={"public.gone": ()})) == ["table_missing"]
    assert bad(judged(server=replace(SERVER, in_recovery=True))) == ["standby"]
    assert bad(judged(prepared_transactions=5)) == ["prepared_transactions"]
    assert bad(judged(commits_per_second=101.0)) == ["notify_rate"]
    assert bad(judged(replace(WHOLE, notifies=False), prepared_transactions=5, notify=False)) == []


def test_an_outbox_table_of_the_application_needs_its_columns_and_one_trigger() -> None:
    one = replace(WHOLE, triggers={20000: {ROW_TRIGGER: (1, "A")}})
    assert bad(judged(one, event_table="public.orders")) == []
    lacking = replace(TABLE, columns=TABLE.columns[:3])
    findings = judged(one, lacking, event_table="public.orders")
    assert bad(findings) == ["outbox_table"]
    assert "lacks type, payload" in findings[-1].message


@pytest.mark.parametrize(
    ("kind", "level", "words"),
    [
        ("logical", Level.OK, "suits this server"),
        ("outbox", Level.OK, "'logical' would do here, and is recommended"),
        ("notify", Level.WARNING, "best effort"),
    ],
)
def test_where_logical_decoding_can_be_had_it_is_recommended(kind: str, level: Level, words: str) -> None:
    (finding,) = judge_kind(kind, replace(SERVER, wal_level="logical", has_replication=True))
    assert (finding.code, finding.level) == ("kind", level)
    assert words in finding.message


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (replace(SERVER, wal_level="replica"), "wal_level is replica"),
        (replace(SERVER, wal_level="logical", is_superuser=False, has_replication=False), "may not replicate"),
    ],
)
def test_where_it_cannot_the_outbox_is(server: Any, reason: str) -> None:
    findings = {kind: next(iter(judge_kind(kind, server))) for kind in ("logical", "outbox", "notify")}
    # What is wrong with it is a fault of its own.
    assert findings["logical"].level is Level.OK
    assert 'kind = "outbox"' in findings["logical"].message
    assert "suits this server" in findings["outbox"].message
    assert 'kind = "outbox"' in findings["notify"].remedy
    assert reason in findings["logical"].message + findings["outbox"].message
    assert reason in findings["notify"].remedy
