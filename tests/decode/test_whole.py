"""The Begin and the Commit of a transaction that came in parts, against the layout of the manual."""

from __future__ import annotations

import messages as wire

from backend_watcher.decode.pgoutput import Begin, Commit, decode
from backend_watcher.decode.whole import begin_message, commit_message


def test_they_are_what_a_server_would_have_sent() -> None:
    assert begin_message(0x1500, -7, 0xFFFFFFFF) == wire.xlog_data(wire.begin(0x1500, -7, 0xFFFFFFFF), 0x1500)
    made = commit_message(0, 0x1500, 0x1530, 42)
    assert made == wire.xlog_data(wire.commit(0x1500, 0x1530, 42), 0x1500)
    assert decode(begin_message(1, 2, 3)[25:]) == Begin(1, 2, 3)
    assert decode(commit_message(0, 1, 9, 2)[25:]) == Commit(0, 1, 9, 2)
