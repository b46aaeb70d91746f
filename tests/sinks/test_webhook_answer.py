"""Every status means one thing, and no more of an answer than that is told."""

from __future__ import annotations

import pytest

from backend_watcher.errors import SinkFailed, SinkGone, SinkRejected, SinkUnavailable
from backend_watcher.sinks.webhook_answer import RETRY_AFTER_SECONDS_MAX, judge, retry_after

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def test_every_status_there_is() -> None:
    special = {410: SinkGone, 413: SinkRejected} | dict.fromkeys((429, 502, 503, 504), SinkUnavailable)
    for status in range(100, 1000):
        error = judge("webhook x", status, {}, NOW)
        if 200 <= status <= 299:
            assert error is None
            continue
        assert type(error) is special.get(status, SinkFailed)
        assert str(status) in str(error)
        assert error.remedy


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("9" * 400, RETRY_AFTER_SECONDS_MAX),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30),
        ("Tuesday, 14-Nov-23 22:13:50 GMT", 30),
        ("Tue, 14 Nov 2023 22:13:50", 30),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_SECONDS_MAX),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("٣", None),
        ("Tue, 99 Nov 2023 99:99:99 GMT", None),
        ("Tue, 14 Nov 99999999999999999999 22:13:50 GMT", None),
    ],
)
def test_retry_after_in_both_forms_and_within_bounds(text: str | None, seconds: float | None) -> None:
    assert retry_after(text, NOW) == seconds
    error = judge("webhook x", 429, {} if text is None else {"Retry-After": text}, NOW)
    assert isinstance(error, SinkUnavailable)
    assert error.after_seconds == seconds


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("https://else.example/where?token=hunter2", "else.example"),
        ("http://169.254.169.254/latest/hunter2", "169.254.169.254"),
        ("https://hunter2:hunter2@else.example/", "else.example"),
        ("/hunter2", "another path of its own"),
        ("", "nowhere"),
        (None, "nowhere"),
        ("https://[hunter2", "a place that cannot be read"),
        ("https://hunter2 \x1b[31m/", "a place that cannot be read"),
    ],
)
def test_a_redirect_is_named_by_its_host_only(location: str | None, said: str) -> None:
    error = judge("webhook x", 302, {} if location is None else {"Location": location}, NOW)
    assert isinstance(error, SinkFailed)
    assert f"points to {said}, and redirects are not followed" in str(error)
    assert "hunter2" not in str(error)
