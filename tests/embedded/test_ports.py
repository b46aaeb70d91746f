"""A free port."""

from __future__ import annotations

import socket

from backend_watcher.embedded.ports import LOOPBACK, free_port


def test_a_wanted_port_is_given_when_it_is_free() -> None:
    port = free_port()
    assert free_port(port) == port


def test_another_one_when_it_is_taken_or_impossible() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) != port
    assert 0 < free_port(99_999) < 65_536
