"""Why a table would be harmed, and the statement that mends it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend_watcher.postgres.catalog import TableFacts
from backend_watcher.postgres.identity import fault_of, mend_of, mend_old_values, needs_identity

TABLE = TableFacts(
    oid=20000,
    schema="public",
    name="t",
    quoted="public.t",
    kind="r",
    persistence="p",
    is_system=False,
    primary_key=("id",),
    replica_identity="d",
    unidentified=(),
    without_old_values=("public.t",),
    candidate_index=None,
    columns=(),
    owner="shop",
    owned=True,
    can_select=True,
    row_security=False,
    is_partition=False,
    partition_root=None,
)
HARMED = replace(TABLE, unidentified=("public.t",), primary_key=())
_KEYED = replace(HARMED, primary_key=("id",))


def test_only_updates_and_deletes_ask_for_an_identity() -> None:
    assert needs_identity({"insert", "update"})
    assert needs_identity({"delete"})
    assert not needs_identity({"insert", "truncate"})


@pytest.mark.parametrize(
    ("table", "why", "mend"),
    [
        (HARMED, "it has no primary key", "public.t REPLICA IDENTITY FULL; -- a PRIMARY KEY would be better"),
        (
            replace(HARMED, candidate_index="i 1"),
            "it has no primary key",
            'public.t REPLICA IDENTITY USING INDEX "i 1";',
        ),
        (_KEYED, "its primary key is deferrable", "public.t REPLICA IDENTITY FULL;"),
        (
            replace(HARMED, primary_key=("id",), replica_identity="n"),
            "is NOTHING",
            "public.t REPLICA IDENTITY DEFAULT;",
        ),
        (replace(_KEYED, replica_identity="i"), "is gone", "public.t REPLICA IDENTITY DEFAULT;"),
    ],
)
def test_why_a_table_would_be_harmed_and_what_mends_it(table: TableFacts, why: str, mend: str) -> None:
    assert why in fault_of(table)
    assert mend_of(table) == f"ALTER TABLE {mend}"


def test_partitions_are_named_and_mended_one_by_one() -> None:
    parts = tuple(f"public.p{number}" for number in range(7))
    table = replace(TABLE, kind="p", unidentified=parts, without_old_values=parts[:2])
    assert "(in public.p0, public.p1, public.p2, public.p3, public.p4 and 2 more)" in fault_of(table)
    assert mend_of(table).count("ALTER TABLE") == 7
    assert mend_old_values(table) == (
        "ALTER TABLE public.p0 REPLICA IDENTITY FULL; ALTER TABLE public.p1 REPLICA IDENTITY FULL;"
    )
