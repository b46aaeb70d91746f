"""A free port on the loopback address."""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"


def free_port(wanted: int | None = None) -> int:
    """`wanted` if nobody listens there, else a port that the system chooses. Somebody may take it before we do."""
    for port in (wanted, 0):
        if port is not None:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                # As servers do: a port whose last connections linger counts as free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((LOOPBACK, port))
                except (OSError, OverflowError):
                    continue
                return int(probe.getsockname()[1])
    raise OSError("the system has no free port")
