"""`watcher dev`: a PostgreSQL until Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import psycopg

from cli.commands import command, environment


def start(folder: Path, *words: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
    child = subprocess.Popen(
        command("dev", "--json", *words),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    return child, json.loads(child.stdout.readline())


def test_it_stays_until_it_is_told_and_keeps_nothing(tmp_path: Path) -> None:
    child, known = start(tmp_path, "--ephemeral", "--database", "shop")
    with psycopg.connect(known["dsn"], autocommit=True) as connection:
        row = connection.execute(
            "SELECT current_setting('wal_level'), current_setting('max_slot_wal_keep_size'), current_database()"
        ).fetchone()
    assert row is not None
    assert (row[0], row[1] != "-1", row[2]) == ("logical", True, "shop")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
