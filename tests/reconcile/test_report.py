"""What is known of a table, and of all."""

from __future__ import annotations

import json

import pytest

from backend_watcher.reconcile.compare import Difference, Kind
from backend_watcher.reconcile.report import DIFFERENCES_MAX, RANGES_KEPT, Answer, Range, TableResult, answer_of

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
    assert (plain["verdict"], plain["position"]) == ("different", None)


def test_ranges_are_summed_up_and_the_first_of_them_listed() -> None:
    one, part = result(), Range(5)
    part.source.add(b"a", b"1")
    for _ in range(RANGES_KEPT + 1):
        one.took(part)
    assert (one.ranges, one.rows, len(one.listed)) == (RANGES_KEPT + 1, 5 * RANGES_KEPT + 5, RANGES_KEPT)
    assert one.source.count == RANGES_KEPT + 1


def test_so_many_differences_are_enough() -> None:
    assert result(differences=DIFFERENCES_MAX).full
    assert not result(differences=1).full
