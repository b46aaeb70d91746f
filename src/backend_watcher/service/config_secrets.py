"""Secrets by reference, and values in messages without them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SECRET_BYTES_MAX = 65_536
SHOWN_MAX = 60
"""Characters of a wrong value that a message quotes."""

HIDDEN = "***"

_SECRET_NAMES = {"dsn", "url", "password", "token", "secret", "api_key", "credentials"}


class BadReferenceError(ValueError):
    """A reference that leads to no secret; the text says why, and what would be right."""


def is_secret(name: str) -> bool:
    """Say whether a setting of this name may hold a secret."""
    return any(name == secret or name.endswith(f"_{secret}") for secret in _SECRET_NAMES)


def resolve(value: str, environ: Mapping[str, str]) -> str:
    """Follow `env:NAME` and `file:/path`; any other text is the value itself. Raises BadReferenceError."""
    kind, colon, target = value.partition(":")
    if not colon or kind not in ("env", "file"):
        return value
    if kind == "env":
        found = environ.get(target)
        if not found:
            raise BadReferenceError(f"the environment variable {target!r} is not set; set it, or correct the name")
        return found
    return _read(Path(target))


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise BadReferenceError(f"{path} cannot be read: {reason}") from None
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BadReferenceError(f"{path} is not a file")
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise BadReferenceError(f"{path} has mode {mode:04o}: others may read it; chmod 600 {path}")
        data = file.read(SECRET_BYTES_MAX + 1)
    try:
        text = data.decode().strip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) > SECRET_BYTES_MAX:
        raise BadReferenceError(f"{path} holds no secret: it is empty, too long, or not text")
    return text


def show(name: str, value: Any) -> str:
    """Write a wrong value for a message, unless it may be a secret that landed under the wrong name."""
    if isinstance(value, str) and (is_secret(name) or "@" in value or "://" in value or len(value) > SHOWN_MAX):
        return "the value"
    if isinstance(value, dict | list | tuple):
        return "a list" if not isinstance(value, dict) else "a table"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else "the value"


def scrub(text: str, secrets: list[str]) -> str:
    """Take secrets out of a text that somebody else wrote, and make it one line."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return " ".join(text.split())[:300]
