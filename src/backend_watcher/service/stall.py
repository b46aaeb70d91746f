"""
Whether a subscription stands still although something waits for it: looks at the flow, not at the process. Pure.

| state   | means                                                                                   |
|---------|-----------------------------------------------------------------------------------------|
| stalled | changes wait, nothing keeps it from delivering them, and the cursor has not moved       |
| stuck   | its event loop does not turn: a function blocks it, and it cannot even be timed out     |
"""

from __future__ import annotations

from dataclasses import dataclass

from backend_watcher.events.position import START, Position

STALLED_SECONDS = 30.0
STUCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Look:
    """
    What is seen of a subscription at a moment. Times are monotonic seconds.

    `patience_seconds` is how long a batch may wait for company; `answered_at` is when its loop last answered.
    """

    now: float
    cursor: Position
    last: Position
    waits_on_purpose: bool
    patience_seconds: float
    answered_at: float


class StallWatch:
    """Remembers when each subscription last moved, and what was said of it."""

    def __init__(self) -> None:
        self._moved: dict[str, tuple[Position, float]] = {}
        self._said: dict[str, str] = {}

    def look(self, name: str, look: Look) -> tuple[str, str] | None:
        """Return the state to be told, with its detail, where it is another one than before; None otherwise."""
        state, detail = self._judge(name, look)
        if self._said.get(name, "running") == state:
            return None
        self._said[name] = state
        return state, detail

    def forget(self, name: str) -> None:
        """Forget a subscription that is no more."""
        self._moved.pop(name, None)
        self._said.pop(name, None)

    def _judge(self, name: str, look: Look) -> tuple[str, str]:
        silent = look.now - look.answered_at
        if silent >= STUCK_SECONDS:
            return "stuck", (
                f"its event loop has not turned for {silent:.0f} s: a function blocks it; make it a plain def, or give"
                ' it run_in="process"'
            )
        cursor, since = self._moved.get(name, (None, look.now))
        if cursor != look.cursor or look.cursor >= look.last or look.waits_on_purpose:
            self._moved[name] = (look.cursor, look.now)
            return "running", ""
        still = look.now - since
        if still >= STALLED_SECONDS + look.patience_seconds:
            behind = f", {look.last.commit_lsn - look.cursor.commit_lsn} bytes of WAL behind"
            # From the very beginning there is no distance to tell.
            return "stalled", f"nothing was delivered for {still:.0f} s{behind if look.cursor != START else ''}"
        return self._said.get(name, "running"), ""
