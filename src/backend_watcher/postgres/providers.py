"""
Who runs the server, and how a setting or a right is changed there. Pure: facts in, statements out.

A managed PostgreSQL refuses ALTER SYSTEM, and some grant the right to replicate in a way of their own. What tells them
apart is on the server itself: settings and roles that exist nowhere else. A host name is only a hint.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend_watcher.postgres.names import quote


@dataclass(frozen=True, slots=True)
class Hints:
    """What was found of MARKER_SETTINGS and MARKER_ROLES; `patroni` says that a session of Patroni's is there."""

    settings: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    host: str = ""
    patroni: bool = False


@dataclass(frozen=True, slots=True)
class Provider:
    """
    One of them. `change` holds {name} and {value}, `replicate` holds {role}.

    `restart` is how a setting that PostgreSQL reads only when it starts comes into force.
    """

    name: str
    settings: tuple[str, ...]
    roles: tuple[str, ...]
    hosts: tuple[str, ...]
    logical: str
    change: str
    restart: str
    replicate: str
    notes: tuple[str, ...] = ()


_ATTRIBUTE = "ALTER ROLE {role} REPLICATION;"
PROVIDERS = {
    "neon": Provider(
        "Neon",
        ("neon.tenant_id", "neon.timeline_id"),
        ("neon_superuser",),
        (".neon.tech",),
        "switch logical replication on in the settings of the Neon project",
        "ask Neon's support for {name} = {value}",
        "",
        "ALTER ROLE {role} REPLICATION; -- as a role made in the Neon console",
        (
            "a slot that is not read for about 40 hours is removed while another one is read",
            "restoring a branch deletes its slots",
            "a watcher that reads keeps the compute awake",
        ),
    ),
    "supabase": Provider(
        "Supabase",
        (),
        ("supabase_admin",),
        (".supabase.co", ".supabase.com"),
        "supabase postgres-config update --config wal_level=logical",
        "supabase postgres-config update --config {name}={value}",
        "then restart the project",
        "ALTER ROLE {role} REPLICATION; -- as postgres; below PostgreSQL 17 only postgres itself may replicate",
        (
            "the direct connection carries replication, the pooler does not; it is IPv6 unless IPv4 was added",
            "max_slot_wal_keep_size is small: a watcher that is away for long loses its slot",
        ),
    ),
    "rds": Provider(
        "Amazon RDS or Aurora",
        ("rds.logical_replication",),
        ("rds_superuser", "rds_replication"),
        (".rds.amazonaws.com",),
        "set rds.logical_replication = 1 in the parameter group (of Aurora: that of the cluster)",
        "set {name} = {value} in the parameter group",
        "then reboot the instance",
        "GRANT rds_replication TO {role};",
        (
            "RDS Proxy carries no replication",
            "a slot that nobody reads fills the storage: watch OldestReplicationSlotLag",
        ),
    ),
    "cloudsql": Provider(
        "Google Cloud SQL",
        ("cloudsql.logical_decoding",),
        ("cloudsqlsuperuser", "cloudsqladmin"),
        (),
        "set the flag cloudsql.logical_decoding = on",
        "set the flag {name} = {value}",
        "then restart the instance",
        "ALTER ROLE {role} REPLICATION; -- as a member of cloudsqlsuperuser",
    ),
    "azure": Provider(
        "Azure Database for PostgreSQL",
        ("azure.extensions", "azure.migration_copy_with_binary"),
        ("azure_pg_admin", "azuresu"),
        (".postgres.database.azure.com",),
        "set the server parameter wal_level = logical",
        "set the server parameter {name} = {value}",
        "then restart the server",
        "ALTER ROLE {role} REPLICATION; -- as a member of azure_pg_admin",
        ("below PostgreSQL 17 slots survive a failover only with the extension pg_failover_slots",),
    ),
    "patroni": Provider(
        "a cluster of Patroni's",
        (),
        (),
        (),
        "patronictl edit-config -p wal_level=logical",
        "patronictl edit-config -p {name}={value}",
        "then patronictl restart",
        _ATTRIBUTE,
    ),
}
"""Checked in this order: Neon and Supabase may run on what another one offers."""

MARKER_SETTINGS = sorted({setting for provider in PROVIDERS.values() for setting in provider.settings})
MARKER_ROLES = sorted({role for provider in PROVIDERS.values() for role in provider.roles})

_POOLED = (
    # What the host name holds, what it ends with, what to name instead.
    (".proxy-", ".rds.amazonaws.com", "RDS Proxy", "the endpoint of the instance or the cluster"),
    (".pooler.", ".supabase.com", "Supabase's pooler", "the direct connection, db.….supabase.co"),
    ("-pooler.", ".neon.tech", "Neon's pooler", "the same host without -pooler"),
)


def provider_of(hints: Hints) -> str | None:
    """Say by its key in PROVIDERS who runs the server; None for PostgreSQL that somebody runs himself."""
    for key, provider in PROVIDERS.items():
        if hints.settings.intersection(provider.settings) or hints.roles.intersection(provider.roles):
            return key
    for key, provider in PROVIDERS.items():
        if hints.host.lower().endswith(provider.hosts or ("\0",)):
            return key
    return "patroni" if hints.patroni else None


def pooled(host: str) -> tuple[str, str] | None:
    """Return whose pooler a host name is known to be, and what to name instead."""
    name = host.lower()
    return next(((who, instead) for holds, end, who, instead in _POOLED if holds in name and name.endswith(end)), None)


def to_change(provider: str | None, name: str, value: str | int, *, restart: bool = False, note: str = "") -> str:
    """Say how a setting is changed on this server."""
    if provider is None:
        literal = str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
        after = " -- then restart PostgreSQL" if restart else " SELECT pg_reload_conf();"
        return f"ALTER SYSTEM SET {name} = {literal};{after}{note}"
    known = PROVIDERS[provider]
    return _then(known.change.format(name=name, value=value), known.restart if restart else "") + note


def to_make_logical(provider: str | None) -> str:
    """Say how wal_level becomes logical on this server."""
    if provider is None:
        return "ALTER SYSTEM SET wal_level = logical; -- then restart PostgreSQL"
    return _then(PROVIDERS[provider].logical, PROVIDERS[provider].restart)


def to_replicate(provider: str | None, role: str) -> str:
    """Say how a role may replicate on this server."""
    return (PROVIDERS[provider].replicate if provider is not None else _ATTRIBUTE).format(role=quote(role))


def _then(what: str, after: str) -> str:
    return f"{what}; {after}" if after else what
