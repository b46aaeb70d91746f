"""Which of our errors each SQLSTATE becomes."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import set_json_loads

from backend_watcher.errors import Bug, ProtocolError, SlotLost, SourceRefused, SourceUnavailable, WatcherError
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.translate import error_of, one_line, read_lsn, state_of, translate, translating

from .conftest import make


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("08006", SourceUnavailable),
        ("08P01", SourceRefused),
        ("25006", SourceRefused),
        ("28P01", SourceRefused),
        ("3D000", SourceRefused),
        ("42501", SourceRefused),
        ("42P01", SourceRefused),
        ("53100", SourceUnavailable),
        ("53300", SourceUnavailable),
        ("53400", SourceRefused),
        ("55000", SourceRefused),
        ("55006", SourceUnavailable),
        ("55P03", SourceUnavailable),
        ("57014", SourceUnavailable),
        ("57P01", SourceUnavailable),
        ("57P03", SourceUnavailable),
        ("57P04", SourceRefused),
        ("58030", SourceUnavailable),
        ("XX000", SourceRefused),
    ],
)
def test_the_sqlstate_decides_whether_trying_again_may_help(state: str, kind: type[WatcherError]) -> None:
    assert type(error_of(state, "…")) is kind


async def test_what_the_server_says_is_carried_on_without_rows(conn: Connection) -> None:
    await make(conn, "CREATE TABLE t (secret text PRIMARY KEY)", "INSERT INTO t VALUES ('canary')")
    with pytest.raises(SourceRefused, match=r"duplicate key.*23505") as caught, translating():
        await conn.execute("INSERT INTO public.t VALUES ('canary')")
    assert "canary" not in str(caught.value)


async def test_a_broken_connection_is_worth_another_try(dsn: str, conn: Connection) -> None:
    async with await connect(dsn, purpose="victim") as victim:
        await conn.execute("SELECT pg_terminate_backend(%s)", [victim.info.backend_pid])
        with pytest.raises(SourceUnavailable), translating():
            await victim.execute("SELECT 1")
        with pytest.raises(SourceUnavailable, match="is lost: the connection is closed"), translating():
            await victim.execute("SELECT 1")


async def test_an_answer_that_cannot_be_read_is_no_surprise(conn: Connection) -> None:
    set_json_loads(lambda data: bytes(data).replace(b"a", b"\xce").decode(), conn)
    with (
        pytest.raises(ProtocolError, match="an answer of the server cannot be read: UnicodeDecodeError"),
        translating(),
    ):
        await (await conn.execute("""SELECT '["a"]'::json""")).fetchone()
    with pytest.raises(ProtocolError, match="ValueError: '0-1' is not an LSN"):
        read_lsn("0-1")
    assert read_lsn("1/2") == 0x1_0000_0002


def test_everything_else_is_said_too() -> None:
    ours = SlotLost("gone")
    assert translate(ours) is ours
    assert isinstance(translate(ConnectionResetError("reset")), SourceUnavailable)
    assert translate(TimeoutError()).message.endswith("TimeoutError")
    assert isinstance(translate(psycopg.ProgrammingError("used wrongly")), Bug)
    assert isinstance(translate(KeyError("x")), Bug)


def test_the_state_that_the_server_gave_can_be_read_again() -> None:
    assert state_of(error_of("58P01", "PostgreSQL says: gone (SQLSTATE 58P01)")) == "58P01"
    assert state_of(SlotLost("SQLSTATE unknown")) is None


def test_one_line_is_one_line() -> None:
    assert one_line("a\n\tb \x1b[0m") == "a b \N{REPLACEMENT CHARACTER}[0m"
