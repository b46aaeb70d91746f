"""Where many changes of a batch fail, the work grows with the changes, and not with their square."""

from __future__ import annotations

from collections.abc import Sequence

from backend_watcher.contracts import Receipt
from backend_watcher.delivery.deliver import NARROW, Deliverer
from backend_watcher.delivery.gate import Gate
from backend_watcher.delivery.parked import Keeper
from backend_watcher.delivery.retry import Patience
from backend_watcher.delivery.route import Route, Rule
from backend_watcher.delivery.subscription import Options, Subscription
from backend_watcher.errors import HandlerError, PartlyWritten
from backend_watcher.events.change import Change
from backend_watcher.journal import MemoryJournal
from backend_watcher.sinks.memory import Memory
from backend_watcher.testing.builders import change, transaction
from backend_watcher.testing.fakes import OwnedClock, RecordingObserver

PRODUCTS = "public.products"
CHANGES = 512
WITHIN = transaction(commit_micros=77)
BATCH = [change(new={"id": n}, ordinal=n, within=WITHIN) for n in range(CHANGES)]


class FailsAt(Memory):
    """Takes all but some ordinals, and counts what it is offered."""

    def __init__(self, poison: Sequence[int]) -> None:
        super().__init__()
        self._poison = set(poison)
        self.offered: list[int] = []

    async def write(self, batch: Sequence[Change]) -> Receipt:
        self.offered.append(len(batch))
        for settled, one in enumerate(batch):
            if one.ordinal in self._poison:
                await super().write(batch[:settled]) if settled else None
                raise PartlyWritten(settled, HandlerError("poisoned"))
        return await super().write(batch)


async def deliver(sink: FailsAt) -> list[int]:
    """Deliver the batch; return what is settled, in that order."""
    journal, clock, observer = MemoryJournal(), OwnedClock(free_running=True), RecordingObserver()
    await journal.open()
    options = Options(patience=Patience(attempts=1))
    gate = Gate(clock)
    most, size = options.parked_max, options.batch.changes
    keeper = Keeper("many", journal, gate, clock, observer, options.patience, parked_max=most, batch=size, at_once=8)
    subscription = Subscription("many", Route({PRODUCTS: Rule(PRODUCTS)}), sink, (), options)

    async def pause(error: BaseException) -> None:
        raise AssertionError from error

    settled: list[int] = []
    await Deliverer(subscription, keeper, gate, clock, observer, pause).deliver(BATCH, settled.extend)
    return settled


async def test_every_second_change_fails() -> None:
    sink = FailsAt(range(1, CHANGES, 2))
    settled = await deliver(sink)
    assert sorted(settled) == list(range(CHANGES))
    assert [one.ordinal for one in sink.changes] == list(range(0, CHANGES, 2))
    # Where the whole rest were offered each time, this would be a quarter of the square: 65,000.
    assert sum(sink.offered) <= CHANGES * NARROW


async def test_after_a_failure_by_itself_whole_batches_are_offered_soon() -> None:
    sink = FailsAt([100])
    settled = await deliver(sink)
    assert sorted(settled) == list(range(CHANGES))
    assert len(sink.offered) <= 3
