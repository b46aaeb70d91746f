"""Who runs the server is told from facts, and each has its own way of changing a setting."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.postgres import preflight
from backend_watcher.postgres.connect import connect
from backend_watcher.postgres.findings import Level
from backend_watcher.postgres.providers import (
    MARKER_ROLES,
    MARKER_SETTINGS,
    PROVIDERS,
    Hints,
    pooled,
    provider_of,
    to_change,
    to_make_logical,
    to_replicate,
)
from backend_watcher.postgres.server_findings import judge_provider, judge_server

from .conftest import make, make_role
from .test_server_findings import SERVER, bad

SEEN = {
    "rds": Hints(frozenset({"rds.logical_replication"}), frozenset({"rds_superuser", "rds_replication"})),
    "cloudsql": Hints(frozenset({"cloudsql.logical_decoding"}), frozenset({"cloudsqlsuperuser"}), "10.1.2.3"),
    "azure": Hints(frozenset({"azure.extensions"}), frozenset({"azure_pg_admin", "azuresu"})),
    "supabase": Hints(roles=frozenset({"supabase_admin"}), host="db.abc.supabase.co"),
    "neon": Hints(frozenset({"neon.tenant_id"}), frozenset({"neon_superuser"}), "ep-a.eu-central-1.aws.neon.tech"),
    "patroni": Hints(patroni=True),
    None: Hints(host="db.example.com"),
}
"""What each of them shows of itself."""


@pytest.mark.parametrize("key", SEEN)
def test_each_is_known_by_what_it_shows(key: str | None) -> None:
    assert provider_of(SEEN[key]) == key
    assert set(SEEN) == {None, *PROVIDERS}


@pytest.mark.parametrize("key", PROVIDERS)
def test_any_one_mark_is_enough(key: str) -> None:
    provider = PROVIDERS[key]
    for setting in provider.settings:
        assert provider_of(Hints(settings=frozenset({setting}))) == key
    for role in provider.roles:
        assert provider_of(Hints(roles=frozenset({role}))) == key
    for host in provider.hosts:
        assert provider_of(Hints(host=f"Some{host.upper()}")) == key
        assert provider_of(Hints(host=f"some{host}.example.com")) is None


def test_what_the_server_shows_counts_more_than_a_name() -> None:
    assert provider_of(Hints(roles=frozenset({"azuresu"}), host="x.rds.amazonaws.com")) == "azure"
    assert provider_of(replace(SEEN["rds"], patroni=True)) == "rds"


@given(
    st.builds(
        Hints,
        st.frozensets(st.sampled_from(MARKER_SETTINGS)),
        st.frozensets(st.sampled_from(MARKER_ROLES)),
        st.sampled_from(["", "x", *(host for one in PROVIDERS.values() for host in one.hosts)]),
        st.booleans(),
    )
)
def test_somebody_is_named_exactly_where_something_is_shown(hints: Hints) -> None:
    shown = bool(hints.settings or hints.roles or hints.host not in ("", "x") or hints.patroni)
    assert (provider_of(hints) is not None) == shown


@pytest.mark.parametrize(
    ("host", "who"),
    [
        ("shop.proxy-abc123.eu-central-1.rds.amazonaws.com", "RDS Proxy"),
        ("aws-0-eu-central-1.pooler.supabase.com", "Supabase's pooler"),
        ("ep-cool-1-pooler.eu-central-1.aws.neon.tech", "Neon's pooler"),
        ("EP-COOL-1-POOLER.eu.aws.neon.tech", "Neon's pooler"),
        ("shop.abc123.eu-central-1.rds.amazonaws.com", None),
        ("db.abc.supabase.co", None),
        ("ep-cool-1.eu-central-1.aws.neon.tech", None),
        ("my-pooler.example.com", None),
    ],
)
def test_known_names_of_poolers(host: str, who: str | None) -> None:
    found = pooled(host)
    assert (found[0] if found else None) == who


@pytest.mark.parametrize(
    ("key", "logical", "change", "replicate"),
    [
        (None, "ALTER SYSTEM SET wal_level", "ALTER SYSTEM SET max_wal_senders = 20;", 'ALTER ROLE "w" REPLICATION;'),
        (
            "rds",
            "rds.logical_replication = 1",
            "max_wal_senders = 20 in the parameter group; then reboot",
            "GRANT rds_",
        ),
        ("cloudsql", "cloudsql.logical_decoding = on", "the flag max_wal_senders = 20; then restart", "cloudsqlsuper"),
        ("azure", "server parameter wal_level = logical; then", "parameter max_wal_senders = 20", "azure_pg_admin"),
        ("supabase", "postgres-config update", "--config max_wal_senders=20; then restart", "only postgres itself"),
        ("neon", "Neon project", "support", "Neon console"),
        ("patroni", "patronictl edit-config", "max_wal_senders=20; then patronictl restart", 'ALTER ROLE "w"'),
    ],
)
def test_each_has_its_own_remedies(key: str | None, logical: str, change: str, replicate: str) -> None:
    facts = replace(SERVER, provider=key, role="w", wal_level="replica", has_replication=False, used_wal_senders=10)
    found = bad(judge_server(facts, None))
    assert logical in found["wal_level"].remedy == to_make_logical(key)
    assert change in found["max_wal_senders"].remedy == to_change(key, "max_wal_senders", 20, restart=True)
    assert replicate in found["replication_privilege"].remedy == to_replicate(key, "w")
    managed = replace(facts, max_slot_wal_keep_bytes=None, idle_slot_timeout_seconds=60.0)
    said = " ".join(finding.remedy for finding in judge_server(managed, None))
    assert ("ALTER SYSTEM" in said) == (key is None), said


@pytest.mark.parametrize("key", PROVIDERS)
def test_what_is_special_is_noted(key: str) -> None:
    (note, *more) = judge_provider(key, 180_000, "s", "shop")
    assert (note.level, more) == (Level.OK, [])
    assert PROVIDERS[key].name in note.message
    assert note.message.isprintable()


def test_a_slot_that_no_failover_keeps_is_a_warning() -> None:
    (_, found) = judge_provider("patroni", 160_004, "watcher_shop", "shop")
    assert (found.level, found.code) == (Level.WARNING, "patroni_slot")
    assert "slots.watcher_shop.database=shop" in found.remedy
    assert list(judge_provider(None, 160_004, "s", "shop")) == []


async def test_a_server_that_looks_like_one_of_them() -> None:
    """Roles and settings of these names can be made anywhere, and so can a session that is called like Patroni's."""
    settings = {"rds.logical_replication": "off", "wal_level": "replica", "max_slot_wal_keep_size": "1GB"}
    with EmbeddedPostgres(settings=settings) as server:
        async with await connect(server.dsn, purpose="test") as conn:
            weak = await make_role(conn, server.dsn, "")
            await make(conn, "CREATE ROLE rds_replication", "CREATE PUBLICATION p")

            async def remedies(dsn: str) -> dict[str, str]:
                report = await preflight.check(dsn, slot="s", publication="p", tables={})
                return {finding.code: finding.remedy or finding.message for finding in report.findings}

            found = await remedies(weak)
            assert "this is Amazon RDS or Aurora" in found["provider"]
            assert "set rds.logical_replication = 1 in the parameter group" in found["wal_level"]
            assert found["replication_privilege"] == 'GRANT rds_replication TO "watcher";'
            await make(conn, found["replication_privilege"])
            assert "replication_privilege" not in {c for c, r in (await remedies(weak)).items() if "GRANT" in r}
            await make(conn, "CREATE ROLE neon_superuser")
            assert "this is Neon" in (await remedies(weak))["provider"]
            await make(conn, "DROP ROLE neon_superuser", "CREATE ROLE supabase_admin")
            assert "supabase postgres-config" in (await remedies(weak))["wal_level"]


async def test_a_server_of_patronis(dsn: str) -> None:
    async with await connect(dsn, purpose="test") as conn:
        report = await preflight.check(dsn, slot="s", publication="p", tables={})
        assert "provider" not in {finding.code for finding in report.findings}
        await conn.execute("SET application_name = 'Patroni heartbeat'")
        report = await preflight.check(dsn, slot="s", publication="p", tables={})
        (found,) = [finding for finding in report.findings if finding.code == "provider"]
        assert "Patroni" in found.message
