"""
What a version of PostgreSQL can and cannot do for us, and which of its minor releases have known faults. Pure.

From the release notes of PostgreSQL; a version is as in `server_version_num`.
"""

from __future__ import annotations

from collections.abc import Iterator

from backend_watcher.postgres.findings import Finding, fault, ok, warning

VERSION_MIN = 140_000

_CAME = (
    (150_000, "column lists and row filters in a publication"),
    (160_000, "streaming from a standby, which the watcher does not do either"),
    (170_000, "slots that survive a failover or pg_upgrade"),
    (180_000, "stored generated columns in the stream"),
)
_FAULTS = (
    # What can happen, and in which minor of each version it does not happen any more.
    ("rows under a column list can be sent with the wrong number of columns", {15: 2}),
    ("changes can be lost when a table is added to a publication", {14: 18, 15: 13, 16: 9, 17: 5}),
    ("decoding can run out of memory, for good, where DDL and long transactions meet", {14: 19, 15: 14, 16: 10, 17: 6}),
    (
        "whoever may replicate can have the server load any library as an output plugin",
        {14: 24, 15: 19, 16: 15, 17: 11, 18: 6},
    ),
)


def judge_version(version: int) -> Iterator[Finding]:
    """Say whether this version can be watched at all, what it lacks, and what is wrong with its minor release."""
    major, minor = divmod(version, 10_000)
    if version < VERSION_MIN:
        message = f"PostgreSQL {major} is too old; 14 and later can be watched"
        yield fault("version", "server", message, "pg_upgrade")
        return
    lacks = ", ".join(f"{what} ({since // 10_000})" for since, what in _CAME if version < since)
    yield ok("version", "server", f"PostgreSQL {major}.{minor}{f'; came later: {lacks}' if lacks else ''}")
    wrong = [(what, fixed[major]) for what, fixed in _FAULTS if minor < fixed.get(major, 0)]
    if wrong:
        newest = max(fixed for _, fixed in wrong)
        message = f"known faults of PostgreSQL {major}.{minor}: {'; '.join(what for what, _ in wrong)}"
        yield warning("minor_version", "server", message, f"update PostgreSQL to {major}.{newest} or later")
