"""
Tasks that live and end together, where being told to stop counts more than what failed.

`asyncio.TaskGroup` forgets that it was cancelled if that comes while it ends because of an error. Here whoever runs
the tasks begins again after an error, so a watcher that is stopped just as its connection breaks would go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from backend_watcher.errors import RetryKind, UndecodableChange, WatcherError


async def run_together(*work: Coroutine[Any, Any, None]) -> None:
    """
    Run until one of them ends with an error, or all have ended; then the others are cancelled, and awaited.

    Raises an ExceptionGroup of what failed, or CancelledError whenever that was asked for.
    """
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        # Cancelled here, it still waits for all of them, and then lets the cancellation through.
        await asyncio.gather(*tasks, return_exceptions=True)
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
    if errors:
        raise BaseExceptionGroup("tasks that ran together", errors)


def first_error(errors: Iterable[BaseException]) -> WatcherError:
    """
    Return the error that decides: one that needs a person before one that time mends.

    Of those, a change that cannot be sent comes first: the connection's end is only what follows. Errors that are
    none of ours do not count; at least one is ours.
    """
    ours = [error for error in errors if isinstance(error, WatcherError)]
    return min(ours, key=lambda error: (error.retry is RetryKind.LATER, not isinstance(error, UndecodableChange)))


def leaves(error: BaseException) -> list[BaseException]:
    """Return the errors of a group, and of groups in it; an error by itself is one."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]
