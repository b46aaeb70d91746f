"""What stands in the way on the server itself, and at the slot. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator

from backend_watcher.postgres.catalog import Server
from backend_watcher.postgres.connect import APPLICATION_NAME
from backend_watcher.postgres.findings import Finding, fault, ok, warning
from backend_watcher.postgres.names import quote
from backend_watcher.postgres.providers import PROVIDERS, to_change, to_make_logical, to_replicate
from backend_watcher.postgres.slots import PLUGIN, SlotFacts, WalSender
from backend_watcher.postgres.standbys import standby_names
from backend_watcher.postgres.versions import judge_version

FAILOVER_SLOTS_SINCE = 170_000
IDLE_SLOT_TIMEOUT_SECONDS_MIN = 24 * 3600
_ROOM = 10
"""How many slots or walsenders more a remedy asks for."""


def judge_server(
    server: Server, slot: SlotFacts | None, max_wal_bytes: int | None = None, allow_superuser: bool = False
) -> Iterator[Finding]:
    """Judge the settings of the server and the rights of our role; `max_wal_bytes` is how much WAL we may hold."""
    yield from judge_version(server.version)
    yield from _wal_level(server)
    yield from _plugin(server)
    yield from _room(server, slot)
    yield from _role(server, allow_superuser)
    yield from _recovery(server)
    yield from _limits(server, max_wal_bytes)
    yield from _caution(server)
    yield from _synchronous(server)
    if server.encoding == "SQL_ASCII":
        message = f"database {server.database!r} has encoding SQL_ASCII: text that is not UTF-8 cannot go out as JSON"
        yield warning("encoding", "server", message, "CREATE DATABASE … ENCODING 'UTF8', and move the data there")


def judge_provider(provider: str | None, version: int, slot: str, database: str) -> Iterator[Finding]:
    """Note what is special about a managed server."""
    if provider is None:
        return
    known = PROVIDERS[provider]
    yield ok("provider", "server", "; ".join([f"this is {known.name}", *known.notes]))
    if provider == "patroni" and version < FAILOVER_SLOTS_SINCE:
        message = f"after a failover slot {slot!r} is missing or begins anew: changes in between would be lost"
        remedy = f"patronictl edit-config -s slots.{slot}.type=logical -s slots.{slot}.plugin=pgoutput"
        yield warning("patroni_slot", "server", message, f"{remedy} -s slots.{slot}.database={database}")


def judge_slot(name: str, slot: SlotFacts | None, server: Server, reader: WalSender | None) -> Iterator[Finding]:
    """Judge the slot the watcher would read from; `reader` is who reads from it now."""
    if slot is None:
        yield ok("slot", name, f"slot {name!r} does not exist yet; the watcher creates it")
        return
    drop = f"SELECT pg_drop_replication_slot('{name}');"
    if slot.plugin != PLUGIN:
        what = f"decodes with {slot.plugin!r}" if slot.plugin else "is a physical slot"
        yield fault(
            "slot_plugin", name, f"slot {name!r} {what}: it is somebody else's", "name another slot in source.slot"
        )
    elif slot.database != server.database:
        message = f"slot {name!r} belongs to database {slot.database!r}, and the DSN names {server.database!r}"
        yield fault("slot_database", name, message, "name another slot in source.slot, or correct the DSN")
    elif slot.is_lost:
        reason = f" ({slot.invalidation_reason})" if slot.invalidation_reason else ""
        message = f"PostgreSQL gave up slot {name!r}{reason}: changes are missing"
        yield fault("slot_lost", name, message, f"{drop} -- then start a new journal and load the tables again")
    elif slot.active:
        yield _active(name, slot, reader)
    else:
        yield ok("slot", name, f"slot {name!r} is there and free")


def _active(name: str, slot: SlotFacts, reader: WalSender | None) -> Finding:
    end = f"SELECT pg_terminate_backend({slot.active_pid});"
    if reader is not None and (reader.application_name or "").startswith(f"{APPLICATION_NAME}:"):
        message = f"slot {name!r} is read by another watcher, pid {slot.active_pid}"
        return warning("slot_active", name, message, f"stop that one first; if it is dead: {end}")
    who = f"{reader.application_name!r}, " if reader is not None and reader.application_name else ""
    message = f"slot {name!r} is read by {who}pid {slot.active_pid}, which is not a watcher of this role"
    return fault("slot_active", name, message, f"name another slot in source.slot, or: {end}")


def _wal_level(server: Server) -> Iterator[Finding]:
    if server.wal_level == "logical":
        yield ok("wal_level", "server", "wal_level is logical")
        return
    remedy = to_make_logical(server.provider)
    yield fault("wal_level", "server", f"wal_level is {server.wal_level}, and has to be logical", remedy)


def _plugin(server: Server) -> Iterator[Finding]:
    allowed = server.output_plugins
    if allowed is not None and PLUGIN not in {name.strip(' "') for name in allowed.split(",")}:
        message = f"output_plugin_libraries is {allowed!r}: the server may not load {PLUGIN}, which it ships with"
        remedy = to_change(server.provider, "output_plugin_libraries", f"{PLUGIN}, {allowed}".rstrip(", "))
        yield fault("output_plugin", "server", message, remedy)


def _room(server: Server, slot: SlotFacts | None) -> Iterator[Finding]:
    """Whether a slot and a walsender are free; what is ours already counts as free."""
    rows = (
        ("max_replication_slots", server.used_replication_slots, server.max_replication_slots, slot is not None),
        ("max_wal_senders", server.used_wal_senders, server.max_wal_senders, slot is not None and slot.active),
    )
    for setting, used, most, ours in rows:
        if used >= most and not ours:
            remedy = to_change(server.provider, setting, most + _ROOM, restart=True)
            yield fault(setting, "server", f"{setting} is {most}, and {used} are in use", remedy)
        else:
            yield ok(setting, "server", f"{setting} is {most}, and {used} are in use")


def _role(server: Server, allow_superuser: bool) -> Iterator[Finding]:
    role = quote(server.role)
    if server.is_superuser and allow_superuser:
        yield ok("role", server.role, f"role {role} is a superuser, which source.allow_superuser allows")
    elif server.is_superuser:
        message = f"role {role} is a superuser; the watcher needs far less"
        yield warning("superuser", server.role, message, "CREATE ROLE watcher LOGIN REPLICATION PASSWORD '…';")
    elif not server.has_replication:
        grant = to_replicate(server.provider, server.role)
        yield fault("replication_privilege", server.role, f"role {role} may not replicate", grant)
    else:
        yield ok("role", server.role, f"role {role} may replicate")


def _recovery(server: Server) -> Iterator[Finding]:
    if server.in_recovery:
        message = "this server is a standby: no publication can be created here"
        yield fault("standby", "server", message, "point the DSN at the primary")


def _limits(server: Server, max_wal_bytes: int | None) -> Iterator[Finding]:
    if server.max_slot_wal_keep_bytes is None:
        message = "max_slot_wal_keep_size has no limit: if the watcher stays away, WAL fills the server's disk"
        remedy = to_change(server.provider, "max_slot_wal_keep_size", "10GB")
        yield warning("max_slot_wal_keep_size", "server", message, remedy)
    elif max_wal_bytes is not None and server.max_slot_wal_keep_bytes < max_wal_bytes:
        megabytes = -(-max_wal_bytes // (1 << 20))
        message = (
            f"max_slot_wal_keep_size is {server.max_slot_wal_keep_bytes >> 20} MB, below source.max_wal_bytes "
            f"({megabytes} MB): PostgreSQL gives up the slot before the alarm"
        )
        remedy = to_change(server.provider, "max_slot_wal_keep_size", f"{megabytes}MB")
        yield warning("max_slot_wal_keep_size", "server", message, remedy)
    seconds = server.idle_slot_timeout_seconds
    if seconds is not None and seconds < IDLE_SLOT_TIMEOUT_SECONDS_MIN:
        message = f"idle_replication_slot_timeout is {seconds:.0f} s: a watcher away for longer loses its slot"
        remedy = to_change(server.provider, "idle_replication_slot_timeout", "3d")
        yield warning("idle_replication_slot_timeout", "server", message, remedy)


def _caution(server: Server) -> Iterator[Finding]:
    if server.wal_sender_timeout_seconds == 0:
        message = "wal_sender_timeout is 0: after a network failure the slot stays in use until TCP itself gives up"
        yield warning("wal_sender_timeout", "server", message, to_change(server.provider, "wal_sender_timeout", "60s"))
    large = f"{server.decoding_work_mem_bytes >> 20} MB (logical_decoding_work_mem)"
    yield ok("logical_decoding_work_mem", "server", f"a transaction larger than {large} comes while it is in progress")
    if server.max_prepared_transactions:
        message = (
            "a prepared transaction is delivered at its COMMIT PREPARED; one that is left open is told in the status"
        )
        yield ok("max_prepared_transactions", "server", message)


def _synchronous(server: Server) -> Iterator[Finding]:
    for name in standby_names(server.synchronous_standby_names):
        if name == "*" or name.lower().startswith(APPLICATION_NAME):
            message = f"synchronous_standby_names names {name!r}: the application's commits would wait for the watcher"
            remedy = to_change(server.provider, "synchronous_standby_names", "…", note=" -- name the standbys")
            yield fault("synchronous_standby_names", "server", message, remedy)
            return
