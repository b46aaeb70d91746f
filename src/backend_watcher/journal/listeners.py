"""Who wants to hear of each durable group."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Listeners:
    """A list that may change, in any thread, while it is told."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._callbacks: dict[object, Callable[[], None]] = {}

    def add(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` from now on; returns what ends it."""
        token = object()
        # Replaced, never changed: who is telling goes on with the old one.
        with self._changing:
            self._callbacks = {**self._callbacks, token: callback}

        def end() -> None:
            with self._changing:
                self._callbacks = {known: other for known, other in self._callbacks.items() if known is not token}

        return end

    def tell(self) -> None:
        """Call every listener; one that fails does not keep the others from hearing."""
        for callback in self._callbacks.values():
            try:
                callback()
            except Exception:  # noqa: BLE001 it is somebody else's function, and the writer must go on
                _log.exception("a journal listener failed")
