"""
What a PostgreSQL that is written to says becomes a SinkError: who is to blame, and what would mend it.

Decided by SQLSTATE (manual, appendix "PostgreSQL Error Codes"):

| SQLSTATE                          | means                          | error           | what delivery does      |
|-----------------------------------|--------------------------------|-----------------|-------------------------|
| 40001 40P01 55P03 08 53 57 58 25006 | not now: conflict, lock, outage | SinkUnavailable | the same again        |
| 23503 23505 23P01                 | another row is in the way      | SinkFailed      | holds the key, tries on |
| 22 23 P0                          | the value itself is not taken  | SinkRejected    | parks the key           |
| 3F 42                             | the target lacks something     | SinkGone        | pauses for a person     |
| anything else                     |                                | SinkFailed      | holds the key, tries on |

Messages of classes 22 and P0 may quote values: of those only the name of the condition is told.
"""

from __future__ import annotations

import psycopg

from backend_watcher.errors import (
    SafetyStop,
    SinkError,
    SinkFailed,
    SinkGone,
    SinkRejected,
    SinkUnavailable,
    WatcherError,
)
from backend_watcher.postgres.translate import one_line

_AGAIN = ("08", "53", "57", "58")
_AGAIN_CODES = frozenset({"40001", "40P01", "55P03", "25006", "55006"})
_OTHER_ROW = frozenset({"23503", "23505", "23P01"})
_QUOTE_VALUES = ("22", "P0")


def state_of(error: BaseException) -> str:
    """Return the SQLSTATE, empty where the server gave none."""
    return (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""


def is_refusal(error: BaseException) -> bool:
    """Say that the server refused a value and keeps the session: there is no need of another."""
    return state_of(error)[:2] in ("22", "23", "P0")


def is_order(error: BaseException) -> bool:
    """Say that another order of the same changes may pass: a constraint did not."""
    return state_of(error)[:2] == "23"


def sink_error(error: BaseException, place: str) -> WatcherError:
    """Say a failure of psycopg, or of the network, in our words. `place` names the server."""
    if isinstance(error, SinkError | SafetyStop):
        return error
    state = state_of(error)
    if state:
        assert isinstance(error, psycopg.Error)
        return _of_state(state, f"{place} says: {_said(error, state)} (SQLSTATE {state})")
    if isinstance(error, WatcherError):
        # From `connect`: whatever it is, nothing was written, and the address may be mended.
        return SinkUnavailable(f"{place}: {error.message}", remedy=error.remedy)
    reason = one_line(str(error)) or type(error).__name__
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | OSError):
        return SinkUnavailable(f"the connection to {place} is lost: {reason}")
    return SinkFailed(f"{place}: {type(error).__name__}")


def blaming_server(error: BaseException, place: str) -> WatcherError:
    """Say a failure that no change is to blame for."""
    made = sink_error(error, place)
    return SinkUnavailable(made.message, remedy=made.remedy) if isinstance(made, SinkFailed | SinkRejected) else made


def _said(error: psycopg.Error, state: str) -> str:
    condition = psycopg.errors.lookup(state).__name__ if _is_known(state) else "an error"
    if state[:2] in _QUOTE_VALUES:
        where = ".".join(part for part in (error.diag.schema_name, error.diag.table_name) if part)
        return f"{condition} at {where}" if where else condition
    return one_line(error.diag.message_primary or condition)


def _is_known(state: str) -> bool:
    try:
        psycopg.errors.lookup(state)
    except KeyError:
        return False
    return True


def _of_state(state: str, message: str) -> SinkError:
    kind = state[:2]
    if state in _AGAIN_CODES or kind in _AGAIN:
        return SinkUnavailable(message, remedy="Nothing was written; it is tried again until the server takes it.")
    if state in _OTHER_ROW:
        return SinkFailed(message, remedy="Mend the row that is in the way at the target, or drop the constraint.")
    if kind in ("22", "23", "P0"):
        return SinkRejected(message, remedy="Let the target take what the source takes, then `watcher parked redrive`.")
    if kind in ("3F", "42"):
        return SinkGone(message, remedy="Mend the target, then `watcher resume`.")
    return SinkFailed(message, remedy="Look at the log of the target.")
