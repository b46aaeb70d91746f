"""Much is written elsewhere while the watched tables are idle: the source keeps little WAL because of us."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.events.position import parse_lsn

from .results import Part
from .running import SLOT, Running, environment, pause, until
from .sampler import Sampler
from .scale import FULL, repeats
from .source import insert, seen

MIB = 1 << 20
WRITTEN = repeats(256, 10_240) * MIB
HELD_MAX = 64 * MIB
BEHIND_MAX = 32 * MIB
SAMPLE_SECONDS = repeats(1, 10)
PIECE = "INSERT INTO elsewhere SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 8000) n"
FIGURES = f"""
SELECT pg_current_wal_lsn()::text, confirmed_flush_lsn::text, restart_lsn::text
FROM pg_replication_slots WHERE slot_name = '{SLOT}'
"""


class Held(Sampler):
    """How far the slot is behind, and what it holds, at its worst."""

    def __init__(self, dsn: str) -> None:
        super().__init__(SAMPLE_SECONDS)
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._end = 0
        self.behind_max = 0

    def look(self) -> None:
        end, confirmed, _ = (parse_lsn(text) for text in self._connection.execute(FIGURES).fetchone())
        # What was written up to the last look has to be confirmed now.
        self.samples += 1
        self.behind_max = max(self.behind_max, self._end - confirmed)
        self._end = end

    def __exit__(self, kind: object, *rest: object) -> None:
        super().__exit__(kind, *rest)
        self._connection.close()

    def behind(self) -> int:
        end, confirmed, _ = (parse_lsn(text) for text in self._connection.execute(FIGURES).fetchone())
        return end - confirmed

    def held(self) -> int:
        end, _, restart = (parse_lsn(text) for text in self._connection.execute(FIGURES).fetchone())
        return end - restart


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 1200))
@pytest.mark.scenario("27", "idle tables, much written elsewhere")
@pytest.mark.parametrize(
    "postgres", [{}, {"wal_sender_timeout": "0"}], indirect=True, ids=["as usual", "without wal_sender_timeout"]
)
@pytest.mark.parametrize("elsewhere", ["another table", "another database"])
def test_little_wal_is_kept(postgres: EmbeddedPostgres, tmp_path: Path, result: Part, elsewhere: str) -> None:
    dsn = postgres.dsn
    with (
        psycopg.connect(dsn, autocommit=True) as connection,
        Running(tmp_path, environment(tmp_path, postgres)) as running,
    ):
        running.wait_for_streaming(connection)
        if elsewhere == "another database":
            connection.execute("CREATE DATABASE other")
            dsn = dsn.rpartition("/")[0] + "/other"
        insert(connection, 1, 10)
        until(lambda: seen(running) >= 10, "delivery")
        with psycopg.connect(dsn, autocommit=True) as writer, Held(postgres.dsn) as held:
            writer.execute("CREATE TABLE elsewhere (id int, t text)")
            begin = parse_lsn(writer.execute("SELECT pg_current_wal_lsn()::text").fetchone()[0])
            written = 0
            while written < WRITTEN // 4:
                writer.execute(PIECE)
                writer.execute("VACUUM elsewhere")
                writer.execute("TRUNCATE elsewhere")
                written = parse_lsn(writer.execute("SELECT pg_current_wal_lsn()::text").fetchone()[0]) - begin
                pause(0.05)
            begun = time.monotonic()
            caught_up = until(lambda: held.behind() <= BEHIND_MAX, "confirmation", 60.0)
            until(lambda: held.samples > 2, "samples", 60.0)
            until(lambda: held.held() <= HELD_MAX, "little WAL", 60.0)
            settled = time.monotonic() - begun
            now = held.held()
        result.add(
            runs=1,
            written_mib=written // MIB,
            behind_mib_max=held.behind_max // MIB,
            held_mib_max=now // MIB,
            settled_seconds_max=settled,
            caught_up_seconds_max=caught_up,
        )
        # What was written more than ten seconds ago is confirmed, but for so much.
        assert caught_up <= 10.0
        assert not FULL or held.behind_max <= BEHIND_MAX
        assert running.end() == 0
