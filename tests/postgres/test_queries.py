"""The queries themselves: named, described, used."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from backend_watcher.errors import SourceRefused
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.queries import QUERIES, fetch_all, fetch_one, load_queries


def test_every_query_has_a_name_of_its_own_and_says_what_it_is_for() -> None:
    folder = resources.files("backend_watcher.postgres").joinpath("sql")
    named = sum(file.read_text().count("-- name: ") for file in folder.iterdir() if file.name.endswith(".sql"))
    assert len(load_queries()) == named > 10
    for text in QUERIES.values():
        assert text.startswith(b"-- ")
        lines = [line for line in text.splitlines() if not line.startswith(b"--")]
        assert b"".join(lines).count(b";") == 1


def test_every_query_is_asked_by_somebody() -> None:
    room = resources.files("backend_watcher.postgres")
    code = "".join(file.read_text() for file in room.iterdir() if file.name.endswith(".py"))
    assert [name for name in QUERIES if not re.search(rf'"{name}"', code)] == []


async def test_refusals_come_in_our_words(conn: Connection) -> None:
    with pytest.raises(SourceRefused, match="22P02"):
        await fetch_all(conn, "primary_keys", oids=["x"])
    assert await fetch_one(conn, "slot", name="nonesuch") is None
