"""
A source's life: session after session, each begun again after what ended the one before, as `again.py` decides.

Without TLS nothing tells a spoilt answer from a true one, and one with a column that nobody knows ends in a
`TypeError` wherever it is used. So what nobody foresaw is tried once more at its place, like bytes that make no
sense; what comes back is no accident, and ends the source as it is, to be reported.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from backend_watcher.capture.again import Again
from backend_watcher.capture.together import first_error, leaves
from backend_watcher.contracts import Journal
from backend_watcher.errors import ProtocolError, WatcherError, in_one_line

UNFORESEEN = (TypeError, LookupError, ValueError, AttributeError, AssertionError, ArithmeticError)
"""What reading an answer raises that is not as it was asked for."""


async def keep_on(
    session: Callable[[], Awaitable[None]], journal: Journal, rest: Callable[[WatcherError, float], Awaitable[None]]
) -> None:
    """
    Run sessions until cancelled; after each that failed `rest` tells why, and waits about so many seconds.

    Raises the WatcherError that needs a person, and what was not foreseen when it comes again.
    """
    again = Again()
    while True:
        begun = time.monotonic()
        try:
            await session()
        except (WatcherError, ExceptionGroup, *UNFORESEEN) as failed:
            error, unforeseen = _deciding(failed)
            try:
                delay = again.after(error, time.monotonic() - begun, journal.durable_lsn)
            except ProtocolError:
                raise unforeseen or error from None
            await rest(error, delay)


def _deciding(failed: Exception) -> tuple[WatcherError, BaseException | None]:
    """Return the error that decides, and what it stands for where that is none of ours."""
    errors = leaves(failed)
    if any(isinstance(error, WatcherError) for error in errors):
        return first_error(errors), None
    if all(isinstance(error, UNFORESEEN) for error in errors):
        return ProtocolError(f"an answer of the server makes no sense: {in_one_line(errors[0])}"), errors[0]
    raise failed
