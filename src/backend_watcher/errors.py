"""
Every error the watcher raises, each with its remedy and its retry kind.

    WatcherError
    ├── ConfigError                 stop      a setting is wrong; says which, and what would be right
    ├── PreflightFailed             stop      the source is not ready; each fault with the statement that mends it
    ├── SourceError
    │   ├── SourceUnavailable       later     PostgreSQL does not answer
    │   ├── SpillFull               later     no room for a transaction in progress: PostgreSQL is to keep it
    │   ├── UndecodableChange       later     PostgreSQL cannot send one change, and nothing behind it
    │   ├── SourceRefused           stop      PostgreSQL answers, and says no
    │   └── ProtocolError           stop      bytes we do not understand
    ├── SafetyStop
    │   ├── SlotLost                stop      the slot is gone, or its WAL is
    │   ├── SlotMoved               stop      somebody else moved or recreated the slot
    │   ├── WrongCluster            stop      another cluster, or another history of it
    │   ├── PublicationLost         stop      the publication, or a table in it, is gone
    │   ├── JournalLost             stop      the journal is missing, or older than the slot
    │   └── BecameSynchronous       stop      the application's commits would wait for us
    ├── JournalError
    │   ├── JournalFull             later     the quota is reached; nothing is dropped
    │   ├── JournalLocked           stop      another instance has it open
    │   └── JournalBroken           stop      a block does not match its checksum, or a write failed
    ├── SinkError
    │   ├── SinkUnavailable         later     the other side does not answer
    │   ├── SinkTimeout             later     we do not know whether it was written
    │   ├── SinkFailed              later     the other side failed, perhaps on this change only
    │   ├── SinkRejected            park      the other side understood, and said no
    │   ├── SinkGone                person    the other side wants no more of this subscription
    │   ├── PartlyWritten           later     the first changes of the batch are written, the rest is not
    │   └── SomeFailed              later     all changes of the batch are written but some
    ├── HandlerError
    │   ├── HandlerTimeout          later     a user's function took too long
    │   ├── HandlerDied             later     the process that ran a user's function ended
    │   ├── Retry                   later     a user's function asks to be called again, and when
    │   └── Skip                    skip      a user's function wants nothing done about this change
    ├── CannotVerify                later     both sides do not come to one position
    ├── EmbeddedError               stop      an embedded server does not start
    └── Bug
        ├── OutOfOrder              stop      a position came twice, or backwards
        ├── SettledTwice            stop      one delivery was settled twice
        └── UnknownRelation         stop      a row came before its Relation message

Errors carry plain values: strings and numbers, never rows and never secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

ERROR_CHARACTERS_MAX = 500
"""Characters of an error that are kept; a driver may quote at length."""


class RetryKind(StrEnum):
    """What delivery does about an error; `delivery/retry.py` is the only reader."""

    LATER = "later"
    PARK = "park"
    PERSON = "person"
    SKIP = "skip"
    STOP = "stop"


class ExitCode:
    """What `watcher` returns to its shell."""

    CLEAN = 0
    CONFIGURATION = 2
    SOURCE_REFUSED = 3
    DATA_SAFETY = 4
    DRIFT = 5
    TEMPORARY = 75


class WatcherError(Exception):
    """Something the watcher cannot go on with by itself."""

    remedy = "See the message."
    retry = RetryKind.STOP
    exit_code = ExitCode.TEMPORARY
    blames_sink = False
    """Whether every change would meet this error now: the sink is to wait for, and no change is at fault."""
    after_seconds: float | None = None
    """When the other side asks to be tried again, if it said so."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if remedy is not None:
            self.remedy = remedy


class ConfigError(WatcherError):
    """One or more settings are wrong. Nothing was touched."""

    remedy = "Correct the settings named above."
    exit_code = ExitCode.CONFIGURATION

    def __init__(self, faults: list[str], *, remedy: str | None = None) -> None:
        super().__init__("\n".join(faults), remedy=remedy)
        self.faults = faults


class PreflightFailed(WatcherError):
    """PostgreSQL is reachable, but not ready to be watched."""

    remedy = "Run the statements named above, then `watcher check`."
    exit_code = ExitCode.SOURCE_REFUSED

    def __init__(self, faults: list[str], *, remedy: str | None = None) -> None:
        super().__init__("\n".join(faults), remedy=remedy)
        self.faults = faults


class SourceError(WatcherError):
    """PostgreSQL and the watcher do not understand each other."""

    remedy = "See the PostgreSQL log."
    exit_code = ExitCode.SOURCE_REFUSED


class SourceUnavailable(SourceError):
    """PostgreSQL does not answer."""

    remedy = "Check that the server runs and that the DSN names it; the watcher tries again by itself."
    retry = RetryKind.LATER
    exit_code = ExitCode.TEMPORARY


class SpillFull(SourceError):
    """There is no room here for transactions in progress; the stream begins again, and PostgreSQL keeps them."""

    remedy = "Raise source.max_spill_bytes, or make room on the disk that holds the journal."
    retry = RetryKind.LATER
    exit_code = ExitCode.TEMPORARY


class UndecodableChange(SourceError):
    """PostgreSQL fails at one change, each time it comes to it; nothing behind it is sent."""

    remedy = "Mend what PostgreSQL names, or give up that transaction: `watcher status` shows `watcher skip …`."
    retry = RetryKind.LATER
    exit_code = ExitCode.DATA_SAFETY

    def __init__(
        self, message: str, *, remedy: str | None = None, change_lsn: int = 0, commit_lsn: int | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.change_lsn = change_lsn
        self.commit_lsn = commit_lsn


class SourceRefused(SourceError):
    """PostgreSQL answers, and says no."""

    remedy = "Run `watcher check`: it names each missing setting and privilege."


class ProtocolError(SourceError):
    """The bytes do not follow the logical replication protocol."""

    remedy = "Nothing of this transaction was delivered. Keep the position named above and report it."
    exit_code = ExitCode.DATA_SAFETY

    def __init__(self, what: str, *, offset: int = 0, message_type: str = "?") -> None:
        super().__init__(f"{what} (message type {message_type!r}, offset {offset})")
        self.what = what
        self.offset = offset
        self.message_type = message_type


class SafetyStop(WatcherError):
    """Going on could lose changes without anybody noticing."""

    remedy = "Nothing was delivered after this was noticed."
    exit_code = ExitCode.DATA_SAFETY


class SlotLost(SafetyStop):
    """The replication slot is gone, or PostgreSQL removed the WAL it needs."""

    remedy = "Changes are missing. Start a new journal and load the tables again."


class SlotMoved(SafetyStop):
    """The slot stands after the end of the journal: changes between the two are missing."""

    remedy = "Somebody recreated or advanced the slot. Start a new journal and load the tables again."


class WrongCluster(SafetyStop):
    """This is not the cluster, or not the history of it, that the journal was written from."""

    remedy = "Point the DSN at the right server, or start a new journal for this one."


class PublicationLost(SafetyStop):
    """The publication, or a watched table in it, is gone: rows would vanish in silence."""

    remedy = "Create the publication again, then load the tables again."


class JournalLost(SafetyStop):
    """The slot was used before, and the journal does not know of it."""

    remedy = "Put the journal back, or accept the loss with `watcher run --adopt-slot`."


class BecameSynchronous(SafetyStop):
    """PostgreSQL chose the watcher as a synchronous standby: the application's commits would wait for it."""

    remedy = "Name the real standbys in synchronous_standby_names instead of '*'."


class JournalError(WatcherError):
    """The journal cannot do what it promised."""

    remedy = "Look at the disk that holds the journal."


class JournalFull(JournalError):
    """The quota is reached. Nothing is dropped; capture waits."""

    remedy = "Raise journal.quota_bytes, or mend the subscription that is behind (`watcher status`)."
    retry = RetryKind.LATER


class JournalLocked(JournalError):
    """Another running instance has this journal open."""

    remedy = "Stop the other instance, or give this one a journal of its own."


class JournalBroken(JournalError):
    """What is stored is not what was written, or could not be written."""

    remedy = "Check the disk; then start with a new journal, or put back a copy of this one."
    exit_code = ExitCode.DATA_SAFETY


class SinkError(WatcherError):
    """A sink could not take a batch."""

    remedy = "Look at the sink."
    retry = RetryKind.LATER


class SinkUnavailable(SinkError):
    """The other side does not answer."""

    remedy = "Start it, or correct its address; delivery goes on by itself."
    blames_sink = True

    def __init__(self, message: str, *, remedy: str | None = None, after_seconds: float | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.after_seconds = after_seconds


class SinkTimeout(SinkError):
    """No answer in time: we do not know whether it was written."""

    remedy = "Raise timeout_seconds, or make the sink faster; the batch is delivered again."
    blames_sink = True


class SinkFailed(SinkError):
    """The other side failed with this change; it may take it another time, and take others now."""

    remedy = "Look at the log of the other side; the change is delivered again."

    def __init__(self, message: str, *, remedy: str | None = None, after_seconds: float | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.after_seconds = after_seconds


class SinkRejected(SinkError):
    """The other side understood the change, and said no."""

    remedy = "Mend the change or the sink."
    retry = RetryKind.PARK


class SinkGone(SinkError):
    """The other side says that it wants no more of this."""

    remedy = "If it should go on, mend the other side, then `watcher resume`."
    retry = RetryKind.PERSON
    blames_sink = True


class PartlyWritten(SinkError):
    """The first `settled` changes of a batch are written; the one after them failed with `cause`."""

    remedy = "The rest is delivered again."

    def __init__(self, settled: int, cause: BaseException) -> None:
        super().__init__(f"after {settled} changes: {type(cause).__name__}: {cause}")
        self.settled = settled
        self.cause = cause


class SomeFailed(SinkError):
    """
    Every change of a batch is written but those that `failures` names by their index in it.

    A sink may raise it where changes of one key cannot overtake each other: it wrote none after a failed one of
    the same key, or it does not mind an older change that comes later.
    """

    remedy = "Those that failed are delivered again."

    def __init__(self, failures: Mapping[int, BaseException]) -> None:
        first = min(failures)
        cause = failures[first]
        super().__init__(f"{len(failures)} changes failed, the first with {type(cause).__name__}: {cause}")
        self.failures = dict(failures)


class HandlerError(WatcherError):
    """A user's function raised."""

    remedy = "Mend the function; the change is delivered again."
    retry = RetryKind.LATER


class HandlerTimeout(HandlerError):
    """A user's function did not end in time."""

    remedy = "Raise timeout_seconds, or make the function faster; the change is delivered again."


class HandlerDied(HandlerError):
    """The process that ran a user's function ended: by os._exit, by a signal, or by a limit."""

    remedy = "Look at what the function did; the change is delivered again."


class Retry(HandlerError):
    """
    Raised by a user's function: call me again with this change, in `after_seconds` if that is given.

    It counts as an attempt.
    """

    remedy = "The function asked for it; the change is delivered again."

    def __init__(self, after_seconds: float | None = None, reason: str = "the function asks for another try") -> None:
        super().__init__(reason)
        self.after_seconds = after_seconds


class Skip(HandlerError):
    """Raised by a user's function: nothing is to be done about this change, and `reason` says why."""

    remedy = "Nothing: the change is settled."
    retry = RetryKind.SKIP

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CannotVerify(WatcherError):
    """Source and sink cannot be compared now: they do not come to one position."""

    remedy = "See with `watcher status` that it runs and delivers; then verify again."
    retry = RetryKind.LATER


class EmbeddedError(WatcherError):
    """An embedded server does not start."""

    remedy = "See its log, named above."


class Bug(WatcherError):
    """The watcher contradicts itself. It stops rather than guess."""

    remedy = "Report it, with the lines before it in the log."
    exit_code = ExitCode.DATA_SAFETY


class OutOfOrder(Bug):
    """A position came twice, or backwards."""


class SettledTwice(Bug):
    """One delivery was settled twice."""


class UnknownRelation(Bug):
    """A row came before its Relation message."""


def in_one_line(error: BaseException) -> str:
    """Write an error as one line, its name and what it says, not longer than is worth keeping."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return text.replace("\n", " ")[:ERROR_CHARACTERS_MAX].rstrip()
