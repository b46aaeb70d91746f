"""What the delivery tests share: a printed seed, an open journal, and no armed probes."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from backend_watcher import probes
from backend_watcher.journal import MemoryJournal

from .feeding import Feed


@pytest.fixture
def dice() -> random.Random:
    """Random numbers that `TEST_SEED` repeats."""
    seed = int(os.environ.get("TEST_SEED") or secrets.randbits(32))
    print(f"TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(autouse=True)
def no_probes() -> Iterator[None]:
    yield
    probes.disarm()


@pytest.fixture
async def journal() -> AsyncIterator[MemoryJournal]:
    journal = MemoryJournal()
    await journal.open()
    yield journal
    await journal.close()


@pytest.fixture
def feed(journal: MemoryJournal) -> Feed:
    return Feed(journal)
