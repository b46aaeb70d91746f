"""Functions for messages: what they are given, and which messages are theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend_watcher import Message, Watcher
from backend_watcher.decode.messages import MESSAGES, message_row
from backend_watcher.errors import ConfigError
from backend_watcher.events.change import INSERT, Change
from backend_watcher.events.message import FULL_NAME
from backend_watcher.service.build import build, wishes_of
from backend_watcher.service.config import load_config
from backend_watcher.service.messages import of_prefix
from backend_watcher.testing import builders


def told(prefix: str, content: bytes = b"") -> Change:
    return Change(INSERT, MESSAGES, builders.transaction(), 0, b" " + message_row(prefix, content), 1, 0, False)


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_function_is_given_the_message(kind: str) -> None:
    heard: list[Message] = []
    watcher = Watcher("shop")

    if kind == "async":

        @watcher.on_message("shop.sold")
        async def sold(message: Message) -> None:
            heard.append(message)
    else:

        @watcher.on_message("shop.sold")
        def sold(message: Message) -> None:
            heard.append(message)

    (wanted,) = watcher.wanted
    assert (wanted.name, wanted.tables) == ("sold", (FULL_NAME,))
    assert wanted.sink.describe()["runs_in"] == ("loop" if kind == "async" else "thread")
    await wanted.sink.open()
    await wanted.sink.write([told("shop.sold", b"one"), told("shop.sold", b"two")])
    await wanted.sink.close()
    assert [message.text for message in heard] == ["one", "two"]


def test_only_its_own_prefix_is_its() -> None:
    mine = of_prefix("shop.sold")
    assert [mine(told(prefix)) for prefix in ("shop.sold", "shop.sold2", "shop", "")] == [True, False, False, False]


@pytest.mark.parametrize(
    ("prefix", "fault"), [("", "not empty"), ("backend_watcher.context", "the watcher's own"), ("x", "timeout_seconds")]
)
def test_what_cannot_be(prefix: str, fault: str) -> None:
    options: dict[str, Any] = {"timeout_seconds": -1} if prefix == "x" else {}
    with pytest.raises(ConfigError, match=fault):
        Watcher("shop").on_message(prefix, name="one", **options)(print)


@pytest.mark.parametrize("wanted", [True, False])
def test_wanted_they_are_captured_and_no_table_is_asked_for(tmp_path: Path, wanted: bool) -> None:
    watcher = Watcher("shop", dsn="postgresql://127.0.0.1/shop")
    watcher.on("products", name="rows")(print)
    if wanted:
        watcher.on_message("shop", name="said")(print)
    config = load_config(None, {"WATCHER_JOURNAL__PATH": str(tmp_path / "j")}, watcher=watcher)
    plan = build(config, watcher)
    assert (plan.settings.messages, plan.settings.tables) == (wanted, ("public.products",))
    assert list(wishes_of(watcher.wanted)) == ["public.products"]
    assert plan.settings.spill_folder == tmp_path / "j-spill"
