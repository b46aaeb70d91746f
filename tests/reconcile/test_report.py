"""What is known of a table, and of all."""

from __future__ import annotations

import json

import pytest

from backend_watcher.events.position import Position
from backend_watcher.reconcile.compare import Difference, Kind
from backend_watcher.reconcile.report import (
    DIFFERENCES_MAX,
    RANGES_KEPT,
    Answer,
    Begun,
    Range,
    TableResult,
    answer_of,
)
from backend_watcher.verifiable import EXPIRED

DRIFT = Difference(b"a:1", Kind.MISSING, b'{"id": 1}', None)


def result(complete: bool = True, differences: int = 0, unsettled: int = 0) -> TableResult:
    made = TableResult("cache", "public.a", complete=complete, differences=[DRIFT] * differences)
    if unsettled:
        made.unsettled["changed all the time"] = unsettled
    return made


@pytest.mark.parametrize(
    ("one", "answer"),
    [
        (result(), Answer.EQUAL),
        (result(unsettled=1), Answer.UNSETTLED),
        (result(complete=False, unsettled=1), Answer.PARTIAL),
        (result(complete=False, differences=1, unsettled=1), Answer.DIFFERENT),
    ],
)
def test_a_table(one: TableResult, answer: Answer) -> None:
    assert one.answer is answer
    assert answer_of([result(), one]) is answer


def test_of_nothing_nothing_is_known() -> None:
    assert answer_of([]) is Answer.PARTIAL


def test_it_is_plain() -> None:
    one = result(differences=2, unsettled=3)
    plain = json.loads(json.dumps(one.as_plain()))
    assert (plain["missing"], plain["extra"], plain["unsettled"]) == (2, 0, {"changed all the time": 3})
    assert plain["differences"][0] == {
        "entry": "a:1",
        "kind": "missing",
        "source": {"id": 1},
        "sink": None,
        "keys": [],
    }
    assert (plain["verdict"], plain["position"], plain["begun"]) == ("different", None, None)


def test_the_keys_of_rows_are_said_where_nothing_masks_them() -> None:
    one = TableResult("cache", "public.a", key=("id", "mail"), begun=Begun(0x1_00000002, Position(1, 7)))
    one.differences = [Difference(b"a:1", Kind.MISSING, b"{}", None, (("1", "ann"), ("2", "bob")))]
    assert one.as_plain()["differences"][0]["keys"] == [["1", "ann"], ["2", "bob"]]
    begun = json.loads(json.dumps(one.as_plain()))["begun"]
    assert begun == {"lsn": "1/2", "journal": "0/1:7"}
    assert Begun.of_plain(begun) == one.begun
    assert Begun.of_plain({"lsn": "1/2", "journal": None}) == Begun(one.begun.lsn, None)
    one.masked = {"note"}
    assert one.as_plain()["differences"][0]["keys"] != []
    one.masked = {"note", "mail"}
    assert one.as_plain()["differences"][0]["keys"] == []


def test_ranges_are_summed_up_and_the_first_of_them_listed() -> None:
    one, part = result(), Range(5)
    part.source.add(b"a", b"1")
    for _ in range(RANGES_KEPT + 1):
        one.took(part)
    assert (one.ranges, one.rows, len(one.listed)) == (RANGES_KEPT + 1, 5 * RANGES_KEPT + 5, RANGES_KEPT)
    assert one.source.count == RANGES_KEPT + 1


def test_what_has_expired_counts_on_neither_side() -> None:
    one = Range(3)
    for wanted, held in ((b"1", b"1"), (b"1", None), (None, b"1"), (b"1", EXPIRED)):
        one.count(b"a", wanted, held)
    assert (one.source.count, one.sink.count) == (2, 2)
    assert one.source == one.sink


def test_so_many_differences_are_enough() -> None:
    assert result(differences=DIFFERENCES_MAX).full
    assert not result(differences=1).full
