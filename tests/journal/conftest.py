"""What the journal's tests share."""

import pytest

from backend_watcher import probes
from backend_watcher.journal import SqliteJournal
from backend_watcher.testing.chunks import ChunkMaker
from backend_watcher.testing.conformance_journal import IDENTITY


@pytest.fixture
def chunk():
    return ChunkMaker()


@pytest.fixture(autouse=True)
def no_probes():
    yield
    probes.disarm()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


@pytest.fixture
async def journal(path):
    journal = SqliteJournal(path)
    await journal.open()
    await journal.save_identity(IDENTITY, 0)
    yield journal
    await journal.close()
