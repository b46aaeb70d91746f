"""Column bytes become Python values: one function per type, chosen by type OID."""

from __future__ import annotations

from backend_watcher.events.table import Load


def load_text_of(type_oid: int) -> Load:
    """Return what turns a type's text form into a Python value."""
    return _TEXT.get(type_oid, bytes.decode)


def load_binary_of(type_oid: int) -> Load:
    """Return what turns a type's binary form into a Python value."""
    return _BINARY.get(type_oid, bytes)


_TEXT: dict[int, Load] = {20: int, 21: int, 23: int}
_BINARY: dict[int, Load] = {}
