"""Which settings of `[source]` belong to which kind of source, and what is wrong with those of a kind. Pure."""

from __future__ import annotations

from backend_watcher.errors import ConfigError
from backend_watcher.events.message import OWN
from backend_watcher.postgres.names import NAME_BYTES_MAX, parse_name
from backend_watcher.postgres.outbox import CHANNEL
from backend_watcher.service.config_secrets import show
from backend_watcher.service.config_settings import SourceSettings, right_would_be

EVERY_KIND = frozenset({"dsn", "kind"})
OF_KIND = {
    "logical": frozenset(
        {
            "slot",
            "publication",
            "heartbeat_seconds",
            "max_wal_bytes",
            "streaming",
            "max_spill_bytes",
            "ddl_triggers",
            "schema_changes",
            "allow_superuser",
            "prepared_seconds_max",
        }
    ),
    "outbox": frozenset({"outbox_notify", "outbox_poll_seconds", "outbox_table"}),
    "notify": frozenset({"channels"}),
}


def faults_of_kind(source: SourceSettings) -> dict[str, str]:
    """Say, by the setting, what is set that the kind has no use for, and what it lacks."""
    faults: dict[str, str] = {}
    for name in sorted(source.model_fields_set - EVERY_KIND - OF_KIND[source.kind]):
        kind = next(kind for kind, names in OF_KIND.items() if name in names)
        faults[name] = (
            f"is for kind = {show('kind', kind)}, and source.kind is {show('kind', source.kind)}; take it out"
        )
    if source.kind == "notify" and "channels" not in faults:
        faults |= _channels(source)
    if source.kind == "outbox" and source.outbox_table is not None:
        try:
            parse_name(source.outbox_table)
        except ConfigError as error:
            faults["outbox_table"] = error.faults[0]
    return faults


def _channels(source: SourceSettings) -> dict[str, str]:
    channels = source.channels or []
    if not channels:
        return {"channels": f"is missing: nothing would be heard{right_would_be('channels', SourceSettings)}"}
    for channel in channels:
        if channel.startswith(OWN) or channel == CHANNEL:
            return {"channels": f"{show('channels', channel)} is a channel of the watcher's own; name another"}
        if not channel or "\0" in channel or len(channel.encode()) > NAME_BYTES_MAX:
            return {"channels": f"{show('channels', channel)} is not a channel; it is 1 to {NAME_BYTES_MAX} bytes"}
    if len(set(channels)) != len(channels):
        return {"channels": "names a channel twice"}
    return {}
