"""Names are resolved, wishes are added up, and transforms reach their own tables only."""

from pathlib import Path

import pytest

from backend_watcher import Change, Watcher
from backend_watcher.errors import ConfigError
from backend_watcher.service.build import build, full_name
from backend_watcher.service.config import Config, load_config
from backend_watcher.sinks.memory import Memory
from backend_watcher.testing import builders


def config(watcher: Watcher, tmp_path: Path) -> Config:
    environ = {"WATCHER_JOURNAL__PATH": str(tmp_path / "j"), "DATABASE_URL": "postgresql://127.0.0.1/shop"}
    return load_config(None, environ, watcher=watcher)


def test_tables_are_wished_for_once_by_their_full_names(tmp_path: Path) -> None:
    watcher = Watcher("shop")
    watcher.to(Memory(), table="products", name="all")
    watcher.to(Memory(), table=["public.products", "sales.orders"], update=["stock"], name="compared")
    plan = build(config(watcher, tmp_path), watcher)
    assert plan.settings.tables == ("public.products", "sales.orders")
    assert plan.wishes["public.products"].old_values
    assert plan.settings.slot == plan.settings.publication == "watcher_shop"
    assert [subscription.route.tables for subscription in plan.subscriptions] == [
        {"public.products"},
        {"public.products", "sales.orders"},
    ]


def test_a_shared_transform_changes_its_own_table_only(tmp_path: Path) -> None:
    watcher = Watcher("shop")
    watcher.to(Memory(), table=["products", "orders"])

    @watcher.transform("products")
    def mask(change: Change) -> Change:
        return change.replace(new={**change.new, "name": "***"})

    (subscription,) = build(config(watcher, tmp_path), watcher).subscriptions
    (transform,) = subscription.transforms
    new = {"id": 1, "name": "kopi", "stock": 2}
    masked = transform(builders.change(of=builders.table("public.products"), new=new))
    other = transform(builders.change(of=builders.table("public.orders"), new=new))
    assert masked is not None
    assert masked.new["name"] == "***"
    assert other is not None
    assert other.new["name"] == "kopi"


def test_nothing_to_deliver_is_a_fault(tmp_path: Path) -> None:
    watcher = Watcher("shop")
    with pytest.raises(ConfigError, match="no subscription"):
        build(config(watcher, tmp_path), watcher)


@pytest.mark.parametrize(
    ("written", "full"),
    [("products", "public.products"), ("sales.orders", "sales.orders"), ('sales."a.b"', 'sales."a.b"')],
)
def test_a_name_is_completed_as_changes_name_it(written: str, full: str) -> None:
    assert full_name(written) == full


def places(watcher: Watcher, tmp_path: Path, workers: int, target: str | None = "shop.py") -> dict[str, object]:
    plan = build(config(watcher, tmp_path), watcher, target=target, workers=workers)
    return {one.name: one.sink.describe()["runs_in"] for one in plan.subscriptions}


def test_functions_run_where_they_say_and_otherwise_in_the_workers(tmp_path: Path) -> None:
    watcher = Watcher("shop")

    async def wait(change: Change) -> None: ...

    def sync(change: Change) -> None: ...

    watcher.on("a", name="free")(wait)
    watcher.on("a", name="free_too", coalesce=True)(sync)
    watcher.on("a", name="stays", run_in="loop")(wait)
    watcher.on("a", name="stays_too", run_in="thread")(sync)
    watcher.on("a", name="apart", run_in="process")(sync)
    fixed = {"stays": "loop", "stays_too": "thread", "apart": "process"}
    assert places(watcher, tmp_path, 0) == {"free": "loop", "free_too": "thread", **fixed}
    assert places(watcher, tmp_path, 2) == {"free": "process", "free_too": "process", **fixed}
    plan = build(config(watcher, tmp_path), watcher, target="shop.py", workers=2)
    assert not any(one.options.coalesce for one in plan.subscriptions), "it is done where the changes are whole"
    with pytest.raises(ConfigError, match="nobody knows which program to load"):
        places(watcher, tmp_path, 0, None)


def test_a_place_that_a_function_cannot_run_in_is_refused(tmp_path: Path) -> None:
    watcher = Watcher("shop")

    async def wait(change: Change) -> None: ...

    watcher.on("a", name="one", run_in="thread")(wait)
    watcher.on("a", name="two", run_in="loop")(lambda change: None)
    with pytest.raises(ConfigError) as caught:
        places(watcher, tmp_path, 0)
    assert caught.value.faults == [
        "subscription 'one': run_in is 'thread'; an async def runs on the loop, or in a process",
        "subscription 'two': run_in is 'loop'; a plain def runs in a thread, or in a process",
    ]


def test_what_may_be_under_way_is_shared_by_all_subscriptions(tmp_path: Path) -> None:
    for count, each in ((1, 32 << 20), (6, 16 << 20), (200, 1 << 20)):
        watcher = Watcher("shop")
        for number in range(count):
            watcher.to(Memory(), table="products", name=f"copy_{number}")
        plan = build(config(watcher, tmp_path), watcher)
        assert {one.options.max_in_flight_bytes for one in plan.subscriptions} == {each}
