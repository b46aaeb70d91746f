"""
The replication connection: bytes in, feedback out, no meaning attached.

Speaks the streaming replication protocol (manual, chapter "Streaming Replication Protocol") through psycopg's
libpq, because psycopg has no replication cursor. The socket is watched by the event loop; nothing here waits
for anything else, so feedback goes out on time whatever the rest of the program does.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from psycopg import Error
from psycopg.errors import Diagnostic
from psycopg.pq import DiagnosticField, ExecStatus

from backend_watcher.errors import PublicationLost, SourceRefused, SourceUnavailable, UndecodableChange, WatcherError
from backend_watcher.events.position import format_lsn
from backend_watcher.postgres.connect import Connection, answering, connect, readable
from backend_watcher.postgres.translate import error_of, one_line, read_lsn, translate

FEEDBACK = struct.Struct(">cQQQqB")
KEEPALIVE_BYTES = 18
POSTGRES_EPOCH_MICROS = 946_684_800_000_000
UNDEFINED_OBJECT = "42704"
NOT_IN_PREREQUISITE_STATE = "55000"
AT_CHANGE = re.compile(r'"pgoutput".*\b([0-9A-F]+/[0-9A-F]+)\W*$', re.DOTALL)
"""The context of an error that a change brought about: the plugin's name and the change's LSN, in any language."""
MISSING_PUBLICATION = re.compile(r"publication .* does not exist|skipped loading publication", re.IGNORECASE)


HISTORY_LINE = re.compile(r"\s*(\d+)\s+([0-9A-Fa-f]+/[0-9A-Fa-f]+)")


@dataclass(slots=True)
class Received:
    """XLogData messages that lie end to end in `data`, and what the newest keepalive said."""

    data: bytes = b""
    sizes: list[int] = field(default_factory=list)
    keepalive_lsn: int = 0
    reply_requested: bool = False
    ended: bool = False


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """What IDENTIFY_SYSTEM answers."""

    system_identifier: str
    timeline: int
    flush_lsn: int
    database: str


class ReplicationStream:
    """One walsender's stream. Open it, `start` it, then `receive` and `confirm` until `close`."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: Connection | None = None
        self._backend_pid = 0
        self._later: UndecodableChange | None = None
        self._more = False
        self._missing_publication: str | None = None
        self._listener: Callable[[], None] = _nothing

    def listen(self, callback: Callable[[], None]) -> None:
        """Call `callback` at every notice of the server; it must not wait."""
        self._listener = callback

    async def open(self) -> SystemIdentity:
        """Connect and ask the server who it is. Raises SourceUnavailable, SourceRefused, ConfigError."""
        self._connection = await connect(self._dsn, purpose="capture", replication=True)
        self._connection.add_notice_handler(self._note)
        try:
            with answering(self._connection):
                cursor = await self._connection.execute("IDENTIFY_SYSTEM")
                row = await cursor.fetchone()
                # A pooler or proxy may greet with a process of its own invention.
                served = await (await self._connection.execute("SELECT pg_backend_pid()")).fetchone()
        except Error as error:
            raise translate(error) from error
        assert row is not None
        assert served is not None
        self._backend_pid = int(str(served[0]))
        system_identifier, timeline, lsn, database = row
        return SystemIdentity(str(system_identifier), int(str(timeline)), read_lsn(str(lsn)), str(database or ""))

    async def fork_lsn(self, timeline: int, ancestor: int) -> int | None:
        """Return where the history of a timeline left an older one; None if it never was on it."""
        assert self._connection is not None
        try:
            with answering(self._connection):
                cursor = await self._connection.execute(f"TIMELINE_HISTORY {int(timeline)}".encode())
                row = await cursor.fetchone()
        except Error as error:
            raise translate(error) from error
        assert row is not None
        content = row[1] if isinstance(row[1], str) else bytes(row[1]).decode(errors="replace")
        return fork_of(content, ancestor)

    def _note(self, notice: Diagnostic) -> None:
        self._listener()
        # PostgreSQL 18 only warns where 17 stops, and then drops the rows without a word. Its text may be in
        # another language; nothing else in a stream warns with this code.
        text = notice.message_primary or ""
        warned = notice.severity_nonlocalized == "WARNING" and notice.sqlstate == NOT_IN_PREREQUISITE_STATE
        if warned or MISSING_PUBLICATION.search(text):
            self._missing_publication = text

    async def start(self, slot: str, lsn: int, publication: str, *, streaming: bool = False) -> None:
        """
        Begin to stream. `slot` and `publication` were validated or quoted before: there are no parameters here.

        With `streaming`, PostgreSQL 14 and later send parts of large transactions before their commit.
        """
        assert self._connection is not None
        version = protocol_version(self._connection.pgconn.server_version) if streaming else 1
        parts = ", streaming 'on'" if version > 1 else ""
        # A replication command knows no backslash escapes.
        quoted = publication.replace('"', '""').replace("'", "''")
        command = (
            f'START_REPLICATION SLOT "{slot}" LOGICAL {format_lsn(lsn)} '
            f"(proto_version '{version}', publication_names '\"{quoted}\"', messages 'true'{parts})"
        )
        try:
            with answering(self._connection):
                await self._connection.execute(command.encode())
        except Error as error:
            raise translate(error) from error
        # The first messages may have come with the answer, and lie in libpq's buffer: the socket stays silent.
        self._more = True

    @property
    def backend_pid(self) -> int:
        """The process id of our walsender."""
        return self._backend_pid

    @property
    def has_more(self) -> bool:
        """Say that the last `receive` stopped at its limit, and more is there at once."""
        return self._more

    async def wait(self) -> None:
        """Wait until there may be something to receive. Raises SourceUnavailable where the connection is gone."""
        assert self._connection is not None
        if self._more:
            self._more = False
            return
        try:
            await readable(self._connection)
        except Error as error:
            raise translate(error) from error

    def receive(self, limit_bytes: int) -> Received:
        """
        Return what has arrived, up to about `limit_bytes`, without waiting.

        Raises PublicationLost, SourceUnavailable where the connection is gone, SourceRefused where the
        server ended the stream with an error.
        """
        assert self._connection is not None
        pgconn = self._connection.pgconn
        if self._later is not None:
            raise self._later
        received = Received()
        parts: list[memoryview | bytes] = []
        sizes = received.sizes
        take = pgconn.get_copy_data
        total = 0
        empty = False
        try:
            while total < limit_bytes:
                size, data = take(1)
                if size > KEEPALIVE_BYTES:
                    parts.append(data)
                    sizes.append(size)
                    total += size
                    empty = False
                elif size > 0:
                    _keepalive(received, bytes(data))
                elif size == 0:
                    # libpq's buffer holds about a hundred messages: fill it again until the socket is dry.
                    if empty:
                        break
                    pgconn.consume_input()
                    empty = True
                else:
                    received.ended = True
                    received.data = b"".join(parts)
                    self._ended(received)
                    break
            else:
                # The limit was reached before libpq's own buffer was empty, so the socket may stay silent.
                self._more = True
        except Error as error:
            raise self._failure(translate(error)) from error
        if self._missing_publication:
            raise self._failure(SourceUnavailable("the publication is gone"))
        received.data = b"".join(parts)
        return received

    def _ended(self, received: Received) -> None:
        """Read why the server ended the stream."""
        assert self._connection is not None
        result = self._connection.pgconn.get_result()
        if result is None or result.status != ExecStatus.FATAL_ERROR:
            return
        said = one_line((result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace"))
        state = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode(errors="replace")
        if not state:
            raise SourceUnavailable(f"the connection to PostgreSQL is lost: {one_line(result.get_error_message())}")
        if state == UNDEFINED_OBJECT:
            self._missing_publication = said
        failure = self._failure(error_of(state, f"the server ended the stream: {said} (SQLSTATE {state})"))
        context = (result.error_field(DiagnosticField.CONTEXT) or b"").decode(errors="replace")
        at = AT_CHANGE.search(context)
        if at is not None and type(failure) is SourceRefused:
            # What was sent before it has been received, and counts: the error is for the next call.
            failure = UndecodableChange(failure.message, change_lsn=read_lsn(at[1]))
            if received.sizes:
                self._later, self._more = failure, True
                received.ended = False
                return
        raise failure

    def _failure(self, error: WatcherError) -> WatcherError:
        text = self._missing_publication or (error.message if MISSING_PUBLICATION.search(error.message) else None)
        if text:
            return PublicationLost(f"the server cannot load the publication: {text}")
        return error

    def confirm(self, write_lsn: int, flush_lsn: int, apply_lsn: int) -> None:
        """
        Send a standby status update; PostgreSQL may forget everything before `flush_lsn`.

        Raises SourceUnavailable where the connection is gone.
        """
        assert self._connection is not None
        pgconn = self._connection.pgconn
        clock = time.time_ns() // 1000 - POSTGRES_EPOCH_MICROS
        try:
            pgconn.put_copy_data(FEEDBACK.pack(b"r", write_lsn, flush_lsn, apply_lsn, clock, 0))
            pgconn.flush()
        except Error as error:
            raise translate(error) from error

    async def close(self) -> None:
        """End the stream and the connection. May be called twice."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.pgconn.put_copy_end()
            connection.pgconn.flush()
        except Error:
            pass  # the server has gone already, which is all we wanted to tell it
        await connection.close()


def protocol_version(server_version: int) -> int:
    """Return the newest version of the protocol that a server speaks (manual, "Logical Streaming Replication")."""
    since = ((160_000, 4), (150_000, 3), (140_000, 2))
    return next((version for first, version in since if server_version >= first), 1)


def fork_of(history: str, ancestor: int) -> int | None:
    """Read from a timeline's history file where it left an ancestor."""
    for line in history.splitlines():
        match = HISTORY_LINE.match(line)
        if match is not None and int(match[1]) == ancestor:
            return read_lsn(match[2])
    return None


def _nothing() -> None:
    return


def _keepalive(received: Received, data: bytes) -> None:
    if data[:1] != b"k" or len(data) != KEEPALIVE_BYTES:
        raise SourceRefused(f"the server sent a CopyData of {len(data)} bytes that is no keepalive")
    received.keepalive_lsn = int.from_bytes(data[1:9], "big")
    received.reply_requested = received.reply_requested or data[17] == 1
