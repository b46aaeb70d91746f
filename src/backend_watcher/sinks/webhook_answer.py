"""
What an HTTP answer means for the change that was sent. Pure.

| answer             | meaning |
|--------------------|---------|
| 2xx                | delivered |
| 3xx                | failed; a redirect is never followed |
| 410                | the receiver wants no more: a person decides |
| 413                | rejected: too large, now and later |
| 429, 502, 503, 504 | unavailable: every change would meet this; again after Retry-After |
| any other          | failed, perhaps for this change only |

Nothing of the answer's body is in a message: whoever runs the receiver could write there what he likes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from yarl import URL

from backend_watcher.errors import SinkError, SinkFailed, SinkGone, SinkRejected, SinkUnavailable

RETRY_AFTER_SECONDS_MAX = 3600.0
"""No receiver may hold up a subscription for longer than this by what it answers."""

_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")


def judge(receiver: str, status: int, headers: Mapping[str, str], now: float) -> SinkError | None:
    """Return what is wrong, None if the change is delivered. `now` in seconds since 1970."""
    if 200 <= status <= 299:
        return None
    said = f"{receiver}: answered {status}"
    if status == 410:
        return SinkGone(f"{said}: it wants no more")
    if status == 413:
        return SinkRejected(f"too_large: {said}", remedy="Send fewer columns, or let the receiver take larger ones.")
    if status in (429, 502, 503, 504):
        return SinkUnavailable(said, after_seconds=retry_after(headers.get("Retry-After"), now))
    if 300 <= status <= 399:
        return SinkFailed(
            f"{said}: it points to {_place(headers.get('Location'))}, and redirects are not followed",
            remedy="Make the address where it ends up the sink's url.",
        )
    return SinkFailed(said, after_seconds=retry_after(headers.get("Retry-After"), now))


def retry_after(text: str | None, now: float) -> float | None:
    """Read a Retry-After, seconds or a date, as seconds from now within bounds; None for what is neither."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        # More digits than a float is asked to read: it is the bound anyway.
        return min(float(text[:12]), RETRY_AFTER_SECONDS_MAX)
    try:
        moment = parsedate_to_datetime(text[:64])
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(moment.timestamp() - now, 0.0), RETRY_AFTER_SECONDS_MAX)


def _place(location: str | None) -> str:
    """Name the host of a Location: the rest may hold what nobody should read in a log."""
    if not location:
        return "nowhere"
    try:
        url = URL(location)
        host = url.raw_host if url.absolute else "another path of its own"
    except ValueError:
        host = None
    if host == "another path of its own":
        return host
    return host if host and _HOST.fullmatch(host) else "a place that cannot be read"
