"""
The outbox on the source: what it is made of, made, completed, and taken away again. See `sql/outbox_install.sql`.

Making it needs more rights than reading it: who has them may run the printed statements instead. A trigger needs a
lock that stops the table's writers for a moment; it is asked for again and again for a short time, and never waited for
long.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

from backend_watcher.errors import PreflightFailed, SourceError, SourceUnavailable
from backend_watcher.postgres.catalog import TableFacts
from backend_watcher.postgres.connect import Connection, answering
from backend_watcher.postgres.names import for_statement
from backend_watcher.postgres.queries import fetch_all, fetch_one
from backend_watcher.postgres.translate import state_of, translating

ROW_TRIGGER = "0_watcher_outbox"
TRUNCATE_TRIGGER = "0_watcher_outbox_truncate"
"""Triggers fire in the order of their names: ours before those that change more rows, as the WAL has them."""

LOCK_MILLISECONDS = 100
LOCK_TRIES_MAX = 50
LOCK_PAUSE_SECONDS = 0.2
_LOCK_NOT_AVAILABLE = "55P03"
_NOTIFY = re.compile(r"    -- notify:.*\n.*pg_notify.*\n")
_WOKEN = "    woken text;\n"
_ENABLED = frozenset("A")

NOT_INSTALLED = "Run `watcher outbox install`, or let who may run what `watcher outbox print` prints."


@dataclass(frozen=True, slots=True)
class Installed:
    """What is there. `notifies` is None where nothing is; `rights` are those our role lacks, as GRANT takes them."""

    there: bool
    notifies: bool | None
    rights: tuple[str, ...]
    triggers: Mapping[int, Mapping[str, tuple[int, str]]]
    """By a table's OID and the trigger's name: its OID, and when it fires (pg_trigger.tgenabled)."""


def script(*, notify: bool, role: str | None = None) -> str:
    """Return the statements that make the outbox itself; `role` is who reads it, if it is not who makes it."""
    folder = resources.files("backend_watcher.postgres").joinpath("sql")
    text = folder.joinpath("outbox_install.sql").read_text(encoding="utf-8")
    if not notify:
        text = _NOTIFY.sub("", text).replace(_WOKEN, "")
    return text + (_grants(role) if role is not None else "")


def _grants(role: str) -> str:
    name = '"' + role.replace('"', '""') + '"'
    return f"""
-- What the watcher's role needs to read it.
GRANT USAGE ON SCHEMA watcher TO {name};
GRANT SELECT ON watcher.outbox, watcher.outbox_shape, watcher.outbox_number TO {name};
GRANT SELECT, INSERT, DELETE ON watcher.outbox_batch TO {name};
GRANT SELECT, UPDATE ON watcher.outbox_reader TO {name};
GRANT EXECUTE ON FUNCTION watcher.outbox_empty(integer) TO {name};
"""


def trigger_statements(table: TableFacts, *, inserts_only: bool = False) -> list[str]:
    """Return the statements that make the triggers of one table; they may be run again."""
    name = for_statement(table.schema, table.name, table.quoted)
    argument = "'itself'" if table.is_partition else ""
    events = "INSERT" if inserts_only else "INSERT OR UPDATE OR DELETE"
    made = _trigger(ROW_TRIGGER, f"AFTER {events} ON {name} FOR EACH ROW", name, argument)
    if not inserts_only:
        made += _trigger(TRUNCATE_TRIGGER, f"AFTER TRUNCATE ON {name} FOR EACH STATEMENT", name, argument)
    return made


def _trigger(trigger: str, when: str, table: str, argument: str) -> list[str]:
    return [
        f'CREATE OR REPLACE TRIGGER "{trigger}" {when} EXECUTE FUNCTION watcher.outbox_write({argument});',
        # Also for what another subscription or a restore writes, as logical decoding has it.
        f'ALTER TABLE {table} ENABLE ALWAYS TRIGGER "{trigger}";',
    ]


def wanted_triggers(*, inserts_only: bool = False) -> tuple[str, ...]:
    """Return the names of the triggers that a table needs."""
    return (ROW_TRIGGER,) if inserts_only else (ROW_TRIGGER, TRUNCATE_TRIGGER)


async def look(conn: Connection) -> Installed:
    """Look what is there. Only reads."""
    row = await fetch_one(conn, "outbox_installed")
    assert row is not None
    if not row["installed"]:
        return Installed(False, None, (), {})
    notifies = bool(row["notifies"])
    if not row["usage"]:
        return Installed(True, notifies, ("USAGE ON SCHEMA watcher",), {})
    rights = tuple(right["what"] for right in await fetch_all(conn, "outbox_rights"))
    triggers: dict[int, dict[str, tuple[int, str]]] = {}
    for one in await fetch_all(conn, "outbox_triggers"):
        triggers.setdefault(one["relation"], {})[one["name"]] = (one["trigger"], one["enabled"])
    return Installed(True, notifies, rights, triggers)


def missing_triggers(table: TableFacts, installed: Installed, *, inserts_only: bool = False) -> list[str]:
    """Return which of a table's triggers are not there, or do not always fire. Pure."""
    there = installed.triggers.get(table.oid, {})
    wanted = wanted_triggers(inserts_only=inserts_only)
    return [name for name in wanted if name not in there or there[name][1] not in _ENABLED]


async def install(conn: Connection, tables: Iterable[TableFacts], inserts_only: frozenset[int], *, notify: bool) -> int:
    """
    Make what is missing; return on how many tables. What is there and right is not touched.

    Raises SourceRefused where our role may not, SourceUnavailable where a table's writers never leave room.
    """
    installed = await look(conn)
    if not installed.there or installed.notifies is not notify:
        await _run(conn, script(notify=notify))
    made = 0
    for table in tables:
        only = table.oid in inserts_only
        if missing_triggers(table, installed, inserts_only=only):
            await _patiently(conn, "\n".join(trigger_statements(table, inserts_only=only)))
            made += 1
    return made


async def remove(conn: Connection) -> int:
    """Take the triggers and the outbox away, with all that was not read; return how many triggers there were."""
    if not (await look(conn)).there:
        return 0
    triggers = await fetch_all(conn, "outbox_triggered")
    for one in triggers:
        await _patiently(conn, f'DROP TRIGGER "{one["name"]}" ON {one["quoted"]};')
    await _patiently(conn, removal())
    return len(triggers)


def removal() -> str:
    """Return the statements that take the outbox away, once no table has its triggers."""
    return (
        "DROP FUNCTION watcher.outbox_write();\nDROP FUNCTION watcher.outbox_say(text, text);\n"
        "DROP FUNCTION watcher.outbox_empty(integer);\n"
        "DROP TABLE watcher.outbox, watcher.outbox_shape, watcher.outbox_batch, watcher.outbox_reader;\n"
        "DROP SEQUENCE watcher.outbox_number;\n"
    )


async def _patiently(conn: Connection, statements: str) -> None:
    """Run in one transaction that waits for locks a moment only, as often as is needed."""
    for tried in range(1, LOCK_TRIES_MAX + 1):
        try:
            await _run(conn, f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS};\n{statements}")
        except SourceUnavailable as error:
            if state_of(error) != _LOCK_NOT_AVAILABLE or tried == LOCK_TRIES_MAX:
                raise
            await asyncio.sleep(LOCK_PAUSE_SECONDS)
        else:
            return


async def _run(conn: Connection, statements: str) -> None:
    try:
        with translating(), answering(conn):
            async with conn.transaction():
                await conn.execute(statements.encode())
    except SourceError as error:
        if state_of(error) == "42501":
            raise PreflightFailed([error.message], remedy=NOT_INSTALLED) from None
        raise
