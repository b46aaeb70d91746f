"""
What our role may not do, and the statement that grants it.

PostgreSQL lets everybody read its catalogs and call the functions we need, but a careful owner may have taken that
away. Found out before anything else is asked, so that no half of a start is left behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib import resources

from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.findings import Finding, fault
from backend_watcher.postgres.names import quote
from backend_watcher.postgres.queries import fetch_all

_ASKED = ("catalog.sql", "publications.sql", "shapes.sql", "slots.sql", "surroundings.sql", "upkeep.sql")
"""The files of what a watcher asks of a source."""

_SPARED = frozenset({"pg_terminate_backend"})
"""Only frees a slot sooner, whose reader the server has not missed yet: without it the server finds out by itself."""


def names_asked() -> list[str]:
    """Return every name of PostgreSQL's own, catalog or function, that our queries of a source use."""
    folder = resources.files("backend_watcher.postgres").joinpath("sql")
    found: set[str] = set()
    for file in _ASKED:
        lines = folder.joinpath(file).read_text(encoding="utf-8").splitlines()
        found.update(name for line in lines if not line.startswith("--") for name in re.findall(r"\bpg_\w+", line))
    return sorted(found - _SPARED)


async def withheld(conn: Connection) -> list[str]:
    """Return what our role needs and may not have, as GRANT names it: `SELECT ON pg_publication`."""
    rows = await fetch_all(conn, "withheld", names=names_asked())
    return [row["privilege"] for row in rows]


def judge_withheld(privileges: Iterable[str], role: str) -> Iterator[Finding]:
    """Name each of them with its GRANT. Pure."""
    for privilege in privileges:
        message = f"role {quote(role)} lacks {privilege}, which everybody has by default"
        yield fault("catalog_privilege", role, message, f"GRANT {privilege} TO {quote(role)};")
