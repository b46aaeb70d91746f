"""What a healthy server of today cannot show: old versions, standbys, other providers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from backend_watcher.postgres.catalog import Server
from backend_watcher.postgres.findings import Finding, Level
from backend_watcher.postgres.server_findings import judge_server, judge_slot
from backend_watcher.postgres.slots import SlotFacts, WalSender

SERVER = Server(
    version=180_006,
    version_text="18.6",
    system_identifier="7",
    timeline=1,
    flush_lsn=1,
    in_recovery=False,
    backend_pid=1,
    wal_level="logical",
    max_replication_slots=10,
    used_replication_slots=0,
    max_wal_senders=10,
    used_wal_senders=0,
    wal_sender_timeout_seconds=60.0,
    max_slot_wal_keep_bytes=2**30,
    idle_slot_timeout_seconds=None,
    synchronous_standby_names="",
    encoding="UTF8",
    database="shop",
    role="watcher",
    is_superuser=False,
    has_replication=True,
    can_create=True,
    provider=None,
)
SLOT = SlotFacts(
    name="s",
    type="logical",
    plugin="pgoutput",
    database="shop",
    temporary=False,
    active=True,
    active_pid=7,
    restart_lsn=1,
    confirmed_flush_lsn=1,
    wal_status="reserved",
    safe_wal_size_bytes=None,
    wal_held_bytes=0,
    catalog_xmin_age=0,
    two_phase=False,
    failover=False,
    synced=False,
    invalidation_reason=None,
)


def bad(findings: Iterable[Finding]) -> dict[str, Finding]:
    return {finding.code: finding for finding in findings if finding.level is not Level.OK}


def test_a_healthy_server_has_no_faults() -> None:
    assert bad(judge_server(SERVER, None)) == {}
    assert bad(judge_slot("s", None, SERVER, None)) == {}


@pytest.mark.parametrize(
    ("facts", "code", "remedy"),
    [
        ({"in_recovery": True}, "standby", "primary"),
        ({"wal_level": "replica"}, "wal_level", "ALTER SYSTEM SET wal_level = logical;"),
        ({"wal_level": "replica", "provider": "rds"}, "wal_level", "rds.logical_replication = 1"),
        ({"wal_level": "minimal", "provider": "cloudsql"}, "wal_level", "cloudsql.logical_decoding = on"),
        ({"has_replication": False}, "replication_privilege", 'ALTER ROLE "watcher" REPLICATION;'),
        ({"has_replication": False, "provider": "rds"}, "replication_privilege", "GRANT rds_replication"),
        ({"is_superuser": True}, "superuser", "CREATE ROLE"),
        ({"used_replication_slots": 10}, "max_replication_slots", "max_replication_slots = 20;"),
        ({"used_wal_senders": 10}, "max_wal_senders", "max_wal_senders = 20;"),
        ({"max_slot_wal_keep_bytes": None}, "max_slot_wal_keep_size", "pg_reload_conf"),
        ({"idle_slot_timeout_seconds": 3600.0}, "idle_replication_slot_timeout", "'3d'"),
        ({"synchronous_standby_names": "FIRST 1 (a, *)"}, "synchronous_standby_names", "pg_reload_conf"),
        ({"synchronous_standby_names": '"Backend_Watcher:x"'}, "synchronous_standby_names", "pg_reload_conf"),
        ({"encoding": "SQL_ASCII"}, "encoding", "UTF8"),
        ({"output_plugins": "test_decoding, wal2json"}, "output_plugin", "'pgoutput, test_decoding, wal2json'; SELECT"),
        ({"output_plugins": ""}, "output_plugin", "= 'pgoutput';"),
        ({"wal_sender_timeout_seconds": 0.0}, "wal_sender_timeout", "wal_sender_timeout = '60s';"),
    ],
)
def test_each_setting(facts: dict[str, Any], code: str, remedy: str) -> None:
    found = bad(judge_server(replace(SERVER, **facts), None))
    assert list(found) == [code]
    assert remedy in found[code].remedy


def test_a_limit_below_our_own_budget_is_told() -> None:
    assert bad(judge_server(SERVER, None, 2**30)) == {}
    found = bad(judge_server(SERVER, None, 2**30 + 1))
    assert list(found) == ["max_slot_wal_keep_size"]
    assert "1024 MB, below source.max_wal_bytes (1025 MB)" in found["max_slot_wal_keep_size"].message
    assert "= '1025MB'" in found["max_slot_wal_keep_size"].remedy


def test_what_is_good_to_know_is_said() -> None:
    notes = {finding.code: finding.message for finding in judge_server(SERVER, None)}
    assert "larger than 64 MB" in notes["logical_decoding_work_mem"]
    assert "max_prepared_transactions" not in notes
    notes = {f.code: f.message for f in judge_server(replace(SERVER, max_prepared_transactions=2), None)}
    assert "COMMIT PREPARED" in notes["max_prepared_transactions"]


def test_what_does_no_harm() -> None:
    for plugins in ("pgoutput, test_decoding", '"pgoutput"', "x,pgoutput"):
        assert bad(judge_server(replace(SERVER, output_plugins=plugins), None)) == {}
    calm = replace(SERVER, synchronous_standby_names="replica_1", idle_slot_timeout_seconds=3 * 86400.0)
    assert bad(judge_server(calm, None)) == {}


def test_our_own_slot_and_walsender_do_not_stand_in_our_way() -> None:
    full = replace(SERVER, used_replication_slots=10, used_wal_senders=10)
    assert bad(judge_server(full, SLOT)) == {}
    assert list(bad(judge_server(full, replace(SLOT, active=False)))) == ["max_wal_senders"]


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"plugin": "test_decoding"}, "slot_plugin"),
        ({"plugin": None, "type": "physical", "database": None}, "slot_plugin"),
        ({"database": "other"}, "slot_database"),
        ({"wal_status": "lost"}, "slot_lost"),
        ({"invalidation_reason": "idle_timeout"}, "slot_lost"),
        ({}, "slot_active"),
    ],
)
def test_each_fault_of_a_slot(facts: dict[str, Any], code: str) -> None:
    found = bad(judge_slot("s", replace(SLOT, **facts), SERVER, None))
    assert list(found) == [code]
    assert found[code].level is Level.FAULT


def test_a_slot_that_another_watcher_reads_may_soon_be_free() -> None:
    reader = WalSender(7, "w", "backend_watcher:capture", None, None, None, None, None, None, None)
    assert bad(judge_slot("s", SLOT, SERVER, reader))["slot_active"].level is Level.WARNING
    stranger = replace(reader, application_name="debezium")
    found = bad(judge_slot("s", SLOT, SERVER, stranger))["slot_active"]
    assert found.level is Level.FAULT
    assert "'debezium'" in found.message
