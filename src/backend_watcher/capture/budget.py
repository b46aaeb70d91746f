"""
How much WAL the source keeps because of us, judged against a budget. Pure.

A slot that is not moved on makes PostgreSQL keep WAL without end, until its disk is full. This only says so, in
time: nothing here makes the watcher let go of a change that was not delivered to the journal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

WARNING_SHARE = 0.5
_SHRINKING = {
    "extended": "more than max_wal_size is kept",
    "unreserved": "the next checkpoint may remove WAL that is still needed",
}
_MIB = 1 << 20


class WalLevel(IntEnum):
    """How bad it is."""

    CALM = 0
    WARNING = 1
    ALARM = 2


@dataclass(frozen=True, slots=True)
class WalVerdict:
    """A level, and one line that says why; empty where all is calm."""

    level: WalLevel
    words: str


CALM = WalVerdict(WalLevel.CALM, "")


def judge_wal(
    held_bytes: int | None, budget_bytes: int, wal_status: str | None = None, safe_bytes: int | None = None
) -> WalVerdict:
    """
    Judge what a slot holds.

    `wal_status` and `safe_bytes` (what may still be written before the slot is lost) are those of
    `pg_replication_slots`.
    """
    if held_bytes is None:
        return CALM
    share = held_bytes / budget_bytes
    reason = _SHRINKING.get(wal_status or "")
    if share < WARNING_SHARE and reason is None:
        return CALM
    words = f"the slot holds {_mib(held_bytes)} of WAL, {share:.0%} of source.max_wal_bytes"
    if reason is not None:
        words += f"; {reason}"
    if safe_bytes is not None:
        words += f"; {_mib(max(0, safe_bytes))} more and it is lost"
    return WalVerdict(WalLevel.ALARM if share >= 1 else WalLevel.WARNING, words)


def _mib(size: int) -> str:
    return f"{size / _MIB:,.0f} MiB"
