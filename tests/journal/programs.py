"""Programs that the tests start, kill, and starve of disk. Run as `python programs.py WHAT PATH`."""

import asyncio
import resource
import signal
import sys

from backend_watcher import probes
from backend_watcher.errors import JournalBroken
from backend_watcher.journal import SqliteJournal
from backend_watcher.testing.chunks import ChunkMaker
from backend_watcher.testing.conformance_journal import IDENTITY


async def opened(path: str) -> SqliteJournal:
    journal = SqliteJournal(path)
    await journal.open()
    if await journal.identity() is None:
        await journal.save_identity(IDENTITY, 0)
    # One line for each group: what the journal says is durable.
    journal.listen(lambda: print(journal.durable_lsn, journal.last_position, flush=True))
    return journal


async def write(path: str) -> None:
    """Append until killed."""
    probes.arm_from_environment()
    journal = await opened(path)
    chunk = ChunkMaker()
    while True:
        for _ in range(20):
            await journal.append(chunk(3))
            journal.save_cursor("a", chunk_last(chunk))
        await journal.flush()


def chunk_last(chunk: ChunkMaker):
    from backend_watcher.events.position import Position

    return Position(chunk.lsn, 2)


async def starve(path: str) -> None:
    """Append until the disk is full."""
    journal = await opened(path)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    chunk = ChunkMaker()
    durable = 0
    try:
        while True:
            await journal.append(chunk(20, name="x" * 1000))
            await journal.flush()
            durable = journal.durable_lsn
    except JournalBroken as error:
        print("broken:", error, "|", error.remedy, flush=True)
    refused = 0
    for call in (journal.append(chunk(1)), journal.advance(1 << 40), journal.flush(), journal.set_note("a", "b")):
        try:
            await call
        except JournalBroken:
            refused += 1
    print("refused", refused, journal.durable_lsn == durable, len(await journal.read(journal.last_position, 1)))
    try:
        await journal.close()
    except JournalBroken:
        print("closed", flush=True)


if __name__ == "__main__":
    asyncio.run({"write": write, "starve": starve}[sys.argv[1]](sys.argv[2]))
