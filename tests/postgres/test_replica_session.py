"""The position: read, moved once, and what was applied late."""

from __future__ import annotations

import psycopg
import pytest

from backend_watcher.errors import SinkGone
from backend_watcher.events.position import START, Position
from backend_watcher.postgres import replica_session
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.replica_session import (
    Place,
    Stand,
    add_late,
    make_tables,
    move,
    open_session,
    read_stand,
    with_origin,
    without_triggers,
)

from .conftest import make_role

PLACE = Place("7000000000000000001", "slot", "copy")
TO = Position(0x8000000000000010, 3)


async def test_a_position_moves_from_where_it_is_believed_to_be(conn: Connection) -> None:
    await make_tables(conn)
    await make_tables(conn)
    stand = await read_stand(conn, PLACE)
    assert (stand.position, stand.late) == (START, frozenset())
    assert await move(conn, PLACE, stand, TO, 700)
    assert not await move(conn, PLACE, stand, TO, 700)
    assert await read_stand(conn, PLACE) == Stand(TO, 700, frozenset())
    assert (await read_stand(conn, Place("7000000000000000001", "slot", "other"))).position == START


async def test_what_is_applied_late_is_new_once(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    await make_tables(conn)
    before, after = (0x10, 0, b"a"), (TO.commit_lsn, 4, b"b")
    stand = await read_stand(conn, PLACE)
    assert await add_late(conn, PLACE, [before, after]) == {before, after}
    assert await add_late(conn, PLACE, [after, (0x10, 0, b"c")]) == {(0x10, 0, b"c")}
    await move(conn, PLACE, stand, TO, 700)
    assert (await read_stand(conn, PLACE)).late == {after}
    monkeypatch.setattr(replica_session, "LATE_KEPT", 1)
    await add_late(conn, PLACE, [(TO.commit_lsn, 9, b"d")])
    assert (await read_stand(conn, PLACE)).late == {(TO.commit_lsn, 9, b"d")}


async def test_a_role_that_may_not_is_told_what_it_lacks(conn: Connection, dsn: str) -> None:
    poor = await make_role(conn, dsn, "")
    session = await open_session(poor)
    assert "session_replication_role" in str(await without_triggers(session))
    assert "pg_replication_origin" in str(await with_origin(session, "watcher"))
    with pytest.raises(SinkGone, match="may not make the schema watcher") as caught:
        await make_tables(session)
    await session.close()
    await conn.execute(caught.value.remedy.partition(";")[0].encode())
    session = await open_session(poor)
    await make_tables(session)
    await session.close()


async def test_a_commit_waits_for_the_disk(conn: Connection, dsn: str) -> None:
    database = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    await conn.execute(f'ALTER DATABASE "{database}" SET synchronous_commit = off'.encode())
    session = await open_session(dsn)
    assert await (await session.execute("SHOW synchronous_commit")).fetchone() == ("on",)
    await session.close()


async def test_what_is_written_is_marked_with_its_origin(dsn: str) -> None:
    session = await open_session(dsn)
    assert await with_origin(session, "watcher test") is None
    assert await (await session.execute("SELECT pg_replication_origin_session_is_setup()")).fetchone() == (True,)
    await session.execute("SELECT pg_replication_origin_session_reset()")
    await session.execute("SELECT pg_replication_origin_drop('watcher test')")
    await session.close()
