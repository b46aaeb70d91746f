"""When to look again: when a commit notifies, and by a slow look in case that is lost; and whether the queue fills."""

from __future__ import annotations

from backend_watcher.contracts import Observer
from backend_watcher.postgres import notifications
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.outbox import CHANNEL

FALLBACK_SECONDS = 10.0
"""A notification is lost with its connection, and nobody says so. With the other looks this is below 0.2 queries/s."""
POLL_SECONDS_MIN = 0.05
USAGE_SHARE_MAX = 0.1
"""How full the server's queue may be before it is an alarm; it is far from failing commits then."""


class QueueAlarm:
    """Says it when the server's queue of notifications fills, and when it is empty again."""

    def __init__(self, observer: Observer, calm: str = "") -> None:
        self._observer = observer
        self._calm = calm
        self._alarmed = False

    def judge(self, usage: float) -> None:
        """Take how full it is, from 0 to 1."""
        if usage >= USAGE_SHARE_MAX:
            self._alarmed = True
            self._observer.source_state("queue_alarm", queue_words(usage))
        elif self._alarmed:
            self._alarmed = False
            self._observer.source_state("streaming", self._calm)


def queue_words(usage: float) -> str:
    """Say how full the queue of notifications is, and what comes of it."""
    return (
        f"the server's queue of notifications is {usage:.0%} full: a session that listens does not read, or sits in a "
        "transaction; when the queue is full, commits that notify fail"
    )


class Waker:
    """Waits on the reader's own connection, which is in no transaction meanwhile."""

    def __init__(self, connection: Connection, *, notify: bool, poll_seconds: float) -> None:
        self._connection = connection
        self._notify = notify
        self._poll_seconds = poll_seconds
        self._delay = POLL_SECONDS_MIN

    async def listen(self) -> None:
        """Begin to hear. What was committed before has to be looked for after this."""
        if self._notify:
            await notifications.listen(self._connection, [CHANNEL])

    async def heard(self) -> None:
        """Note that there was something. What has come until now told of it: it is not kept."""
        self._delay = POLL_SECONDS_MIN
        if self._notify:
            await notifications.wait(self._connection, 0)

    async def wait(self) -> None:
        """Return when it is worth to look again."""
        if self._notify:
            await notifications.wait(self._connection, FALLBACK_SECONDS)
            return
        await notifications.wait(self._connection, self._delay)
        self._delay = min(self._poll_seconds, self._delay * 2)
