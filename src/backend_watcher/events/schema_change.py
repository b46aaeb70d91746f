"""What was done to a watched table, or to what it consists of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """
    What was noticed about a watched table.

    `at` is in seconds since 1970; `reason` says why its rows are to be read again, or need not be.
    """

    number: int
    at: float
    kind: str
    table: str
    what: str
    needs_reread: bool
    reason: str
    remedy: str
