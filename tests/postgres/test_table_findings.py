"""Which finding comes of which facts; that the facts are right is tested on a server, in test_preflight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backend_watcher.postgres.catalog import Found, TableFacts
from backend_watcher.postgres.findings import Finding, Level, Wish
from backend_watcher.postgres.identity import ALL_OPERATIONS
from backend_watcher.postgres.publications import PublicationFacts, PublishedTable
from backend_watcher.postgres.table_findings import judge_publication, judge_tables

from .test_identity import HARMED, TABLE
from .test_server_findings import SERVER, bad

_PUBLISHED = PublishedTable(TABLE.oid, "public", "t", "public.t", True, True, False, None)
_PUBLICATION = PublicationFacts(1, "p", False, True, ALL_OPERATIONS, "watcher", True, (_PUBLISHED,))
_INSERTS = Wish(updates=False, deletes=False)


def _tables(table: TableFacts, wish: Wish, publication: PublicationFacts | None = None) -> dict[str, Finding]:
    return bad(judge_tables(Found({"t": table}, {}), {"t": wish}, publication, SERVER))


def _publication(publication: PublicationFacts | None, table: TableFacts = TABLE, **facts: Any) -> dict[str, Finding]:
    server = replace(SERVER, **{name: value for name, value in facts.items() if name != "slot_exists"})
    found = Found({"t": table}, {})
    slot_exists = facts.get("slot_exists", False)
    return bad(judge_publication("p", publication, found, {"t": Wish()}, server, slot_exists))


def test_a_healthy_table_has_no_faults() -> None:
    assert _tables(TABLE, Wish()) == {}
    assert _publication(None) == {}
    assert _publication(_PUBLICATION) == {}


def test_an_identity_is_needed_only_where_updates_are_published() -> None:
    assert list(_tables(HARMED, Wish())) == ["replica_identity"]
    assert list(_tables(HARMED, _INSERTS)) == ["no_primary_key"]
    # The publication that is there sends updates for every one of its tables, wished or not.
    assert list(_tables(HARMED, _INSERTS, _PUBLICATION)) == ["replica_identity"]


def test_one_subscription_that_wishes_updates_decides_for_all_tables() -> None:
    other = replace(TABLE, oid=20001, name="u", quoted="public.u")
    found = Found({"t": HARMED, "u": other}, {})
    assert list(bad(judge_tables(found, {"t": _INSERTS, "u": Wish()}, None, SERVER))) == ["replica_identity"]


@pytest.mark.parametrize(
    ("facts", "code", "level"),
    [
        ({"kind": "v"}, "not_publishable", Level.FAULT),
        ({"kind": "?"}, "not_publishable", Level.FAULT),
        ({"is_system": True}, "not_publishable", Level.FAULT),
        ({"persistence": "u"}, "not_publishable", Level.FAULT),
        ({"persistence": "t"}, "not_publishable", Level.FAULT),
        ({"can_select": False}, "select_privilege", Level.WARNING),
        ({"row_security": True}, "row_security", Level.WARNING),
        ({"primary_key": (), "replica_identity": "f"}, "no_primary_key", Level.WARNING),
        ({"deferrable_key": "t_pkey", "replica_identity": "f"}, "deferrable_key", Level.WARNING),
        ({"partition_root": "public.t"}, "partition_of_watched", Level.WARNING),
    ],
)
def test_each_finding_of_a_table(facts: dict[str, Any], code: str, level: Level) -> None:
    found = _tables(replace(TABLE, **facts), Wish())
    assert [(finding.code, finding.level) for finding in found.values()] == [(code, level)]


def test_old_values_are_missed_only_where_somebody_compares_them() -> None:
    assert list(_tables(TABLE, Wish(old_values=True))) == ["old_values"]
    assert _tables(replace(TABLE, without_old_values=()), Wish(old_values=True)) == {}


def test_a_publication_that_has_to_be_created() -> None:
    assert list(_publication(None, slot_exists=True)) == ["publication_missing"]
    assert list(_publication(None, can_create=False)) == ["create_privilege"]
    assert list(_publication(None, replace(TABLE, owned=False), can_create=False)) == ["table_owner"]


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"operations": frozenset({"insert"})}, "publication_operations"),
        ({"tables": (), "owned": False}, "publication_tables"),
        ({"all_tables": True}, "publication_all_tables"),
        ({"tables": (replace(_PUBLISHED, row_filter="(id > 5)"),)}, "publication_filter"),
        ({"tables": (replace(_PUBLISHED, has_column_list=True),)}, "publication_filter"),
    ],
)
def test_each_finding_of_a_publication(facts: dict[str, Any], code: str) -> None:
    assert list(_publication(replace(_PUBLICATION, **facts))) == [code]


def test_what_the_watcher_can_mend_itself_is_no_fault() -> None:
    assert _publication(replace(_PUBLICATION, tables=())) == {}


def test_a_partitioned_table_is_sent_under_its_own_name() -> None:
    root = replace(TABLE, kind="p")
    assert list(_publication(replace(_PUBLICATION, via_root=False), root)) == ["publication_via_root"]
    assert _publication(_PUBLICATION, root) == {}
