"""
Whether keys fail because of themselves or because nothing works: pure.

A change is poison only if others pass. Where one key after another fails and none succeeds in between, it looks like an
outage behind the sink (a database that a function needs, an endpoint that answers 500 to everybody): nothing is parked
then, no attempt is counted, and what is next waits instead of failing too.
"""

from __future__ import annotations

OUTAGE_KEYS = 10
"""So many keys that fail, and no success since the first of them, look like an outage."""


class Health:
    """Counts the keys that failed since the last success."""

    def __init__(self) -> None:
        self._failing: set[int] = set()

    @property
    def outage(self) -> bool:
        """Say that nothing seems to work."""
        return len(self._failing) >= OUTAGE_KEYS

    def failed(self, key_number: int) -> None:
        """Note a failure of a held key."""
        self._failing.add(key_number)

    def forget(self, key_number: int) -> None:
        """Note that a held key is no more, or waits for a person."""
        self._failing.discard(key_number)

    def succeeded(self) -> bool:
        """Note a success; say whether it ended an outage."""
        was = self.outage
        self._failing.clear()
        return was
