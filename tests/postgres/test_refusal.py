"""What libpq says of a failed connection, and what we make of it."""

from __future__ import annotations

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import SourceRefused, SourceUnavailable
from backend_watcher.postgres.refusal import explain, place_of

_BEFORE = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '
_NOWHERE = {"host": "127.0.0.1", "port": "1", "user": "certificate", "dbname": "shop", "connect_timeout": "2"}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("FATAL:  the database system is starting up", SourceUnavailable),
        ("FATAL:  the database system is shutting down", SourceUnavailable),
        ("FATAL:  the database system is not yet accepting connections\nDETAIL:  x", SourceUnavailable),
        ("FATAL:  sorry, too many clients already", SourceUnavailable),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", SourceUnavailable),
        ("FATAL:  number of requested standby connections exceeds max_wal_senders (currently 1)", SourceUnavailable),
        ("server closed the connection unexpectedly\n\tThis probably means", SourceUnavailable),
        ("timeout expired", SourceUnavailable),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "u", database "d", no encryption', SourceRefused),
        ('FATAL:  pg_hba.conf rejects connection for host "10.0.0.2"', SourceRefused),
        ("FATAL:  must be superuser or replication role to start walsender", SourceRefused),
        ("FATAL:  unsupported startup parameter: options", SourceRefused),
        ("server does not support SSL, but SSL was required", SourceRefused),
        ("SSL error: certificate verify failed", SourceRefused),
    ],
)
async def test_known_texts(said: str, kind: type[Exception]) -> None:
    error = await explain(psycopg.OperationalError(_BEFORE + said), _NOWHERE)
    assert type(error) is kind
    assert "connection failed" not in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ('FATAL:  role "w" is not permitted to log in', 'ALTER ROLE "certificate" LOGIN;'),
        ('FATAL:  permission denied for database "shop"', 'GRANT CONNECT ON DATABASE "shop" TO "certificate";'),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "w", database "shop", no encryption', "10.0.0.2/32"),
        ('FATAL:  no pg_hba.conf entry for host "fe80::1", user "w", database "shop", SSL encryption', "fe80::1/128"),
        ('FATAL:  pg_hba.conf rejects connection for host "10.0.0.2", user "w", database "d"', '"shop" "certificate"'),
        ("FATAL:  sorry, too many clients already", "max_connections"),
    ],
)
async def test_what_grants_it_is_named(said: str, remedy: str) -> None:
    error = await explain(psycopg.OperationalError(_BEFORE + said), _NOWHERE)
    assert remedy in error.remedy
    nobody = await explain(psycopg.OperationalError(_BEFORE + said), {"host": "h"})
    assert "certificate" not in nobody.remedy


async def test_an_unknown_text_of_a_server_that_is_gone_is_worth_another_try() -> None:
    error = await explain(psycopg.OperationalError("FATAL:  keluhan lain"), _NOWHERE)
    assert isinstance(error, SourceUnavailable)
    assert isinstance(await explain(OSError("?"), _NOWHERE), SourceUnavailable)


async def test_an_unknown_refusal_of_a_server_that_answers_is_a_refusal(server: EmbeddedPostgres) -> None:
    there = psycopg.conninfo.conninfo_to_dict(server.dsn)
    error = await explain(psycopg.OperationalError(f"FATAL:  kata sandi {server.password} salah"), there)
    assert isinstance(error, SourceRefused)
    assert server.password not in error.message
    assert "kata sandi *** salah" in error.message


async def test_an_sqlstate_comes_first() -> None:
    error = await explain(psycopg.errors.TooManyConnections("banyak"), _NOWHERE)
    assert isinstance(error, SourceUnavailable)


def test_a_place_is_named_without_a_host_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    monkeypatch.delenv("PGPORT", raising=False)
    assert place_of({}) == "the local socket:5432"
    assert place_of({"host": "a,b", "port": "1,2"}) == "a,b:1,2"
