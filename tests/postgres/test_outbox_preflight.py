"""Whether a source can be heard by its outbox, asked of a real one in each state."""

from __future__ import annotations

from backend_watcher.errors import SourceUnavailable
from backend_watcher.postgres import catalog, outbox_install
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.findings import Report
from backend_watcher.postgres.outbox_preflight import check_notify, check_outbox

from .conftest import make


def faults(report: Report) -> list[str]:
    return [finding.code for finding in report.faults]


async def test_each_step_towards_an_outbox_is_named(conn: Connection, dsn: str) -> None:
    async def look(*tables: str) -> Report:
        return await check_outbox(dsn, tables=tables, event_table=None, notify=False)

    assert faults(await look("public.t")) == ["outbox_missing", "table_missing"]
    await make(conn, "CREATE TABLE t (id int PRIMARY KEY)")
    await conn.execute(outbox_install.script(notify=False).encode())
    assert faults(await look("public.t")) == ["outbox_trigger"]
    tables = list((await catalog.tables(conn, ["public.t"])).values())
    await outbox_install.install(conn, tables, frozenset(), notify=False)
    report = await look("public.t")
    assert faults(report) == []
    (kind,) = [finding for finding in report.findings if finding.code == "kind"]
    assert "'logical' would do here" in kind.message


async def test_prepared_transactions_and_notifications_do_not_go_together(conn: Connection, dsn: str) -> None:
    report = await check_outbox(dsn, tables=(), event_table=None, notify=True)
    assert "prepared_transactions" in [finding.code for finding in report.warnings]
    assert "notification_queue" in [finding.code for finding in report.findings]


async def test_listening_is_said_to_be_best_effort(dsn: str) -> None:
    report = await check_notify(dsn)
    assert faults(report) == []
    assert "best effort" in report.warnings[0].message


async def test_a_server_that_does_not_answer_is_one_fault() -> None:
    for report in (
        await check_outbox("postgresql://a@127.0.0.1:1/b", tables=(), event_table=None, notify=True),
        await check_notify("postgresql://a@127.0.0.1:1/b"),
    ):
        assert faults(report) == ["connection"]
        assert isinstance(report.error, SourceUnavailable)
