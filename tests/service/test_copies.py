"""What is said of a journal that was copied, and of one that cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend_watcher.errors import ConfigError, JournalError
from backend_watcher.journal import SqliteJournal
from backend_watcher.service.config import Config, load_config
from backend_watcher.service.copies import back_up, restore
from backend_watcher.testing.chunks import ChunkMaker
from backend_watcher.testing.conformance_journal import IDENTITY


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Settings of a watcher whose journal is not there yet."""
    found = load_config(None, {"WATCHER_NAME": "shop"}, watcher=None, complete=False)
    return replace(found, journal=replace(found.journal, path=tmp_path / "shop.journal"))


async def test_it_says_what_was_copied_and_where_the_one_before_is(config: Config, tmp_path: Path) -> None:
    journal = SqliteJournal(config.journal.path)
    await journal.open()
    await journal.save_identity(IDENTITY, 0)
    await journal.append(ChunkMaker()(3))
    await journal.flush()
    said = back_up(config, tmp_path / "copy").as_plain()
    await journal.close()
    assert (said["blocks"], said["durable_lsn"], said["aside"]) == (1, "0/1108", None)
    assert (said["system_identifier"], said["slot"]) == (IDENTITY.system_identifier, IDENTITY.slot)
    said = restore(config, tmp_path / "copy").as_plain()
    assert (said["blocks"], said["aside"]) == (1, str(tmp_path / "shop.journal.replaced-1"))


def test_what_is_not_there_is_neither_copied_nor_put_back(config: Config, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal"):
        back_up(config, tmp_path / "copy")
    with pytest.raises(ConfigError, match="there is no file"):
        restore(config, tmp_path / "copy")
    assert not list(tmp_path.iterdir())
