"""
The notify source: what NOTIFY says, as messages. Best effort, and nothing else.

A notification is gone where nobody listens: while the watcher is away, while a connection is broken, at a failover. No
position of the source says what was missed, so nothing can be asked for again; from the journal on it is kept, retried
and parked like everything else. The connection is read whatever happens: a listener that does not read would keep
the server's queue from being emptied, and in the end fail the application's commits. What finds no room here is
dropped, and said so.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from backend_watcher.capture.acknowledge import Acknowledgement
from backend_watcher.capture.intake import Describer, Intake
from backend_watcher.capture.outbox_wake import QueueAlarm
from backend_watcher.capture.sessions import keep_on
from backend_watcher.capture.together import run_together
from backend_watcher.contracts import Identity, Journal, Observer
from backend_watcher.decode.outbox import said_message
from backend_watcher.decode.whole import begin_message, commit_message
from backend_watcher.errors import ConfigError, WatcherError, WrongCluster
from backend_watcher.postgres import catalog, notifications
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.notifications import Notified
from backend_watcher.postgres.poolers import refuse_pooler
from backend_watcher.postgres.replication import POSTGRES_EPOCH_MICROS, Received

NAME = "notify"
"""What stands for the slot's name in the identity of a journal, and in every event id."""

BEST_EFFORT = "best effort: what is notified while nobody listens is lost, and nobody can say that it was"
WAIT_SECONDS = 60.0
USAGE_SECONDS = 30.0
WAITING_MAX = 50_000
"""Notifications that wait for the journal; a payload is below 8 kB."""
AT_ONCE_MAX = 1000


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Where to listen, and to which channels. No table is heard."""

    dsn: str
    channels: tuple[str, ...]
    journal_name: str = ""
    tables: tuple[str, ...] = ()


class NotifySource:
    """Listens until cancelled."""

    def __init__(
        self, settings: NotifySettings, journal: Journal, observer: Observer, *, usage_seconds: float = USAGE_SECONDS
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._observer = observer
        self._usage_seconds = usage_seconds
        self._waiting: deque[Notified] = deque()
        self._heard = asyncio.Event()
        self._dropped = 0
        self._queue = QueueAlarm(observer, BEST_EFFORT)

    async def run(self) -> None:
        """Listen, and begin again when the connection breaks. Raises a WatcherError that needs a person."""
        await keep_on(self._session, self._journal, self._rest)

    async def _rest(self, error: WatcherError, delay: float) -> None:
        words = f"{error.message}; again in {delay:.1f} s, and what is notified until then is lost"
        self._observer.source_state("waiting", words)
        await asyncio.sleep(delay)

    async def _session(self) -> None:
        self._observer.source_state("connecting", "")
        listening = await connect(self._settings.dsn, purpose="listen")
        control: Connection | None = None
        try:
            await refuse_pooler(listening, self._settings.dsn)
            control = await connect(self._settings.dsn, purpose="control")
            lsn = await self._bind(control)
            await notifications.listen(listening, self._settings.channels)
            self._observer.source_state("streaming", BEST_EFFORT)
            await run_together(self._listen(listening), self._append(control, lsn), self._watch(control))
        finally:
            await listening.close()
            if control is not None:
                await control.close()

    async def _bind(self, control: Connection) -> int:
        """Compare the journal with the server; return the LSN behind which this session's messages stand."""
        server = await catalog.server(control)
        identity = await self._journal.identity()
        now = Identity(server.system_identifier, server.timeline, NAME, "")
        if identity is None:
            await self._journal.save_identity(now, server.flush_lsn)
        elif identity.slot != NAME:
            raise ConfigError(
                [f"source.kind is 'notify', but the journal was written from slot {identity.slot!r}"],
                remedy="Correct source.kind, or give the notifications a journal of their own.",
            )
        elif identity.system_identifier != server.system_identifier:
            raise WrongCluster(
                f"the journal was written from cluster {identity.system_identifier}, "
                f"the server is {server.system_identifier}"
            )
        # What was delivered and not yet durable when a process was killed had a place too, below this one.
        return max(server.flush_lsn, self._journal.durable_lsn, self._journal.last_position.commit_lsn + 1)

    async def _listen(self, listening: Connection) -> None:
        """Read the connection, whatever the journal does."""
        while True:
            for one in await notifications.wait(listening, WAIT_SECONDS):
                if len(self._waiting) < WAITING_MAX:
                    self._waiting.append(one)
                else:
                    self._dropped += 1
            self._heard.set()

    async def _append(self, control: Connection, lsn: int) -> None:
        await self._journal.flush()
        acknowledgement = Acknowledgement(lsn)
        intake = Intake(
            self._journal, self._observer, acknowledgement, Describer(control, {}), None, lsn, messages=True
        )
        intake.begin()
        for place in itertools.count(lsn):
            while not self._waiting:
                self._heard.clear()
                await self._heard.wait()
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                self._observer.source_state("dropped", f"{dropped} notifications found no room and are lost")
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), AT_ONCE_MAX))]
            await intake.take(_received(place, taken))

    async def _watch(self, control: Connection) -> None:
        """Say it when the server's queue fills: somebody who listens, here or elsewhere, does not read."""
        while True:
            self._queue.judge(await notifications.queue_usage(control))
            await asyncio.sleep(self._usage_seconds)


def _received(place: int, taken: Sequence[Notified]) -> Received:
    """Make a transaction of what came at once."""
    micros = int(time.time() * 1_000_000) - POSTGRES_EPOCH_MICROS
    messages = [begin_message(place, micros, 0)]
    messages += [said_message(one.channel, one.payload) for one in taken]
    messages.append(commit_message(0, place, place + 1, micros))
    return Received(b"".join(messages), [len(message) for message in messages])
