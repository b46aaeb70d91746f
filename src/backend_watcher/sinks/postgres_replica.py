"""
Keeps tables of another PostgreSQL equal to the source's, with every change applied exactly once.

A batch is one transaction there: rows go by COPY into a temporary table and from there with one statement for each
kind of change, and the position moves in the same transaction. So a crash anywhere leaves either both or neither, and
what is delivered again is known by its position. Delivery hands over whole transactions in commit order, in one lane
(see `contracts.TransactionalSink`): a reader of the replica sees what a reader of the source saw at some moment.

Triggers and foreign keys of the target rest where the role may say so, as with PostgreSQL's own subscriptions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import structlog

from backend_watcher import probes
from backend_watcher.contracts import Receipt
from backend_watcher.errors import ConfigError, SafetyStop, SinkRejected, SinkUnavailable
from backend_watcher.events.change import INSERT, READ, TRUNCATE, Change
from backend_watcher.events.position import Position
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Stream
from backend_watcher.postgres.connect import Connection, address_of
from backend_watcher.postgres.replica_errors import blaming_server, is_order, is_refusal, sink_error
from backend_watcher.postgres.replica_merge import Merge, truncate
from backend_watcher.postgres.replica_session import (
    Place,
    Stand,
    add_late,
    make_tables,
    move,
    open_session,
    read_stand,
    with_origin,
    without_triggers,
)
from backend_watcher.postgres.replica_tables import key_of, target_of
from backend_watcher.sinks.postgres_replica_fold import Folded, NeedsRow, both, runs, whole
from backend_watcher.sinks.postgres_replica_once import due, late_of, newest
from backend_watcher.sinks.postgres_replica_read import ReadBack
from backend_watcher.verifiable import Bound

MOVED_MAX = 3
"""So often another writer may move the position while we write, before it counts as an outage."""

log = structlog.get_logger("watcher")


class PostgresReplica:
    """
    A copy of tables in another PostgreSQL, at `dsn`.

    Tables keep their names; `schema` puts all of them into one schema there. `create` makes tables and columns that are
    missing. `origin` marks what is written as replicated: "try" goes on, and says so, where the role may not,
    "require" does not. `fire_triggers` lets triggers and foreign keys of the target work.
    """

    feeding: ClassVar[Mapping[str, Any]] = {
        "concurrency": 1,
        "batch": 10_000,
        "max_in_flight": 100_000,
        "timeout_seconds": 300.0,
    }
    """How it wants to be fed where nobody says otherwise."""

    def __init__(
        self,
        dsn: str,
        *,
        schema: str | None = None,
        create: bool = False,
        origin: Literal["try", "require", "off"] = "try",
        fire_triggers: bool = False,
    ) -> None:
        self._dsn = dsn
        self._place_name = _check(dsn, schema, origin)
        self._schema = schema
        self._create = create
        self._origin = origin
        self._fire_triggers = fire_triggers
        self._subscription = ""
        self._lock = asyncio.Lock()
        self._conn: Connection | None = None
        self._place: Place | None = None
        self._stand: Stand | None = None
        self._merges: dict[int, Merge] = {}
        self._without: dict[str, str] = {}
        self._back = ReadBack(dsn, self._place_name, schema, create)

    @property
    def target(self) -> tuple[str, str | None]:
        """The DSN, with its password, and the schema that all tables are in, None where they keep their own."""
        return self._dsn, self._schema

    def belongs_to(self, subscription: str) -> None:
        """Take the name that the position is kept under."""
        self._subscription = subscription

    async def position_of(self, stream: Stream) -> Position:
        """Say up to where all of a stream is applied, or was held."""
        async with self._lock:
            await self._guarded(lambda: self._standing(stream))
            assert self._stand is not None
            return self._stand.position

    async def open(self) -> None:
        """Connect, and make the tables of the position. Raises SinkUnavailable, SinkGone."""
        async with self._lock:
            await self._guarded(self._connected)

    async def close(self) -> None:
        """Let go of the connections; what is open there is rolled back."""
        async with self._lock:
            await self._hang_up()
        await self._back.close()

    async def flush(self) -> None:
        """Nothing waits: every batch is committed when `write` returns."""

    def describe(self) -> Mapping[str, Any]:
        """Say what this is; the password is left out."""
        return {
            "kind": "postgres_replica",
            "server": self._place_name,
            "schema": self._schema,
            "create": self._create,
            "origin": self._without.get("origin", self._origin),
            "fire_triggers": self._without.get("fire_triggers", self._fire_triggers),
        }

    async def write(self, batch: Sequence[Change]) -> Receipt:
        """Apply what of the batch is not yet applied, in one transaction with its position."""
        async with self._lock:
            await self._guarded(lambda: self._in_order(batch))
        return Receipt.DURABLE

    async def write_late(self, batch: Sequence[Change]) -> Receipt:
        """Apply changes that come after later ones, each once."""
        async with self._lock:
            await self._guarded(lambda: self._out_of_order(batch))
        return Receipt.DURABLE

    # Read back: see `Verifiable`

    async def open_to_read(self) -> None:
        """Connect with a session that only reads."""
        await self._back.open()

    def scope(self, table: Table) -> str:
        """Return the name of the target."""
        return self._back.scope(table)

    async def entries(self, changes: Sequence[Change]) -> Sequence[tuple[bytes, bytes | None] | SinkRejected]:
        """Say which rows should stand there, as the target would print them."""
        return await self._back.entries(changes)

    def touches(self, change: Change) -> Sequence[bytes]:
        """Name the row of a change, and the one that it was."""
        return self._back.touches(change)

    async def held(self, table: Table, names: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return the rows with some names."""
        return await self._back.held(table, names)

    async def names_after(self, table: Table, cursor: bytes) -> tuple[Sequence[bytes], bytes]:
        """Return the next names in the order of the key."""
        return await self._back.names_after(table, cursor)

    def keys_of(self, table: Table, names: Sequence[bytes]) -> Sequence[Mapping[str, str] | str]:
        """Say which rows have some names."""
        return self._back.keys_of(table, names)

    def extras_unknown(self) -> str:
        """Say that a row of the target is always one of the source."""
        return ""

    async def digest_way(self, table: Table, key: Sequence[str]) -> str:
        """Say how rows are digested there; see `Digesting`."""
        return await self._back.digest_way(table, key)

    async def digests(self, table: Table, key: Sequence[str], bounds: Sequence[Bound]) -> Sequence[tuple[int, int]]:
        """Return what the target sums up of ranges."""
        return await self._back.digests(table, key, bounds)

    async def names_between(
        self, table: Table, key: Sequence[str], low: Bound, high: Bound
    ) -> tuple[Sequence[tuple[bytes, Bound]], Bound]:
        """Return some names of a range, with their keys."""
        return await self._back.names_between(table, key, low, high)

    # The connection

    async def _guarded(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do something at the server. Whatever fails, the next one begins with what the server knows."""
        try:
            await work()
        except Exception as error:
            self._stand = None
            if not is_refusal(error) and not isinstance(error, SinkRejected):
                await self._hang_up()
            raise sink_error(error, self._place_name) from error
        except BaseException:
            # Cancelled: nobody knows how far the server is.
            self._stand = None
            await self._hang_up()
            raise

    async def _hang_up(self) -> None:
        conn, self._conn, self._stand, self._place = self._conn, None, None, None
        self._merges.clear()
        if conn is not None:
            await conn.close()

    async def _connected(self) -> None:
        if self._conn is not None:
            return
        self._conn = await open_session(self._dsn)
        if not self._fire_triggers:
            self._report("fire_triggers", await without_triggers(self._conn))
        await make_tables(self._conn)

    async def _standing(self, stream: Stream) -> tuple[Connection, Place, Stand]:
        """Return the connection, and where the replica of this stream stands."""
        await self._connected()
        conn = self._conn
        assert conn is not None
        if self._place is None:
            place = Place(stream.system_identifier, stream.slot, self._subscription)
            if self._origin != "off":
                name = f"backend_watcher_{stream.system_identifier}_{stream.slot}_{self._subscription}"
                refused = await with_origin(conn, name)
                if refused is not None and self._origin == "require":
                    raise SinkUnavailable(
                        f"{self._place_name}: what is written cannot be marked with a replication origin: {refused}",
                        remedy="Let a superuser grant EXECUTE on the functions pg_replication_origin_oid, …_create and "
                        "…_session_setup, or set origin = 'try'.",
                    )
                self._report("origin", refused)
            self._place = place
        if self._stand is None:
            try:
                self._stand = await read_stand(conn, self._place)
            except Exception as error:
                # Whatever it is, no change is to blame: it may be applied already.
                raise blaming_server(error, self._place_name) from error
        return conn, self._place, self._stand

    def _report(self, what: str, refused: str | None) -> None:
        """Say once that something is done without."""
        if refused is None:
            self._without.pop(what, None)
        elif what not in self._without:
            self._without[what] = f"not permitted: {refused}"
            log.warning("replica.without", server=self._place_name, option=what, reason=refused)

    # Once

    async def _in_order(self, batch: Sequence[Change]) -> None:
        for _ in range(MOVED_MAX):
            conn, place, stand = await self._standing(batch[0].transaction.stream)
            self._same_history(batch, stand)
            changes = due(batch, stand.position, stand.late)
            if not changes:
                return
            last = newest(changes)
            await self._prepare(conn, changes)
            moved = True
            try:
                async with conn.transaction():
                    await self._apply(conn, changes)
                    if last is not None:
                        moved = await move(conn, place, stand, last.position, last.transaction.xid)
                        if not moved:
                            raise _Moved
                    probes.reach("replica.before_commit")
            except _Moved:
                # Another instance writes too. What it did is behind the position now.
                self._stand = None
                continue
            probes.reach("replica.after_commit")
            if last is not None:
                self._stand = Stand(last.position, last.transaction.xid, _ahead(stand, last))
            return
        raise SinkUnavailable(
            f"{self._place_name}: somebody else writes this replica",
            remedy="Let one watcher at a time run this subscription.",
        )

    async def _out_of_order(self, batch: Sequence[Change]) -> None:
        conn, place, _ = await self._standing(batch[0].transaction.stream)
        await self._prepare(conn, batch)
        async with conn.transaction():
            names = [late_of(change) for change in batch if not change.replayed]
            new = await add_late(conn, place, names) if names else set()
            wanted = [c for c in batch if (key_of(c.table) if c.replayed else late_of(c) in new)]
            if wanted:
                await self._apply(conn, wanted)
            probes.reach("replica.before_commit")
        probes.reach("replica.after_commit")
        # What is ahead of the position is looked up again.
        self._stand = None

    def _same_history(self, batch: Sequence[Change], stand: Stand) -> None:
        """Raise SafetyStop where another transaction stands at the place that the replica has come to."""
        for change in batch:
            transaction = change.transaction
            if transaction.commit_lsn > stand.position.commit_lsn:
                return
            if transaction.commit_lsn == stand.position.commit_lsn and transaction.xid != stand.xid:
                raise SafetyStop(
                    f"{self._place_name} was written from another history of the source: transaction {stand.xid} "
                    f"stood where {transaction.xid} is now",
                    remedy="Load the tables again, and delete the subscription's row of watcher.replica_position.",
                )

    # Applying

    async def _prepare(self, conn: Connection, changes: Sequence[Change]) -> None:
        """Look up the tables, and make what is to be made, before the transaction begins."""
        seen: Table | None = None
        for change in changes:
            table = change.table
            if table is seen:
                continue
            seen = table
            if table.version in self._merges:
                continue
            target = await target_of(conn, table, self._schema or table.schema, create=self._create)
            merge = Merge(table, target, len(self._merges))
            await merge.prepare(conn)
            self._merges[table.version] = merge

    async def _apply(self, conn: Connection, changes: Sequence[Change]) -> None:
        """
        Apply changes; in halves, in the source's order, where folding them together meets a constraint.

        Two rows that swap a unique value pass one after the other, and not as the source left them in the end.
        """
        if len(changes) == 1:
            return await self._apply_together(conn, changes)
        try:
            async with conn.transaction():
                await self._apply_together(conn, changes)
        except Exception as error:
            if not is_order(error):
                raise
            middle = len(changes) // 2
            await self._apply(conn, changes[:middle])
            await self._apply(conn, changes[middle:])

    async def _apply_together(self, conn: Connection, changes: Sequence[Change]) -> None:
        for run in runs(changes):
            merge = self._merges[run[0].table.version]
            if run[0].code == TRUNCATE:
                await truncate(conn, merge.target)
            elif merge.key:
                await self._keyed(conn, merge, run)
            else:
                await self._keyless(conn, merge, run)

    async def _keyed(self, conn: Connection, merge: Merge, run: Sequence[Change]) -> None:
        folded = Folded()
        place = 0
        while (place := folded.extend(run, place)) < len(run):
            change = run[place]
            place += 1
            try:
                folded.add(change)
            except NeedsRow as wanted:
                await merge.write(conn, *folded.steps(), expected=folded.expects)
                folded = Folded()
                folded.add(change, await merge.read(conn, wanted.gone) or [])
        await merge.write(conn, *folded.steps(), expected=folded.expects)

    async def _keyless(self, conn: Connection, merge: Merge, run: Sequence[Change]) -> None:
        rows: list[bytes] = []
        for change in run:
            if change.code in (INSERT, READ):
                rows.append(whole(change.new, change.table))
                continue
            if rows:
                await merge.insert(conn, rows)
                rows = []
            if not await merge.replace_one(conn, *both(change)):
                raise SinkRejected(
                    f"row_missing: {merge.target.full_name} has no row that equals the old one of this "
                    f"{change.operation}, and no key by which to find it",
                    remedy="Load the table again, or give it a primary key.",
                )
        if rows:
            await merge.insert(conn, rows)


class _Moved(Exception):
    """The position is not where we believed it to be."""


def _ahead(stand: Stand, last: Change) -> frozenset[tuple[int, int, bytes]]:
    """Return what was applied late and is still ahead of the position."""
    return frozenset(late for late in stand.late if late[:2] > tuple(last.position)) if stand.late else stand.late


def _check(dsn: str, schema: str | None, origin: str) -> str:
    """Return the server's name for people. Raises ConfigError."""
    faults, place = [], ""
    try:
        place = address_of(dsn)
    except ConfigError as error:
        faults += [f"dsn: {fault}" for fault in error.faults]
    if schema is not None and (not schema or "\0" in schema):
        faults.append(f"schema: {schema!r} is not a schema; leave it out to keep the source's")
    if origin not in ("try", "require", "off"):
        faults.append(f"origin: {origin!r} is not one of 'try', 'require', 'off'")
    if faults:
        raise ConfigError(faults)
    return place
