"""What a preflight finds: one line and one remedy for each. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from backend_watcher.errors import PreflightFailed, WatcherError
from backend_watcher.postgres.identity import ALL_OPERATIONS


class Level(StrEnum):
    """How bad a finding is: with a fault the watcher must not start."""

    FAULT = "fault"
    WARNING = "warning"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the subscriptions want to hear of a table; `old_values` if some compare a row with what it was."""

    updates: bool = True
    deletes: bool = True
    old_values: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `remedy` is a statement or a command, empty where there is nothing to mend."""

    level: Level
    code: str
    subject: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message}. Mend it with: {self.remedy}" if self.remedy else self.message


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a preflight found; `error` is why it could not look at the rest."""

    findings: tuple[Finding, ...]
    error: WatcherError | None = None

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What must be mended before the watcher may start."""
        return tuple(finding for finding in self.findings if finding.level is Level.FAULT)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What works, and will hurt some day."""
        return tuple(finding for finding in self.findings if finding.level is Level.WARNING)

    def raise_if_faulty(self) -> None:
        """Raise PreflightFailed if there is a fault, or, if PostgreSQL could not be asked, the reason for that."""
        if self.error is not None:
            raise self.error
        if self.faults:
            raise PreflightFailed([str(fault) for fault in self.faults])


def wished_operations(wishes: Iterable[Wish]) -> frozenset[str]:
    """Return the operations that one publication for all these wishes has to send."""
    wanted = {"insert", "truncate"}
    for wish in wishes:
        wanted |= {name for name, wished in (("update", wish.updates), ("delete", wish.deletes)) if wished}
    return ALL_OPERATIONS & wanted


def fault(code: str, subject: str, message: str, remedy: str) -> Finding:
    """Make a fault."""
    return Finding(Level.FAULT, code, subject, message, remedy)


def warning(code: str, subject: str, message: str, remedy: str) -> Finding:
    """Make a warning."""
    return Finding(Level.WARNING, code, subject, message, remedy)


def ok(code: str, subject: str, message: str) -> Finding:
    """Note that something is as it should be."""
    return Finding(Level.OK, code, subject, message)
