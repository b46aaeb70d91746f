"""
The role of docs/source.md is enough for everything, and without any part of it the refusal names what is missing.

The statements are those of the page itself, with the names of the workload's database, tables and role in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import ExecStatus

from backend_watcher.cli.main import main
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import ExitCode
from backend_watcher.postgres.upkeep import HEARTBEAT_PREFIX

from .results import Part
from .running import SLOT, Running, environment, until
from .source import insert, seen
from .workload import SCHEMA

PAGE = Path(__file__).parents[2] / "docs" / "source.md"
PASSWORD = "a long random password"
ROLE = "watcher"
TABLES = "items, checking, savings"
SETTINGS = {"max_slot_wal_keep_size": "16GB"}
LEFT = """
SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_publication),
       (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace)
"""


def blocks(kind: str) -> list[str]:
    """Return the fenced blocks of the page."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def documented(block: int) -> list[str]:
    """Return the statements of a block of SQL."""
    text = blocks("sql")[block].replace("orders, customers", TABLES)
    text = (
        text.replace("watcher_shop", SLOT).replace("shop_owner", "owner").replace("DATABASE shop", "DATABASE postgres")
    )
    return [statement.strip() for statement in text.split(";") if statement.strip()]


def documented_hba() -> str:
    """Return the lines for pg_hba.conf; the servers of the tests have no certificate."""
    text = blocks("conf")[0].replace("hostssl", "host   ").replace(" shop ", " postgres ")
    return text.replace("10.0.0.0/8", "127.0.0.1/32")


class Source:
    """A server with the documented role and publication; `sql` is a superuser's connection."""

    def __init__(self, server: EmbeddedPostgres, sql: psycopg.Connection) -> None:
        self.server = server
        self.sql = sql
        self._hba = server.folder / "data" / "pg_hba.conf"
        self._initial = self._hba.read_text()

    @property
    def dsn(self) -> str:
        return f"postgresql://{ROLE}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.server.port}/postgres"

    def set_hba(self, lines: str) -> None:
        self._hba.write_text(f"{lines}\n{self._initial}")
        before = self._loaded()
        self.sql.execute("SELECT pg_reload_conf()")
        until(lambda: self._loaded() != before, "reading pg_hba.conf")

    def _loaded(self) -> object:
        with psycopg.connect(self.server.dsn) as new:
            return new.execute("SELECT pg_conf_load_time()").fetchone()

    def left(self) -> tuple[int, ...]:
        return self.sql.execute(LEFT).fetchone()


@pytest.fixture
def source() -> Iterator[Source]:
    with EmbeddedPostgres(settings=SETTINGS) as server, psycopg.connect(server.dsn, autocommit=True) as sql:
        sql.execute(SCHEMA)
        sql.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; REVOKE USAGE ON SCHEMA public FROM PUBLIC")
        found = Source(server, sql)
        for statement in documented(0):
            sql.execute(statement.encode())
        found.set_hba(documented_hba())
        yield found


@pytest.fixture
def call(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Call a command in this process; what starts would run for ever, so `run` is for what is refused."""
    monkeypatch.chdir(tmp_path)
    lines = ['name = "faults"', "[source]", f'dsn = "{source.dsn}"']
    for table in TABLES.split(", "):
        lines += ["[[subscription]]", f'name = "{table}"', 'sink = "stdout"', f'table = "{table}"']
    (tmp_path / "watcher.toml").write_text("\n".join(lines))

    def run(command: str) -> tuple[int, str]:
        code = main((command,))
        out, err = capfd.readouterr()
        return code, out + err

    return run


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.scenario("S1.1", "least privilege")
def test_the_documented_role_is_enough(
    source: Source, tmp_path: Path, call: Callable[..., tuple[int, str]], result: Part
) -> None:
    code, said = call("check")
    assert (code, "warning:" in said) == (0, False), said
    environ = environment(tmp_path, source.dsn, WATCHER_SOURCE__HEARTBEAT_SECONDS="0.2")
    with Running(tmp_path, environ) as running:
        running.wait_for_streaming(source.sql)
        insert(source.sql, 1, 10)
        until(lambda: seen(running) >= 10, "delivery")
        source.sql.execute("ALTER TABLE items ADD COLUMN more int")
        until(lambda: "schema changed" in running.log(), "the look at the schema")
        confirmed = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots"
        before = source.sql.execute(confirmed).fetchone()
        until(lambda: source.sql.execute(confirmed).fetchone() != before, "a heartbeat")
        assert call("status")[0] == 0
        assert running.end() == 0
    assert HEARTBEAT_PREFIX not in running.log()
    result.add(runs=1)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.scenario("S1.2", "no physical replication")
def test_the_documented_role_opens_no_physical_connection(source: Source, result: Part) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf"):
        psycopg.connect(source.dsn, replication="true", autocommit=True)
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf"):
        psycopg.connect(source.dsn.rpartition("/")[0] + "/template1")
    # What no line of pg_hba.conf can forbid, and the page says: the commands work on a connection to a database too.
    walsender = psycopg.connect(source.dsn, replication="database", autocommit=True)
    walsender.pgconn.send_query(b"BASE_BACKUP (CHECKPOINT 'fast', WAL false)")
    answer = walsender.pgconn.get_result()
    walsender.close()
    assert answer.status == ExecStatus.TUPLES_OK
    result.add(runs=1)


TAKEN = {
    "LOGIN": ("ALTER ROLE watcher NOLOGIN", 'ALTER ROLE "watcher" LOGIN;'),
    "REPLICATION": ("ALTER ROLE watcher NOREPLICATION", 'ALTER ROLE "watcher" REPLICATION;'),
    "CONNECT": (
        "REVOKE CONNECT ON DATABASE postgres FROM watcher",
        'GRANT CONNECT ON DATABASE "postgres" TO "watcher";',
    ),
    "a table of the publication": (
        f"ALTER PUBLICATION {SLOT} DROP TABLE items",
        f'ALTER PUBLICATION "{SLOT}" ADD TABLE public.items;',
    ),
    "the publication": (f"DROP PUBLICATION {SLOT}", f'CREATE PUBLICATION "{SLOT}" FOR TABLE'),
    "EXECUTE for the heartbeat": (
        "REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text, boolean) FROM PUBLIC",
        'GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean,text,text,boolean) TO "watcher";',
    ),
    "EXECUTE for the slot": (
        "REVOKE EXECUTE ON FUNCTION pg_create_logical_replication_slot FROM PUBLIC",
        "GRANT EXECUTE ON FUNCTION pg_create_logical_replication_slot(",
    ),
    "EXECUTE for the identity": (
        "REVOKE EXECUTE ON FUNCTION pg_control_system FROM PUBLIC",
        'GRANT EXECUTE ON FUNCTION pg_control_system() TO "watcher";',
    ),
    "SELECT on a catalog": (
        "REVOKE SELECT ON pg_publication FROM PUBLIC",
        'GRANT SELECT ON pg_publication TO "watcher";',
    ),
}
"""What is taken away, and how the remedy begins."""


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.scenario("S1.1", "least privilege")
def test_each_grant_that_is_taken_away_is_named(
    source: Source, call: Callable[..., tuple[int, str]], result: Part
) -> None:
    assert call("check")[0] == 0
    for what, (statement, mend) in TAKEN.items():
        source.sql.execute(statement.encode())
        before = source.left()
        for command in ("check", "run"):
            code, said = call(command)
            assert code == ExitCode.SOURCE_REFUSED, (what, command, code, said)
            assert mend in said, (what, command, said)
            assert "Traceback" not in said
            assert source.left() == before, f"{command} without {what} left something behind"
        remedy = mended(said, mend)
        source.sql.execute(remedy.encode())
        code, said = call("check")
        assert code == 0, (what, remedy, said)
        result.add(runs=1)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.scenario("S1.1", "least privilege")
def test_the_line_of_pg_hba_that_is_missing_is_named(
    source: Source, call: Callable[..., tuple[int, str]], result: Part
) -> None:
    source.set_hba("\n".join(line for line in documented_hba().splitlines() if "postgres" not in line))
    code, said = call("check")
    assert (code, source.left()[0]) == (ExitCode.SOURCE_REFUSED, 0)
    line = mended(said, 'hostssl "postgres" "watcher" 127.0.0.1/32 scram-sha-256')
    source.set_hba(f"{line.replace('hostssl', 'host')}\n{documented_hba()}")
    assert call("check")[0] == 0
    result.add(runs=1)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.scenario("S1.1", "least privilege")
@pytest.mark.parametrize("what", ["USAGE ON SCHEMA public", "SELECT ON items"])
def test_what_the_stream_does_without_is_a_warning(
    source: Source, call: Callable[..., tuple[int, str]], result: Part, what: str
) -> None:
    source.sql.execute(f"REVOKE {what} FROM watcher".encode())
    code, said = call("check")
    assert code == 0
    source.sql.execute(mended(said, "GRANT USAGE ON SCHEMA").encode())
    assert "warning:" not in call("check")[1]
    result.add(runs=1)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.scenario("S1.1", "least privilege")
def test_a_role_that_makes_its_publication(source: Source, call: Callable[..., tuple[int, str]], result: Part) -> None:
    owned = "; ".join(f"ALTER TABLE {table} OWNER TO owner" for table in TABLES.split(", "))
    source.sql.execute(f"DROP PUBLICATION {SLOT}; CREATE ROLE owner; {owned}".encode())
    create, member = documented(1)
    source.sql.execute(member.encode())
    code, said = call("run")
    assert (code, source.left()[0]) == (ExitCode.SOURCE_REFUSED, 0)
    assert 'GRANT CREATE ON DATABASE "postgres" TO "watcher";' in said
    source.sql.execute(create.encode())
    assert call("check")[0] == 0
    source.sql.execute("REVOKE owner FROM watcher")
    code, said = call("run")
    assert (code, source.left()[0]) == (ExitCode.SOURCE_REFUSED, 0)
    assert f'CREATE PUBLICATION "{SLOT}" FOR TABLE' in said
    result.add(runs=2)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.scenario("S1.1", "least privilege")
def test_a_superuser_is_warned_about_unless_it_is_meant(
    source: Source, call: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, result: Part
) -> None:
    monkeypatch.setenv("WATCHER_SOURCE__DSN", source.server.dsn)
    code, said = call("check")
    assert (code, "is a superuser; the watcher needs far less" in said) == (0, True)
    monkeypatch.setenv("WATCHER_SOURCE__ALLOW_SUPERUSER", "true")
    code, said = call("check")
    assert (code, "warning:" in said) == (0, False), said
    result.add(runs=1)


def mended(said: str, begin: str) -> str:
    """Return the statement of a remedy that was shown, without what is said after it."""
    lines = [line for line in said.splitlines() if begin in line]
    assert lines, said
    line = lines[0]
    return line[line.index(begin) :].partition(" -- ")[0]
