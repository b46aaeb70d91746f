"""The version, and whether the hot path is compiled."""

from __future__ import annotations

from importlib import metadata

from backend_watcher.decode import chunks

try:
    __version__ = metadata.version("backend-watcher")
except metadata.PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0.0.0"


def is_compiled() -> bool:
    """Say whether the decoder runs as C."""
    return not str(chunks.__file__).endswith(".py")
