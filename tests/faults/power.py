"""
A model of power loss: what was not fsynced may be there, or not, or in part.

`program.py` keeps a copy of the journal's files as of the last fsync. After a kill each sector (512 bytes) that
differs between that copy and the files as the process left them is taken from one or the other at random, and a
file that grew ends anywhere in what grew. That is what a disk may show that writes sectors whole, in any order, and
keeps its word about fsync. The shared-memory index of SQLite is gone, as memory is.
"""

from __future__ import annotations

import random
from pathlib import Path

SECTOR_BYTES = 512


def lose_power(journal: Path, synced: Path, dice: random.Random) -> int:
    """Make the files of a journal what a power loss may leave of them; return how many sectors were taken back."""
    copies = sorted((int(path.name), path) for path in synced.glob("[0-9]*"))
    if not copies:
        return 0
    wal, index = (journal.with_name(journal.name + end) for end in ("-wal", "-shm"))
    lost = sum(_roll_back(path, copies[-1][1] / path.name, dice) for path in (journal, wal))
    index.unlink(missing_ok=True)
    return lost


def _roll_back(path: Path, synced: Path, dice: random.Random) -> int:
    new = path.read_bytes() if path.exists() else b""
    old = synced.read_bytes() if synced.exists() else b""
    size = dice.choice([len(old), len(new), dice.randint(min(len(old), len(new)), max(len(old), len(new)))])
    share = dice.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    lost, parts = 0, []
    for at in range(0, size, SECTOR_BYTES):
        was, became = old[at : at + SECTOR_BYTES], new[at : at + SECTOR_BYTES]
        back = was != became and dice.random() < share
        lost += back
        # Room that was taken but never written reads as zeros.
        parts.append((was if back else became or was).ljust(min(SECTOR_BYTES, size - at), b"\0")[: size - at])
    path.write_bytes(b"".join(parts))
    return lost
