"""Each kind of source gets its own settings, and what it does not hear is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend_watcher import Change, Message, Watcher
from backend_watcher.capture.notify import NotifySettings, NotifySource
from backend_watcher.capture.outbox import OutboxSource
from backend_watcher.capture.outbox_prepare import OutboxSettings
from backend_watcher.capture.prepare import LogicalSettings
from backend_watcher.errors import ConfigError
from backend_watcher.journal import MemoryJournal
from backend_watcher.service.build import build
from backend_watcher.service.config import load_config
from backend_watcher.service.sources import SourceSettings, look_before, other_source
from backend_watcher.testing.fakes import RecordingObserver

DSN = "postgresql://watcher@127.0.0.1:1/shop"


def shop(*tables: str, message: bool = False) -> Watcher:
    watcher = Watcher("shop")
    for table in tables:

        @watcher.on(table, name=f"of_{table.partition('.')[2]}")
        async def change(_: Change) -> None: ...

    if message:

        @watcher.on_message("orders")
        async def said(_: Message) -> None: ...

    return watcher


def settings(tmp_path: Path, watcher: Watcher, **source: str) -> SourceSettings:
    environ = {f"WATCHER_SOURCE__{name.upper()}": value for name, value in source.items()}
    environ |= {"WATCHER_JOURNAL__PATH": str(tmp_path / "j"), "DATABASE_URL": DSN}
    return build(load_config(None, environ, watcher=watcher), watcher).settings


def test_each_kind_has_its_settings(tmp_path: Path) -> None:
    assert isinstance(settings(tmp_path, shop("public.a")), LogicalSettings)
    outbox = settings(tmp_path, shop("public.a", "public.b"), kind="outbox", outbox_notify="false", outbox_table="b")
    assert outbox == OutboxSettings(
        DSN, ("public.a", "public.b"), "public.b", notify=False, journal_name=str(tmp_path / "j")
    )
    notify = settings(tmp_path, shop(message=True), kind="notify", channels='["orders"]')
    assert notify == NotifySettings(DSN, ("orders",), journal_name=str(tmp_path / "j"))


def test_what_a_kind_does_not_hear_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"changes of public\.a are not heard"):
        settings(tmp_path, shop("public.a", message=True), kind="notify", channels='["orders"]')
    with pytest.raises(ConfigError, match="no subscription hears it"):
        settings(tmp_path, shop("public.a"), kind="outbox", outbox_table="public.b")


async def test_each_kind_has_its_reader_and_its_look_before(tmp_path: Path) -> None:
    journal, observer = MemoryJournal(), RecordingObserver()
    outbox = settings(tmp_path, shop("public.a"), kind="outbox")
    notify = settings(tmp_path, shop(message=True), kind="notify", channels='["orders"]')
    assert isinstance(outbox, OutboxSettings)
    assert isinstance(notify, NotifySettings)
    assert isinstance(other_source(outbox, journal, observer), OutboxSource)
    assert isinstance(other_source(notify, journal, observer), NotifySource)
    for one in (outbox, notify, settings(tmp_path, shop("public.a"))):
        report = await look_before(one, {})
        assert [finding.code for finding in report.faults] == ["connection"]
