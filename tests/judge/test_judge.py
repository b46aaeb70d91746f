"""The judge itself: its mirror, its comparison, and where it looks for the regression SQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend_watcher.events.position import Position
from backend_watcher.events.row import UNCHANGED
from backend_watcher.testing.builders import change, table

from .compare import SourceTable, difference
from .mirror import Mirror, Seen, image_of, kept
from .regress import SOURCE_SETTING, NoRegress, find_install, find_source, program_of, with_sources
from .run import PLANS, Verdict, lines

TABLE = SourceTable(7, "public.t", "public.t", "public.root", ["a", "b"])
FULL = table("public.t", {"a": "text", "b": "text"}, (), replica_identity="f", relation_oid=7)
KEYED = table("public.k", {"id": "int4", "b": "text"}, ("id",), relation_oid=8)


def image(**texts: str) -> str:
    return image_of((name, text.encode()) for name, text in texts.items())


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    made = Mirror(tmp_path / "mirror")
    yield made
    made.close()


def test_equal_rows_are_counted_and_one_of_them_goes(mirror: Mirror) -> None:
    row = {"a": "1", "b": "x"}
    mirror.apply([change("insert", FULL, new=row, lsn=lsn) for lsn in (1, 2, 3)])
    mirror.apply([change("update", FULL, new={"a": "2", "b": UNCHANGED}, old=row, lsn=4)])
    mirror.apply([change("delete", FULL, old=row, lsn=5)])
    assert mirror.tables()[7] == Seen("public.t", {image(a="1", b="x"): 1, image(a="2", b="x"): 1})
    assert mirror.has_row("public.t")


def test_what_comes_again_is_applied_once(mirror: Mirror, tmp_path: Path) -> None:
    changes = [change("insert", FULL, new={"a": "1"}, lsn=9, ordinal=number) for number in (0, 1)]
    mirror.apply(changes)
    mirror.apply(changes)
    assert (mirror.place, mirror.tables()[7].rows) == (Position(9, 1), {image(a="1"): 2})
    again = Mirror(tmp_path / "mirror")
    assert (again.place, again.tables()) == (mirror.place, mirror.tables())
    again.close()


def test_without_an_old_row_the_key_finds_it(mirror: Mirror) -> None:
    mirror.apply([change("insert", KEYED, new={"id": key, "b": "x"}, lsn=key) for key in (1, 2, 3)])
    mirror.apply(
        [change("update", KEYED, new={"id": 1, "b": "y"}, lsn=4), change("delete", KEYED, old={"id": 2}, lsn=5)]
    )
    mirror.apply([change("update", KEYED, new={"id": 4, "b": "z"}, old={"id": 3}, lsn=6)])
    assert set(mirror.tables()[8].rows) == {image(id="1", b="y"), image(id="4", b="z")}


def test_a_truncate_and_a_dropped_column(mirror: Mirror) -> None:
    mirror.apply([change("insert", FULL, new={"a": "1", "b": "x"}, lsn=1)])
    narrow = table("public.t", {"a": "text"}, (), replica_identity="f", relation_oid=7)
    mirror.apply([change("delete", narrow, old={"a": "1"}, lsn=2)])
    assert mirror.tables()[7].rows == {}
    mirror.apply([change("insert", narrow, new={"a": "1"}, lsn=3), change("truncate", narrow, lsn=4)])
    mirror.apply([change("insert", narrow, new={"a": "2"}, lsn=5)])
    assert mirror.tables()[7].rows == {image(a="2"): 1}


@pytest.mark.parametrize(
    ("rows", "mirrored", "said"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({}, None, None),
        ({"a": 2}, {"a": 1}, (1, 0)),
        ({}, {"a": 1}, (0, 1)),
        ({}, {"a": -1}, (1, 0)),
        ({"a": 1}, None, (1, 0)),
    ],
)
def test_a_comparison(rows: dict[str, int], mirrored: dict[str, int] | None, said: tuple[int, int] | None) -> None:
    source = Counter({image(a=text): count for text, count in rows.items()})
    seen = None if mirrored is None else Seen("public.t", {image(a=text): count for text, count in mirrored.items()})
    found = difference(TABLE, source, seen)
    assert (found and (found.missing, found.extra)) == said
    assert found is None or found.told_as == "public.root"


def test_a_column_the_source_dropped_is_no_difference_and_one_it_got_is() -> None:
    source = Counter({image(a="1", b="new"): 1})
    assert difference(TABLE, source, Seen("public.t", {image(a="1", b="new", gone="x"): 1})) is None
    found = difference(TABLE, source, Seen("public.t", {image(a="1"): 1}))
    assert found is not None
    assert found.words == "1 rows missing, 1 too many; b in the source only"
    assert kept(image(a="1", b="2"), ["b"]) == image(b="2")


def test_bytes_that_are_no_text_keep_their_identity() -> None:
    assert image_of([("a", b"\xff")]) != image_of([("a", b"\xfe")])
    assert image_of([("a", None)]) == image_of([]) != image_of([("a", b"")])


def test_a_difference_nobody_told_of_fails_the_run() -> None:
    (plan,) = [one for one in PLANS.values() if one.kills]
    good = Verdict(
        plan.name, 533, 520, 400_000, [{"table": "t", "why": "1 rows missing", "told": ["rewritten: was rewritten"]}]
    )
    bad = Verdict(plan.name, 533, 520, 400_000, [{"table": "t", "why": "1 rows missing", "told": []}])
    assert (good.passed(True), bad.passed(True), bad.passed(False), bad.untold) == (True, False, True, ["t"])
    assert not Verdict(plan.name).passed(False)
    assert not Verdict(plan.name, 533, 515, 400_000).passed(False)
    assert not Verdict(plan.name, 533, 533, 17).passed(False)
    assert "NOT TOLD" in lines(bad)[-1]


def test_without_the_regression_sql_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SOURCE_SETTING, raising=False)
    with pytest.raises(NoRegress, match="apt install postgresql"):
        find_install(tmp_path)
    with pytest.raises(NoRegress, match="is not in"):
        find_source(tmp_path, "15")
    place = tmp_path / "postgresql-15.18/src/test/regress"
    (place / "sql").mkdir(parents=True)
    for name in ("parallel_schedule", "regress.c", "sql/test_setup.sql"):
        (place / name).write_text("")
    assert find_source(tmp_path, "15") == place
    monkeypatch.setenv(SOURCE_SETTING, str(tmp_path))
    with pytest.raises(NoRegress, match=SOURCE_SETTING):
        find_source(tmp_path, "15")


def test_the_newest_install_that_has_everything_is_taken(tmp_path: Path) -> None:
    for major in ("9", "15", "16"):
        (tmp_path / major / "bin").mkdir(parents=True)
        (tmp_path / major / "bin/psql").write_text("")
    for major in ("9", "15"):
        program_of(tmp_path / major).parent.mkdir(parents=True)
        program_of(tmp_path / major).write_text("")
    assert find_install(tmp_path).name == "15"


def test_sources_are_asked_for_in_both_forms_of_a_list() -> None:
    assert with_sources("deb http://x y main\n# deb\n") == "deb http://x y main\ndeb-src http://x y main\n# deb\n"
    assert with_sources("Types: deb\nURIs: http://x\n") == "Types: deb deb-src\nURIs: http://x\n"
