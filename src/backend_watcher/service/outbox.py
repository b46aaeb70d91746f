"""What a person does about the outbox on the source: makes it, takes it away, or has the statements printed."""

from __future__ import annotations

from dataclasses import dataclass

from backend_watcher.errors import ConfigError
from backend_watcher.postgres import catalog, outbox_install
from backend_watcher.postgres.catalog import TableFacts
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.service.build import wishes_of
from backend_watcher.service.config import Config
from backend_watcher.service.declared import wanted_of
from backend_watcher.service.subscribed import full_name
from backend_watcher.service.watcher import Watcher


@dataclass(frozen=True, slots=True)
class OutboxDone:
    """The tables that are heard by the outbox, and on how many of them something was done."""

    tables: tuple[str, ...]
    changed: int


async def install_outbox(config: Config, watcher: Watcher | None) -> OutboxDone:
    """
    Make the outbox, and the triggers of every table that a subscription hears. May be run again.

    Raises ConfigError where source.kind is another, PreflightFailed where a table is missing or the role may not.
    """
    async with await connect(_dsn_of(config), purpose="install") as conn:
        tables = await _tables(config, watcher, conn)
        only = _inserts_only(config, tables)
        done = await outbox_install.install(conn, tables, only, notify=config.source.outbox_notify)
    return OutboxDone(tuple(table.full_name for table in tables), done)


async def remove_outbox(config: Config) -> int:
    """Take the outbox and its triggers away, with what nobody has read; return how many triggers there were."""
    async with await connect(_dsn_of(config), purpose="install") as conn:
        return await outbox_install.remove(conn)


async def outbox_script(config: Config, watcher: Watcher | None, role: str | None) -> str:
    """Return the statements of `install_outbox`, for a person to run; `role` is who is to read. Only reads."""
    async with await connect(_dsn_of(config), purpose="check", read_only=True) as conn:
        tables = await _tables(config, watcher, conn)
        reader = role or (await catalog.server(conn)).role
    only = _inserts_only(config, tables)
    text = outbox_install.script(notify=config.source.outbox_notify, role=reader)
    for table in tables:
        text += f"\n-- {table.full_name}\n"
        text += "\n".join(outbox_install.trigger_statements(table, inserts_only=table.oid in only)) + "\n"
    return text


def removal_script() -> str:
    """Return the statements that take the outbox away, for a person to run."""
    return (
        "-- Takes a lock on each table with a trigger of the outbox, for a moment.\n"
        "DROP FUNCTION watcher.outbox_write() CASCADE;\n"
        + outbox_install.removal().partition("DROP FUNCTION watcher.outbox_write();\n")[2]
    )


def _dsn_of(config: Config) -> str:
    if config.source.kind != "outbox":
        raise ConfigError(
            [f"source.kind is {config.source.kind!r}: there is no outbox"],
            remedy='Set kind = "outbox" under [source]; `watcher check` says which kind suits the server.',
        )
    return config.source.dsn


async def _tables(config: Config, watcher: Watcher | None, conn: Connection) -> list[TableFacts]:
    names = sorted(wishes_of(wanted_of(config, watcher)))
    return list((await catalog.tables(conn, names)).values())


def _inserts_only(config: Config, tables: list[TableFacts]) -> frozenset[int]:
    if config.source.outbox_table is None:
        return frozenset()
    name = full_name(config.source.outbox_table)
    return frozenset(table.oid for table in tables if table.full_name == name)
