"""A pooler in the way is found by what PostgreSQL itself would never do."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import SourceRefused
from backend_watcher.postgres import preflight
from backend_watcher.postgres.connect import connect, host_of
from backend_watcher.postgres.findings import Level, Report
from backend_watcher.postgres.poolers import Session, judge_host, judge_session, look, refuse_pooler

from .transaction_pooler import Pooler, pooling


@pytest.mark.parametrize(
    ("session", "level", "word"),
    [
        (Session(1, (1, 1, 1), True), None, ""),
        (Session(9, (1, 1, 1), True), Level.WARNING, "proxy"),
        (Session(9, (1, 1, 1), True, True), Level.FAULT, "transaction pooling"),
        (Session(9, (1, 2, 1), True), Level.FAULT, "transaction pooling"),
        (Session(1, (1, 1, 2), True), Level.FAULT, "transaction pooling"),
        (Session(1, (1, 1, 1), False), Level.FAULT, "drops the settings"),
        (Session(9, (1, 2, 3), False, True), Level.FAULT, "drops the settings"),
    ],
)
def test_what_it_does_gives_it_away(session: Session, level: Level | None, word: str) -> None:
    found = list(judge_session(session))
    assert [finding.level for finding in found] == ([level] if level else [])
    assert all(word in finding.message and "PostgreSQL itself" in finding.remedy for finding in found)


def test_a_name_that_is_known_is_refused_before_anybody_is_asked() -> None:
    (found,) = judge_host("aws-0-eu-central-1.pooler.supabase.com")
    assert (found.level, found.code) == (Level.FAULT, "pooler")
    assert "direct connection" in found.remedy
    assert list(judge_host("db.example.com")) == []
    assert host_of("postgresql://u:p@Shop.proxy-x.eu.rds.amazonaws.com/d") == "Shop.proxy-x.eu.rds.amazonaws.com"
    assert host_of("dbname=x") == ""


@pytest.fixture(scope="module")
def trusting() -> Iterator[EmbeddedPostgres]:
    """A server that lets a pooler in without a password, as one beside it would be."""
    with EmbeddedPostgres(settings={"fsync": "off", "max_slot_wal_keep_size": "16GB"}) as server:
        hba = server.folder / "data" / "pg_hba.conf"
        hba.write_text(f"host all postgres 127.0.0.1/32 trust\n{hba.read_text()}")
        server.restart()
        yield server


async def report(server: EmbeddedPostgres, port: int) -> Report:
    through = server.dsn.replace(f":{server.port}/", f":{port}/")
    return await preflight.check(through, slot="s", publication="p", tables={}, allow_superuser=True)


@pytest.mark.parametrize(
    ("pooler", "word"),
    [
        ({}, "transaction pooling"),
        ({"in_turn": True, "sessions_min": 3}, "transaction pooling"),
        ({"sessions_min": 5}, "transaction pooling"),
        ({"keeps_settings": False}, "drops the settings"),
    ],
)
async def test_a_transaction_pooler_is_refused(
    trusting: EmbeddedPostgres, pooler: dict[str, object], word: str
) -> None:
    async with pooling(Pooler("127.0.0.1", trusting.port, **pooler)) as port:  # type: ignore[arg-type]
        found = await report(trusting, port)
        through = trusting.dsn.replace(f":{trusting.port}/", f":{port}/")
        async with await connect(through, purpose="test", read_only=True) as conn:
            with pytest.raises(SourceRefused, match=word):
                await refuse_pooler(conn, through)
    faults = {finding.code: finding for finding in found.faults}
    assert set(faults) == {"pooler", "replication_connection"}
    assert word in faults["pooler"].message
    with psycopg.connect(trusting.dsn) as admin:
        assert admin.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)


async def test_a_direct_connection_is_none(dsn: str) -> None:
    async with await connect(dsn, purpose="test", read_only=True) as conn:
        session = await look(conn, dsn)
        await refuse_pooler(conn, dsn)
        assert session == Session(conn.info.backend_pid, (conn.info.backend_pid,) * 3, True)
