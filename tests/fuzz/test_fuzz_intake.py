"""
Broken messages anywhere in a recorded session of every protocol version, through capture itself and into a journal.

What is refused is a ProtocolError, or said to be out of order. In the journal are no other transactions than those
that the server had committed: it begins to send a whole one after its commit, and of one in progress nothing is there
before its commit came.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from backend_watcher.capture.acknowledge import Acknowledgement
from backend_watcher.capture.intake import Intake
from backend_watcher.capture.spill import Spill
from backend_watcher.decode.pgoutput import Relation
from backend_watcher.errors import OutOfOrder, ProtocolError
from backend_watcher.events.table import Table
from backend_watcher.journal import MemoryJournal
from backend_watcher.postgres.replication import Received
from backend_watcher.testing.chunks import read_all
from backend_watcher.testing.fakes import RecordingObserver

from .mutate import broken, shuffled
from .recording import read_corpus
from .replay import define
from .test_fuzz_pgoutput import XLOG_HEADER

CORPUS = read_corpus()
SEED = 20261123
BROKEN_EACH = 60
"""Sessions of each recording with one broken message, and as many with messages lost, repeated or swapped."""
AFTER = 40
"""So many messages follow a broken one: what it left behind may show later."""
SPILL_BYTES_MAX = 1 << 24


class Columns:
    """Answers like `Describer`, without asking a server."""

    async def table(self, relation: Relation) -> Table:
        return define(relation)


async def take(messages: list[bytes], folder: Path) -> tuple[int, list[int], bool]:
    """Feed one message after the other; return how many were taken, whose commits the journal has, if all is well."""
    journal, spill = MemoryJournal(), Spill(folder, SPILL_BYTES_MAX)
    await journal.open()
    intake = Intake(journal, RecordingObserver(), Acknowledgement(0), Columns(), spill, 0)  # type: ignore[arg-type]
    intake.begin()
    taken, fine = 0, True
    try:
        for message in messages:
            framed = XLOG_HEADER + message
            await intake.take(Received(framed, [len(framed)]))
            taken += 1
    except (ProtocolError, OutOfOrder):
        fine = False
    await journal.flush()
    commits = list(dict.fromkeys(change.position.commit_lsn for change in await read_all(journal)))
    spill.clear()
    await journal.close()
    return taken, commits, fine


def committed(messages: list[bytes]) -> int:
    """How many transactions the server says in these that it has committed."""
    return sum(message[:1] in (b"B", b"c") for message in messages)


@pytest.mark.parametrize("mode", CORPUS)
async def test_what_was_not_asked_for_is_refused_and_the_rest_is_taken(mode: str, tmp_path: Path) -> None:
    messages = CORPUS[mode]
    taken, commits, fine = await take(messages, tmp_path / "s")
    assert fine == (taken == len(messages))
    assert len(commits) <= committed(messages[:taken])
    if fine:
        assert len(commits) > 10
    else:
        # Two-phase: it is never asked for, and the abort of a parallel stream is longer.
        assert messages[taken][:1] in (b"b", b"P", b"K", b"r", b"p", b"A")


@pytest.mark.parametrize("mode", CORPUS)
async def test_a_broken_message_is_refused_with_its_transaction(mode: str, tmp_path: Path) -> None:
    dice, refused = Random(f"{SEED} {mode}"), 0
    for number in range(BROKEN_EACH):
        at = dice.randrange(len(CORPUS[mode]))
        # From the beginning, because its relations are needed.
        messages = CORPUS[mode][: at + AFTER]
        messages[at] = broken(dice, messages[at]) or b"?"
        taken, commits, fine = await take(messages, tmp_path / f"s{number}")
        refused += not fine
        assert len(commits) <= committed(messages[:taken]), (mode, number)
    assert refused > BROKEN_EACH // 4


@pytest.mark.parametrize("mode", CORPUS)
async def test_messages_lost_repeated_or_swapped(mode: str, tmp_path: Path) -> None:
    dice = Random(f"{SEED + 1} {mode}")
    for number in range(BROKEN_EACH):
        length = dice.randint(2, len(CORPUS[mode]))
        messages = [message or b"?" for message in shuffled(dice, CORPUS[mode][:length])]
        taken, commits, _ = await take(messages, tmp_path / f"s{number}")
        assert len(commits) <= committed(messages[:taken]), (mode, number)
