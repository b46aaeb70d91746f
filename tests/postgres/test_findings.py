"""Reports, and what they raise."""

from __future__ import annotations

import pytest

from backend_watcher.errors import PreflightFailed, SourceUnavailable
from backend_watcher.postgres.findings import Report, Wish, fault, ok, warning, wished_operations


def test_a_report_raises_what_stands_in_the_way() -> None:
    bad, worse = fault("a", "server", "it is wrong", "MEND IT;"), fault("b", "server", "it is worse", "")
    report = Report((ok("c", "server", "fine"), bad, warning("d", "server", "careful", ""), worse))
    assert report.faults == (bad, worse)
    assert [finding.code for finding in report.warnings] == ["d"]
    with pytest.raises(PreflightFailed) as caught:
        report.raise_if_faulty()
    assert caught.value.faults == ["it is wrong. Mend it with: MEND IT;", "it is worse"]


def test_a_report_without_faults_raises_nothing() -> None:
    Report((ok("a", "server", "fine"), warning("b", "server", "careful", "MEND IT;"))).raise_if_faulty()


def test_a_server_that_is_away_is_not_a_server_that_is_wrong() -> None:
    away = SourceUnavailable("away")
    with pytest.raises(SourceUnavailable):
        Report((fault("connection", "server", "away", ""),), away).raise_if_faulty()


def test_one_publication_sends_what_any_subscription_wishes() -> None:
    inserts = Wish(updates=False, deletes=False)
    assert wished_operations([]) == {"insert", "truncate"}
    assert wished_operations([inserts]) == {"insert", "truncate"}
    assert wished_operations([inserts, Wish(deletes=False)]) == {"insert", "update", "truncate"}
    assert wished_operations([Wish()]) == {"insert", "update", "delete", "truncate"}
