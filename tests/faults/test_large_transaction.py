"""A transaction far larger than memory: it arrives whole, in little memory, and what it took on disk is freed."""

from __future__ import annotations

import signal
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres

from .results import Part
from .running import JOURNAL, Running, environment, until
from .sampler import Memory, Sampler
from .scale import repeats
from .workload import IN_PARTS

PROGRAM = Path(__file__).parent / "counting_program.py"
RSS_MAX = 200 << 20
AFTER_SECONDS_MAX = 2.0
FREED_SECONDS_MAX = 10.0
SPILL_RATIO_MAX = 1.3
SHAPES = {"narrow": (repeats(200_000, 10_000_000), "NULL"), "wide": (repeats(20_000, 1_000_000), "repeat('x', 1000)")}


class Folder(Sampler):
    """`size_max` is the most that a folder held, in bytes."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.size_max = 0

    def look(self) -> None:
        self.size_max = max(self.size_max, sum(file.stat().st_size for file in self._folder.glob("*")))


@pytest.mark.slow
@pytest.mark.large
@pytest.mark.timeout(repeats(180, 1500))
@pytest.mark.scenario("11", "a transaction larger than memory")
@pytest.mark.parametrize("streaming", [True, False], ids=["in parts", "whole"])
@pytest.mark.parametrize("rows", SHAPES)
@pytest.mark.parametrize("postgres", [IN_PARTS], indirect=True, ids=[""])
def test_it_arrives_whole_in_little_memory(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part, rows: str, streaming: bool
) -> None:
    count, note = SHAPES[rows]
    environ = environment(tmp_path, postgres, WATCHER_SOURCE__STREAMING=str(streaming).lower())
    environ["WATCHER_JOURNAL__QUOTA_BYTES"] = str(20 << 30)
    spill = (tmp_path / JOURNAL).with_name("faults.journal-spill")
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE large (id bigint PRIMARY KEY, note text)")
        with (
            Running(tmp_path, environ, program=PROGRAM) as running,
            Memory(lambda: running.process.pid) as memory,
            Folder(spill) as folder,
        ):
            running.wait_for_streaming(connection)
            connection.execute(f"INSERT INTO large SELECT g, {note} FROM generate_series(1, {count}) g")
            connection.execute("INSERT INTO large VALUES (%s)", [count + 1])
            until(lambda: newest(tmp_path)[2] == count + 1, "the row after it", repeats(120, 1200))
            got, disordered, _, _ = newest(tmp_path)
            after = came(tmp_path, count + 1) - came(tmp_path, count)
            freed = until(lambda: not spill.exists(), "freeing the disk", FREED_SECONDS_MAX)
            assert running.end(signal.SIGTERM) == 0
    data = sum(file.stat().st_size for file in (tmp_path / JOURNAL).parent.glob("faults.journal*"))
    print(f"{rows}: {memory.rss_max >> 20} MiB of memory, {folder.size_max >> 20} MiB on disk until the commit")
    result.add(runs=1, lost=count + 1 - got, order_violations=disordered)
    result.add(rss_mib_max=memory.rss_max >> 20, after_seconds_max=after, freed_seconds_max=freed)
    result.add(spill_ratio_max=folder.size_max / data)
    assert (got, disordered) == (count + 1, 0)
    assert memory.rss_max <= RSS_MAX
    assert after <= AFTER_SECONDS_MAX
    assert bool(folder.size_max) == streaming
    assert folder.size_max <= SPILL_RATIO_MAX * data


def newest(folder: Path) -> tuple[int, int, int, float]:
    """Return the newest line: rows, rows out of order, the newest id, when."""
    path = folder / "seen"
    lines = path.read_text().splitlines() if path.exists() else []
    if not lines:
        return 0, 0, 0, 0.0
    line = lines[-1].split()
    return int(line[0]), int(line[1]), int(line[2]), float(line[3])


def came(folder: Path, row: int) -> float:
    """Return when the batch with a row was done."""
    lines = (line.split() for line in (folder / "seen").read_text().splitlines())
    return next(float(when) for _, _, newest_id, when in lines if int(newest_id) >= row)
