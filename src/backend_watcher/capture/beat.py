"""When the next heartbeat is due, and when it may as well go along with a question that is asked anyway. Pure."""

from __future__ import annotations

EARLY_SHARE = 0.5
"""A heartbeat may come early by so much of its interval where it costs no query of its own."""


class Beat:
    """Knows when the last one was. Monotonic seconds."""

    def __init__(self, interval_seconds: float, now: float) -> None:
        self._interval = interval_seconds
        self._last = now

    def may_go_along(self, now: float) -> bool:
        """Say whether one is to go with a question that is asked now."""
        return now - self._last >= self._interval * EARLY_SHARE

    def wait_seconds(self, now: float) -> float:
        """Return how long until one is due by itself; 0 when it is."""
        return max(0.0, self._last + self._interval - now)

    def sent(self, now: float) -> None:
        """Note one."""
        self._last = now
