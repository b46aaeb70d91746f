"""Which error of a written-to server is whose fault."""

from __future__ import annotations

import psycopg
import pytest

from backend_watcher.errors import (
    ConfigError,
    SafetyStop,
    SinkError,
    SinkFailed,
    SinkGone,
    SinkRejected,
    SinkUnavailable,
)
from backend_watcher.postgres.replica_errors import blaming_server, is_order, is_refusal, sink_error

KINDS = {
    SinkUnavailable: ["40001", "40P01", "55P03", "08006", "57P01", "57P02", "57P03", "57014", "53100", "25006"],
    SinkFailed: ["23505", "23503", "23P01", "XX000", "0A000"],
    SinkRejected: ["22P02", "22001", "22003", "23502", "23514", "P0001"],
    SinkGone: ["42P01", "42703", "42501", "3F000"],
}


@pytest.mark.parametrize(("kind", "state"), [(kind, state) for kind, states in KINDS.items() for state in states])
def test_the_sqlstate_decides(kind: type[SinkError], state: str) -> None:
    made = sink_error(psycopg.errors.lookup(state)("words"), "there")
    assert type(made) is kind
    assert state in str(made)
    assert made.remedy


def test_a_value_is_never_quoted() -> None:
    made = sink_error(psycopg.errors.InvalidTextRepresentation('invalid input syntax: "secret"'), "there")
    assert "secret" not in str(made)
    assert "InvalidTextRepresentation" in str(made)


def test_what_the_server_did_not_say() -> None:
    assert isinstance(sink_error(psycopg.OperationalError("gone"), "there"), SinkUnavailable)
    assert isinstance(sink_error(ConnectionResetError(), "there"), SinkUnavailable)
    assert isinstance(sink_error(ConfigError(["the DSN is empty"]), "there"), SinkUnavailable)
    assert isinstance(sink_error(KeyError("x"), "there"), SinkFailed)
    ours = SinkRejected("no")
    assert sink_error(ours, "there") is ours
    stop = SafetyStop("no")
    assert sink_error(stop, "there") is stop


def test_the_session_is_kept_where_only_a_value_was_refused() -> None:
    assert is_refusal(psycopg.errors.lookup("22001")())
    assert not is_refusal(psycopg.errors.lookup("57P01")())
    assert is_order(psycopg.errors.lookup("23505")())
    assert not is_order(OSError())


def test_where_no_change_is_looked_at_none_is_to_blame() -> None:
    assert isinstance(blaming_server(psycopg.errors.lookup("XX000")("x"), "there"), SinkUnavailable)
    assert isinstance(blaming_server(psycopg.errors.lookup("42501")("x"), "there"), SinkGone)
