"""The watcher's own state, copied and put back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend_watcher.errors import ConfigError, JournalError
from backend_watcher.events.position import format_lsn
from backend_watcher.journal.copies import Copied, copy_journal, put_back
from backend_watcher.service.config import Config


@dataclass(frozen=True, slots=True)
class CopyDone:
    """A journal that was copied to `file`, or put back from it; `aside` is where the one before it is now."""

    file: Path
    copied: Copied
    aside: Path | None = None

    def as_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        state, identity = self.copied.state, self.copied.identity
        return {
            "file": str(self.file),
            "blocks": state.blocks,
            "size_bytes": state.size_bytes,
            "durable_lsn": format_lsn(state.durable_lsn),
            "system_identifier": identity.system_identifier if identity is not None else None,
            "slot": identity.slot if identity is not None else None,
            "aside": str(self.aside) if self.aside is not None else None,
            "exit_code": 0,
        }


def back_up(config: Config, file: Path) -> CopyDone:
    """Copy the journal, whether or not the watcher runs. Raises JournalError."""
    path = config.journal.path
    if not path.exists():
        raise JournalError(f"there is no journal at {path} yet", remedy="`watcher run` makes it.")
    return CopyDone(file, copy_journal(path, file))


def restore(config: Config, file: Path) -> CopyDone:
    """Put a copy in the journal's place, while no watcher runs. Raises ConfigError, JournalError."""
    if not file.exists():
        raise ConfigError([f"there is no file {file}"], remedy="Name what `watcher journal backup` has written.")
    copied, aside = put_back(file, config.journal.path)
    return CopyDone(file, copied, aside)
