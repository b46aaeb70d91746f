"""Every finding provoked on a server, and every remedy that is SQL tried on it."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import ConfigError, PreflightFailed, SourceRefused, SourceUnavailable
from backend_watcher.postgres import publications, slots
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.findings import Level, Report, Wish
from backend_watcher.postgres.preflight import check
from backend_watcher.postgres.translate import translating

from .conftest import make, make_role, reading

SLOT, PUBLICATION = "shop", "shop"
_OLD = Wish(old_values=True)
_PARTITIONED = "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE t1 PARTITION OF t DEFAULT"
_BY_INDEX = (
    "CREATE TABLE t (id int NOT NULL); CREATE UNIQUE INDEX i ON t (id); ALTER TABLE t REPLICA IDENTITY USING INDEX i"
)
_INSERTS = Wish(updates=False, deletes=False)


async def look(dsn: str, tables: Mapping[str, Wish] | None = None) -> Report:
    report = await check(dsn, slot=SLOT, publication=PUBLICATION, tables=tables or {})
    for finding in report.findings:
        assert str(finding).isprintable(), "a finding is one line"
        assert finding.message
        assert bool(finding.remedy) == (finding.level is not Level.OK)
    return report


def codes(report: Report) -> list[str]:
    """What is wrong, without what is wrong with a superuser in every test."""
    return [finding.code for finding in (*report.faults, *report.warnings) if finding.code != "superuser"]


async def state(conn: Connection) -> list[list[tuple[Any, ...]]]:
    questions = (
        "SELECT * FROM pg_publication ORDER BY oid",
        "SELECT * FROM pg_publication_rel ORDER BY oid",
        "SELECT slot_name, plugin, active, restart_lsn, confirmed_flush_lsn FROM pg_replication_slots ORDER BY 1",
        "SELECT oid, relname, relreplident, relowner, relacl FROM pg_class ORDER BY oid",
        "SELECT * FROM pg_roles ORDER BY oid",
        "SELECT name, setting FROM pg_file_settings",
        "SELECT pg_current_xact_id_if_assigned(), next_xid FROM pg_control_checkpoint()",
    )
    return [await (await conn.execute(question.encode())).fetchall() for question in questions]


async def test_a_source_that_is_ready(dsn: str, conn: Connection) -> None:
    role = await make_role(conn, dsn)
    database = dsn.rpartition("/")[2]
    await make(
        conn,
        f"GRANT CREATE ON DATABASE {database} TO watcher",
        "CREATE TABLE products (id int PRIMARY KEY)",
        "CREATE TABLE logs (id int PRIMARY KEY) PARTITION BY LIST (id)",
        "ALTER TABLE products OWNER TO watcher",
        "ALTER TABLE logs OWNER TO watcher",
    )
    before = await state(conn)
    report = await look(role, {"products": Wish(), "public.logs": Wish()})
    report.raise_if_faulty()
    assert (report.faults, report.warnings) == ((), ())
    assert {"connection", "version", "wal_level", "role", "slot", "publication", "table", "replication_connection"} <= {
        finding.code for finding in report.findings
    }
    assert await state(conn) == before, "a check changes nothing"


async def test_a_check_changes_nothing_where_everything_is_there_either(dsn: str, conn: Connection) -> None:
    await make(conn, "CREATE TABLE t (id int PRIMARY KEY)", "CREATE PUBLICATION shop FOR TABLE t")
    await slots.create(conn, SLOT)
    before = await state(conn)
    assert codes(await look(dsn, {"t": Wish(), "nonesuch": Wish()})) == ["table_missing"]
    assert await state(conn) == before


async def test_a_check_could_not_change_anything(dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    async def harm(session: Connection, name: str) -> None:
        with translating():
            await session.execute("CREATE TABLE public.harm ()")

    monkeypatch.setattr(publications, "look", harm)
    with pytest.raises(SourceRefused, match="25006"):
        (await look(dsn)).raise_if_faulty()


def _tables(*, old: bool = False) -> Mapping[str, Wish]:
    return {"t": _OLD if old else Wish()}


@pytest.mark.parametrize(
    ("code", "before", "wishes"),
    [
        ("not_publishable", "CREATE UNLOGGED TABLE t (id int PRIMARY KEY)", _tables()),
        ("replica_identity", "CREATE TABLE t (id int)", _tables()),
        ("replica_identity", "CREATE TABLE t (id int NOT NULL UNIQUE)", _tables()),
        ("replica_identity", "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE)", _tables()),
        ("replica_identity", "CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY NOTHING", _tables()),
        (
            "deferrable_key",
            "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE); ALTER TABLE t REPLICA IDENTITY FULL",
            _tables(),
        ),
        (
            "replica_identity",
            f"{_PARTITIONED}; ALTER TABLE t1 REPLICA IDENTITY NOTHING",
            _tables(),
        ),
        (
            "replica_identity",
            f"{_BY_INDEX}; ALTER TABLE t ADD PRIMARY KEY (id); DROP INDEX i",
            _tables(),
        ),
        ("old_values", "CREATE TABLE t (id int PRIMARY KEY)", _tables(old=True)),
        (
            "old_values",
            _PARTITIONED,
            _tables(old=True),
        ),
        (
            "no_primary_key",
            _BY_INDEX,
            _tables(),
        ),
        (
            "publication_operations",
            "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION shop FOR TABLE t WITH (publish = 'insert')",
            _tables(),
        ),
        (
            "publication_via_root",
            "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE PUBLICATION shop FOR TABLE t",
            _tables(),
        ),
    ],
)
async def test_each_fault_of_a_table_is_mended_by_its_remedy(
    dsn: str, conn: Connection, code: str, before: str, wishes: Mapping[str, Wish]
) -> None:
    await make(conn, before)
    report = await look(dsn, wishes)
    assert codes(report) == [code]
    (found,) = [finding for finding in report.findings if finding.code == code]
    await make(conn, found.remedy)
    # A table that got an identity but has no key, or one that two rows may share, is worth a word still.
    assert set(codes(await look(dsn, wishes))) <= {"no_primary_key", "deferrable_key"}


async def test_each_right_that_is_missing_is_granted_by_its_remedy(dsn: str, conn: Connection) -> None:
    role = await make_role(conn, dsn, "")
    await make(conn, "CREATE SCHEMA closed; CREATE TABLE closed.t (id int PRIMARY KEY)")
    wishes = {"closed.t": Wish()}
    for code in ("replication_privilege", "table_owner", "select_privilege"):
        report = await look(role, wishes)
        assert codes(report)[0] == code
        await make(conn, report.faults[0].remedy if report.faults else report.warnings[0].remedy)
    assert codes(await look(role, wishes)) == []

    await make(conn, "DROP PUBLICATION shop; ALTER TABLE closed.t OWNER TO watcher")
    report = await look(role, wishes)
    assert codes(report) == ["create_privilege"]
    await make(conn, report.faults[0].remedy)
    assert codes(await look(role, wishes)) == []

    await make(conn, "CREATE PUBLICATION shop")
    report = await look(role, wishes)
    assert codes(report) == ["publication_tables"]
    await make(conn, report.faults[0].remedy)
    assert codes(await look(role, wishes)) == []

    await make(conn, "ALTER TABLE closed.t OWNER TO postgres; ALTER TABLE closed.t ENABLE ROW LEVEL SECURITY")
    await make(conn, "GRANT SELECT ON closed.t TO watcher")
    report = await look(role, wishes)
    assert codes(report) == ["row_security"]
    await make(conn, report.warnings[0].remedy)
    assert codes(await look(role, wishes)) == []


async def test_a_superuser_is_told_that_less_would_do(dsn: str) -> None:
    report = await look(dsn)
    assert [finding.code for finding in report.warnings] == ["superuser"]
    report.raise_if_faulty()


async def test_a_superuser_that_is_meant_is_not_told(dsn: str) -> None:
    report = await check(dsn, slot=SLOT, publication=PUBLICATION, tables={}, allow_superuser=True)
    assert report.warnings == ()


async def test_a_table_that_is_missing_comes_with_the_name_that_was_meant(dsn: str, conn: Connection) -> None:
    await make(conn, "CREATE SCHEMA sales; CREATE TABLE sales.orders (id int PRIMARY KEY)")
    report = await look(dsn, {"orders": Wish()})
    (found,) = report.faults
    assert (found.code, found.remedy) == ("table_missing", "write sales.orders instead")
    with pytest.raises(PreflightFailed, match="did you mean 'sales"):
        report.raise_if_faulty()


async def test_what_is_no_table_cannot_be_watched(dsn: str, conn: Connection) -> None:
    await make(
        conn,
        "CREATE VIEW v AS SELECT 1 AS id",
        "CREATE MATERIALIZED VIEW m AS SELECT 1 AS id",
        "CREATE SEQUENCE s",
        "CREATE TYPE c AS (id int)",
        "CREATE FOREIGN DATA WRAPPER w",
        "CREATE SERVER w FOREIGN DATA WRAPPER w",
        "CREATE FOREIGN TABLE f (id int) SERVER w",
        "CREATE TEMP TABLE tmp (id int PRIMARY KEY)",
    )
    row = await (await conn.execute("SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()")).fetchone()
    assert row is not None
    names = ["v", "m", "s", "c", "f", f"{row[0]}.tmp", "pg_catalog.pg_class"]
    assert codes(await look(dsn, dict.fromkeys(names, Wish()))) == ["not_publishable"] * len(names)


async def test_a_partition_beside_its_own_table(dsn: str, conn: Connection) -> None:
    await make(
        conn,
        _PARTITIONED,
    )
    assert codes(await look(dsn, {"t": Wish(), "t1": Wish()})) == ["partition_of_watched"]


async def test_inserts_alone_ask_for_less(dsn: str, conn: Connection) -> None:
    await make(conn, "CREATE TABLE t (id int)")
    assert codes(await look(dsn, {"t": _INSERTS})) == ["no_primary_key"]


async def test_a_publication_of_all_tables(dsn: str, conn: Connection) -> None:
    await make(conn, "CREATE TABLE t (id int PRIMARY KEY)", "CREATE PUBLICATION shop FOR ALL TABLES")
    assert codes(await look(dsn, {"t": Wish()})) == ["publication_all_tables"]


async def test_a_publication_of_some_rows(dsn: str, conn: Connection) -> None:
    if conn.info.server_version < 150_000:
        pytest.skip("filters came with PostgreSQL 15")
    await make(conn, "CREATE TABLE t (id int PRIMARY KEY)", "CREATE PUBLICATION shop FOR TABLE t WHERE (id > 5)")
    report = await look(dsn, {"t": Wish()})
    assert codes(report) == ["publication_filter"]
    await make(conn, report.warnings[-1].remedy)
    assert codes(await look(dsn, {"t": Wish()})) == []


async def test_a_slot_without_its_publication(dsn: str, conn: Connection) -> None:
    await slots.create(conn, SLOT)
    assert codes(await look(dsn)) == ["publication_missing"]


async def test_a_slot_of_somebody_else(server: EmbeddedPostgres, dsn: str, conn: Connection) -> None:
    await make(conn, "CREATE PUBLICATION shop")
    async with await connect(server.dsn, purpose="test") as elsewhere:
        await slots.create(elsewhere, SLOT)
        assert codes(await look(dsn)) == ["slot_database"]
        await slots.drop(elsewhere, SLOT)
    await conn.execute("SELECT pg_create_physical_replication_slot('shop')")
    report = await look(dsn)
    assert codes(report) == ["slot_plugin"]
    await conn.execute("SELECT pg_drop_replication_slot('shop')")


async def test_a_slot_in_use(dsn: str, conn: Connection) -> None:
    await make(conn, "CREATE PUBLICATION shop")
    await slots.create(conn, SLOT)
    async with reading(dsn, SLOT, PUBLICATION) as pid:
        report = await look(dsn)
        report.raise_if_faulty()
        (found,) = [finding for finding in report.warnings if finding.code == "slot_active"]
        assert f"pid {pid}" in found.message
        assert codes(await look(await make_role(conn, dsn))) == ["slot_active"]
    async with reading(dsn, SLOT, PUBLICATION, application_name="debezium") as pid:
        (fault,) = (await look(dsn)).faults
        assert (fault.code, fault.subject) == ("slot_active", SLOT)
        assert f"'debezium', pid {pid}" in fault.message
        await make(conn, fault.remedy.rpartition(": ")[2])


async def test_a_database_without_an_encoding(server: EmbeddedPostgres, conn: Connection) -> None:
    await conn.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    try:
        report = await look(f"{server.dsn.rpartition('/')[0]}/ascii")
        assert codes(report) == ["encoding"]
    finally:
        await conn.execute("DROP DATABASE ascii WITH (FORCE)")


async def test_a_server_set_up_for_something_else(tmp_path: Path) -> None:
    settings = {
        "wal_level": "replica",
        "max_wal_senders": "0",
        "max_replication_slots": "0",
        "max_slot_wal_keep_size": "-1",
        "synchronous_standby_names": "*",
    }
    with EmbeddedPostgres(settings=settings) as wrong:
        report = await look(wrong.dsn)
        assert [finding.code for finding in report.faults] == [
            "wal_level",
            "max_replication_slots",
            "max_wal_senders",
            "synchronous_standby_names",
        ]
        assert codes(report)[4:] == ["max_slot_wal_keep_size"]
        async with await connect(wrong.dsn, purpose="test") as conn:
            for finding in report.faults + report.warnings[1:]:
                for statement in finding.remedy.partition(" -- ")[0].replace("'…'", "''").split("; "):
                    await conn.execute(statement.encode())
            left = ["idle_replication_slot_timeout"] if conn.info.server_version >= 180_000 else []
            if left:
                await conn.execute("ALTER SYSTEM SET idle_replication_slot_timeout = '1h'")
        wrong.restart()
        report = await look(wrong.dsn)
        report.raise_if_faulty()
        assert codes(report) == left


async def test_a_server_that_does_not_answer_is_worth_another_try(server: EmbeddedPostgres) -> None:
    report = await look("postgresql://postgres:canary@127.0.0.1:1/shop")
    assert codes(report) == ["connection"]
    with pytest.raises(SourceUnavailable):
        report.raise_if_faulty()
    report = await look(server.dsn.replace(server.password, "canary"))
    assert codes(report) == ["connection"]
    assert "canary" not in str(report)
    with pytest.raises(SourceRefused):
        report.raise_if_faulty()


async def test_a_dsn_and_names_that_cannot_be(dsn: str) -> None:
    assert codes(await look("nonsense")) == ["connection"]
    with pytest.raises(ConfigError, match="slot name"):
        await check(dsn, slot="Shop", publication=PUBLICATION, tables={})
    with pytest.raises(ConfigError, match="publication name"):
        await check(dsn, slot=SLOT, publication="", tables={})
    assert "connection" in codes(await look(dsn, {"a.b.c": Wish()}))


async def test_a_hostile_name_stays_on_its_line(dsn: str, conn: Connection) -> None:
    await conn.execute('CREATE TABLE public."a\nb\x1b[31m" (id int)')
    wishes = {"a\nb\x1b[31m": Wish(), "c\nd": Wish()}
    report = await look(dsn, wishes)
    assert codes(report) == ["table_missing", "replica_identity"]
    await make(conn, report.faults[1].remedy)
    assert codes(await look(dsn, wishes)) == ["table_missing", "no_primary_key"]


@asynccontextmanager
async def pooler(dsn: str, *, replication: bool) -> AsyncIterator[str]:
    """Stand between, as a pooler does: with a process number of its own, and perhaps without replication."""
    host, _, port = dsn.rpartition("@")[2].partition("/")[0].partition(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, greet: bool) -> None:
        while data := await reader.read(65_536):
            at = data.find(b"K\x00\x00\x00\x0c") if greet else -1
            if at >= 0:
                data = data[: at + 5] + struct.pack("!I", 4_000_000) + data[at + 9 :]
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start = await reader.read(65_536)
        if len(start) == 8:  # the question for TLS
            writer.write(b"N")
            start = await reader.read(65_536)
        if b"replication\0" in start and not replication:
            said = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: replication\0\0"
            writer.write(b"E" + struct.pack("!I", len(said) + 4) + said)
            writer.close()
            return
        there, back = await asyncio.open_connection(host, int(port))
        back.write(start)
        await asyncio.gather(pump(reader, back, greet=False), pump(there, writer, greet=True))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        own = listener.sockets[0].getsockname()[1]
        yield dsn.replace(f":{port}/", f":{own}/")


async def test_a_pooler_in_between(dsn: str) -> None:
    async with pooler(dsn, replication=True) as through:
        assert codes(await look(through)) == ["pooler"]
    async with pooler(dsn, replication=False) as through:
        report = await look(through)
        assert codes(report) == ["replication_connection", "pooler"]
        assert "unsupported startup parameter" in report.faults[0].message


def test_every_finding_is_provoked_somewhere() -> None:
    room = resources.files("backend_watcher.postgres")
    code = "".join(file.read_text() for file in room.iterdir() if file.name.endswith(".py"))
    made = set(re.findall(r'(?:fault|warning)\(\s*"(\w+)"', code))
    here = Path(__file__).parent
    tests = (here / "test_preflight.py").read_text() + (here / "test_server_findings.py").read_text()
    for more in (
        "ddl_triggers",
        "outbox_findings",
        "outbox_preflight",
        "poolers",
        "privileges",
        "providers",
        "versions",
    ):
        tests += (here / f"test_{more}.py").read_text()
    assert len(made) > 25
    assert [name for name in sorted(made) if f'"{name}"' not in tests] == []
