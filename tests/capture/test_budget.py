"""When WAL that is held back is worth a word."""

from __future__ import annotations

import pytest

from backend_watcher.capture.budget import CALM, WalLevel, judge_wal

MIB = 1 << 20


@pytest.mark.parametrize(
    ("held", "status", "level"),
    [
        (None, None, WalLevel.CALM),
        (0, "reserved", WalLevel.CALM),
        (50 * MIB - 1, "reserved", WalLevel.CALM),
        (50 * MIB, "reserved", WalLevel.WARNING),
        (100 * MIB - 1, "reserved", WalLevel.WARNING),
        (100 * MIB, "reserved", WalLevel.ALARM),
        (1, "extended", WalLevel.WARNING),
        (1, "unreserved", WalLevel.WARNING),
        (200 * MIB, "unreserved", WalLevel.ALARM),
    ],
)
def test_each_level(held: int | None, status: str | None, level: WalLevel) -> None:
    verdict = judge_wal(held, 100 * MIB, status)
    assert verdict.level is level
    assert bool(verdict.words) is (level is not WalLevel.CALM)


def test_the_words_say_how_much_and_how_much_is_left() -> None:
    verdict = judge_wal(60 * MIB, 100 * MIB, "unreserved", 5 * MIB)
    assert verdict.words == (
        "the slot holds 60 MiB of WAL, 60% of source.max_wal_bytes; the next checkpoint may remove WAL that is "
        "still needed; 5 MiB more and it is lost"
    )
    assert "0 MiB more" in judge_wal(60 * MIB, 100 * MIB, None, -5 * MIB).words
    assert judge_wal(1, 100 * MIB) == CALM
