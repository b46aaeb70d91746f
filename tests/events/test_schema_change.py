"""What was done to a table, as functions are told of it."""

from __future__ import annotations

import dataclasses

import pytest

import backend_watcher
from backend_watcher.events.schema_change import SchemaChange


def test_it_is_public_and_is_never_changed() -> None:
    told = SchemaChange(1, 0.0, "column_added", "public.a", "column w is new", False, "rows keep their values", "")
    assert backend_watcher.SchemaChange is SchemaChange
    with pytest.raises(dataclasses.FrozenInstanceError):
        told.kind = "other"  # type: ignore[misc]
