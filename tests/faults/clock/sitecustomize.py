"""
A wall clock that a test owns, put into a process before anything else is imported.

Python's `time.time` and `time.time_ns` say what the file FAULTS_CLOCK says: a number of seconds that is added, or
`frozen`. The monotonic clock is the machine's. What C code reads by itself (SQLite, PostgreSQL) is not changed.
"""

import os
import time

_real, _path = time.time_ns, os.environ.get("FAULTS_CLOCK")
_last = [0, 0.0, ""]


def _told() -> str:
    if time.monotonic() - _last[1] > 0.02:
        _last[1] = time.monotonic()
        try:
            with open(_path) as file:
                _last[2] = file.read().strip()
        except OSError:
            _last[2] = ""
    return _last[2]


def time_ns() -> int:
    """Nanoseconds since 1970, as the test wants them."""
    told = _told()
    if told != "frozen":
        _last[0] = _real() + int(float(told or 0) * 1e9)
    return _last[0]


if _path:
    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9
