"""Names as people write them, and as PostgreSQL reads them."""

from __future__ import annotations

import re

from backend_watcher.errors import ConfigError

DEFAULT_SCHEMA = "public"
NAME_BYTES_MAX = 63
"""NAMEDATALEN - 1: what is longer cannot be a name in PostgreSQL, which would cut it in silence."""

_SLOT = re.compile(r"[a-z0-9_]{1,63}")
_PART = re.compile(r'"(?:[^"]|"")+"|[^".][^.]*')


def parse_name(text: str) -> tuple[str, str]:
    """
    Read `table`, `schema.table` or, where a name holds a dot, `"Weird.Name"`; without a schema it is `public`.

    Names are taken as they are written: `User` is the table `User`, quoted or not. Raises ConfigError.
    """
    parts = []
    rest = text
    while match := _PART.match(rest):
        parts.append(match[0])
        rest = rest[match.end() :]
        if not rest.startswith("."):
            break
        rest = rest[1:]
    else:
        parts = []
    if rest or "\0" in text or not 1 <= len(parts) <= 2:
        raise ConfigError([f'{text!r} is not a table name; write table, schema.table or schema."a name.with dots"'])
    names = [part[1:-1].replace('""', '"') if part.startswith('"') else part for part in parts]
    return (names[0], names[1]) if len(names) == 2 else (DEFAULT_SCHEMA, names[0])


def format_name(schema: str, name: str) -> str:
    """Write a table's name so that `parse_name` reads it back."""
    parts = (part.replace('"', '""') if "." in part or part.startswith('"') else None for part in (schema, name))
    return ".".join(f'"{part}"' if part else plain for part, plain in zip(parts, (schema, name), strict=True))


def quote(name: str) -> str:
    """Write an identifier so that a statement shown to a person is on one line and can be run as it stands."""
    if name.isprintable():
        return '"' + name.replace('"', '""') + '"'
    escaped = "".join(c if c.isprintable() and c != "\\" else f"\\+{ord(c):06X}" for c in name)
    return 'U&"' + escaped.replace('"', '""') + '"'


def for_statement(schema: str, name: str, quoted: str) -> str:
    """Return `quoted`, the name as the server writes it, unless it would not stay on one line."""
    return quoted if quoted.isprintable() else f"{quote(schema)}.{quote(name)}"


def check_slot_name(name: str) -> None:
    """Raise ConfigError for a name that a replication command could misread."""
    if not _SLOT.fullmatch(name):
        raise ConfigError([f"{name!r} is not a slot name; it is 1 to 63 of the characters a to z, 0 to 9 and _"])


def check_publication_name(name: str) -> None:
    """Raise ConfigError for a name that PostgreSQL would cut or refuse."""
    if not name or "\0" in name or len(name.encode()) > NAME_BYTES_MAX:
        raise ConfigError([f"{name!r} is not a publication name; it is 1 to {NAME_BYTES_MAX} bytes"])
