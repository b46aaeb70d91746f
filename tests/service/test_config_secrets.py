"""Secrets by reference, and out of messages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend_watcher.service.config_secrets import BadReferenceError, is_secret, resolve, scrub, show


def test_references_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "dsn"
    path.write_text("postgresql://u:p@h/d\n")
    path.chmod(0o600)
    assert resolve(f"file:{path}", {}) == "postgresql://u:p@h/d"
    assert resolve("env:SHOP", {"SHOP": "file:not-followed-again"}) == "file:not-followed-again"
    for plain in ("postgresql://u:p@h/d", "environment:x", "host=h password=env:x", ""):
        assert resolve(plain, {}) == plain


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "dsn"
    path.write_text("hunter2")
    path.chmod(mode)
    with pytest.raises(BadReferenceError, match=f"mode {mode:04o}: others may read it; chmod 600") as caught:
        resolve(f"file:{path}", {})
    assert "hunter2" not in str(caught.value)


def test_references_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(BadReferenceError, match="'NOPE' is not set"):
        resolve("env:NOPE", {"NOPE": ""})
    with pytest.raises(BadReferenceError, match="cannot be read: No such file"):
        resolve(f"file:{tmp_path}/none", {})
    with pytest.raises(BadReferenceError, match="cannot be read"):
        resolve("file:\0", {})
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(BadReferenceError, match="is not a file"):
        resolve(f"file:{fifo}", {})
    empty = tmp_path / "empty"
    empty.touch(0o600)
    empty.chmod(0o600)
    with pytest.raises(BadReferenceError, match="holds no secret"):
        resolve(f"file:{empty}", {})


def test_what_may_be_a_secret_is_not_shown() -> None:
    assert is_secret("url")
    assert is_secret("sasl_password")
    assert not is_secret("key")
    assert (
        show("url", "x") == show("sink", "redis://h") == show("name", "a@b") == show("name", "x" * 100) == "the value"
    )
    assert show("name", "x") == "'x'"
    assert show("name", True) == "true"
    assert show("name", {"password": "x"}) == "a table"
    assert scrub("cannot reach\nredis://:hunter2@h", ["hunter2", ""]) == "cannot reach redis://:***@h"
