"""How far each subscription is, asked of the journal."""

from __future__ import annotations

from backend_watcher.events.position import Position
from backend_watcher.journal import MemoryJournal
from backend_watcher.service.standing import standing
from backend_watcher.telemetry.names import BY_NAME
from backend_watcher.testing.chunks import ChunkMaker


async def test_lag_is_from_the_cursor_to_the_end() -> None:
    journal = MemoryJournal()
    await journal.open()
    make = ChunkMaker()
    for _ in range(3):
        await journal.append(make(2))
    last = journal.last_position
    journal.save_cursor("done", last)
    journal.save_cursor("behind", Position(0x1100, 0))
    found = await standing(journal, ["done", "behind", "new"])
    await journal.close()
    assert found.keys() <= BY_NAME.keys()
    assert found["watcher_lag_bytes"][("done",)] == found["watcher_lag_seconds"][("done",)] == 0
    assert found["watcher_lag_bytes"][("behind",)] == journal.durable_lsn - 0x1100
    # The changes of that maker were committed in the past.
    assert found["watcher_lag_seconds"][("behind",)] > 0
    assert ("new",) not in found["watcher_lag_bytes"]
    assert found["watcher_journal_blocks"] == {(): 3}
    assert found["watcher_journal_bytes"][()] > 0
    assert found["watcher_journal_full"] == {(): False}


async def test_an_empty_journal_has_nothing_oldest() -> None:
    journal = MemoryJournal()
    await journal.open()
    found = await standing(journal, [])
    await journal.close()
    assert found["watcher_journal_oldest_time_seconds"] == {}
    assert found["watcher_journal_blocks"] == {(): 0}
