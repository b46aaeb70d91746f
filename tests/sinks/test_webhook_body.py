"""The body: a type, a moment, and the outside form of the change, with the columns that were chosen."""

from __future__ import annotations

import json

import pytest

from backend_watcher.errors import ConfigError, SinkRejected
from backend_watcher.events.change import UNCHANGED
from backend_watcher.events.envelope import change_to_json
from backend_watcher.sinks.webhook_body import Body
from backend_watcher.testing import builders

USERS = builders.table("app.users", {"id": "int8", "name": "text", "photo": "text", "price": "numeric"})


def user(**values: object):
    row = {"id": 7, "name": "Ann", "photo": "large", "price": "1.10"} | values
    return builders.change("insert", USERS, new=row, within=builders.transaction(0x1000, 1_700_000_000_500_000))


def test_it_is_the_outside_form_in_an_envelope_of_the_specification() -> None:
    change = user()
    body = Body("{table}.{operation}", None, ()).write(change)
    read = json.loads(body)
    assert list(read) == ["type", "timestamp", "data"]
    assert read["type"] == "users.insert"
    assert read["timestamp"] == read["data"]["commit_time"]
    assert body.endswith(change_to_json(change) + b"}")


def test_a_type_is_made_from_schema_table_and_operation() -> None:
    assert json.loads(Body("{schema}/{table}/{operation}!", None, ()).write(user()))["type"] == "app/users/insert!"
    odd = builders.change("insert", builders.table('public.a"\n{x}'), new={"id": 1})
    assert json.loads(Body("{table}", None, ()).write(odd))["type"] == 'a"\n{x}'


@pytest.mark.parametrize("kind", ["", "{id}", "{}", "{0}", "{table", "table}", "{table.x}", "{table[0]}", "{table!z}"])
def test_a_wrong_type_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"^type: .*right would be"):
        Body(kind, None, ())


def test_columns_are_chosen_and_the_key_is_always_there() -> None:
    data = json.loads(Body("x", ["price"], ()).write(user()))["data"]
    assert (data["new"], data["key"]) == ({"id": 7, "price": "1.10"}, {"id": 7})


def test_excluded_columns_are_nowhere() -> None:
    body = Body("x", None, ["photo"])
    full = builders.table("app.users", {"id": "int8", "name": "text", "photo": "text"}, replica_identity="f")
    old = {"id": 7, "name": "Ann", "photo": "CANARY-old"}
    for change in (
        user(photo="CANARY-new"),
        builders.change("update", full, new=old | {"photo": "CANARY-new"}, old=old),
        builders.change("update", full, new=old | {"id": 8, "photo": "CANARY-new"}, old=old),
        builders.change("delete", full, old=old),
    ):
        text = body.write(change)
        assert b"CANARY" not in text
        assert b"photo" not in text
        assert b"Ann" in text
    assert json.loads(text)["data"]["key"] == {"id": 7}


def test_what_was_not_sent_again_stays_named() -> None:
    data = json.loads(Body("x", ["name", "photo"], ()).write(user(photo=UNCHANGED)))["data"]
    assert (data["new"], data["unchanged"]) == ({"id": 7, "name": "Ann"}, ["photo"])


def test_a_changed_key_and_a_truncate_keep_their_form() -> None:
    body = Body("x", ["name"], ())
    moved = builders.change("update", USERS, new={"id": 8, "name": "Ann"}, old={"id": 7})
    data = json.loads(body.write(moved))["data"]
    assert (data["key"], data["key_before"]) == ({"id": 8}, {"id": 7})
    emptied = json.loads(body.write(builders.change("truncate", USERS)))["data"]
    assert (emptied["new"], emptied["old"]) == (None, None)


def test_a_column_the_table_does_not_have_is_said() -> None:
    for body in (Body("x", ["nome"], ()), Body("x", None, ["nome"])):
        with pytest.raises(SinkRejected, match=r"column_missing: app\.users has no column 'nome'"):
            body.write(user())
        with pytest.raises(SinkRejected, match="column_missing"):
            body.write(user())  # again: the table is not taken for known


def test_a_key_cannot_be_excluded() -> None:
    with pytest.raises(SinkRejected, match=r"key_excluded: app\.users\.id"):
        Body("x", None, ["id"]).write(user())


@pytest.mark.parametrize(
    ("columns", "exclude", "says"),
    [
        ("id", (), "columns: a list"),
        ([], (), "columns: a list"),
        (None, "id", "exclude: a list"),
        (["id"], ["name"], "exclude: there are columns too"),
    ],
)
def test_wrong_choices_are_refused(columns: object, exclude: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Body("x", columns, exclude)
