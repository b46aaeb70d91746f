"""What is in the room keeps the contracts: every method is there, with the same parameters, waiting where it may."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from backend_watcher import contracts
from backend_watcher.capture.logical import LogicalSource
from backend_watcher.capture.notify import NotifySource
from backend_watcher.capture.outbox import OutboxSource
from backend_watcher.contracts import Clock, Journal, Observer, Receipt, Sink, Source
from backend_watcher.journal import MemoryJournal, SqliteJournal
from backend_watcher.service.observe import Figures
from backend_watcher.service.supervise import SystemClock
from backend_watcher.sinks.handler import Handler
from backend_watcher.sinks.memory import Memory
from backend_watcher.sinks.redis_cache import RedisCache
from backend_watcher.sinks.stdout import Stdout
from backend_watcher.testing.fakes import OwnedClock, RecordingObserver

KEEPERS = [
    *((Source, kind) for kind in (LogicalSource, NotifySource, OutboxSource)),
    (Journal, MemoryJournal),
    (Journal, SqliteJournal),
    *((Sink, kind) for kind in (Handler, Memory, RedisCache, Stdout)),
    *((Observer, kind) for kind in (Figures, RecordingObserver)),
    *((Clock, kind) for kind in (SystemClock, OwnedClock)),
]


def members(contract: type) -> dict[str, Any]:
    return {name: item for name, item in vars(contract).items() if not name.startswith("_")}


@pytest.mark.parametrize(("contract", "keeper"), KEEPERS)
def test_it_has_all_that_its_contract_names(contract: type, keeper: type) -> None:
    for name, promised in members(contract).items():
        kept = inspect.getattr_static(keeper, name)
        if isinstance(promised, property):
            assert isinstance(kept, property), name
            continue
        assert inspect.iscoroutinefunction(kept) == inspect.iscoroutinefunction(promised), name
        assert list(inspect.signature(kept).parameters) == list(inspect.signature(promised).parameters), name


@pytest.mark.parametrize("contract", [Source, Journal, Sink, Observer, Clock])
def test_every_promise_is_written_down(contract: type) -> None:
    assert contract.__doc__
    for name, promised in members(contract).items():
        assert inspect.getdoc(promised), f"{contract.__name__}.{name}"


def test_a_sink_is_known_by_what_it_can_do() -> None:
    assert isinstance(Memory(), Sink)
    assert not isinstance(object(), Sink)


def test_accepted_is_not_durable() -> None:
    assert Receipt.ACCEPTED is not Receipt.DURABLE
    assert {receipt.value for receipt in Receipt} == {"accepted", "durable"}


def test_the_architecture_fits_on_a_few_screens() -> None:
    assert len(inspect.getsource(contracts).splitlines()) < 350
