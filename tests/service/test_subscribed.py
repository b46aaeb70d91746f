"""A declared subscription with its full names, and the transforms of its program first."""

from __future__ import annotations

from backend_watcher import Change, Watcher
from backend_watcher.service.subscribed import full_name, subscription_of
from backend_watcher.sinks.memory import Memory
from backend_watcher.testing import builders


def test_transforms_of_the_program_come_first_and_for_their_tables_only() -> None:
    watcher = Watcher("shop")

    def marked(by: str):
        return lambda change: change.replace(new={**change.new, "name": change.new["name"] + by})

    watcher.to(Memory(), table=["products", "orders"], transform=marked("2"))
    watcher.transform("public.products")(marked("1"))
    watcher.transform("sales.elsewhere")(marked("never"))
    subscription = subscription_of(watcher.wanted[0], watcher)
    assert subscription.route.tables == {"public.products", "public.orders"}
    assert len(subscription.transforms) == 2

    def name(table: str) -> str:
        change: Change | None = builders.change(of=builders.table(table), new={"id": 1, "name": "n", "stock": 1})
        for transform in subscription.transforms:
            assert change is not None
            change = transform(change)
        assert change is not None
        return str(change.new["name"])

    assert (name("public.products"), name("public.orders")) == ("n12", "n2")


def test_without_a_program_there_are_its_own_transforms_only() -> None:
    watcher = Watcher("shop")
    watcher.to(Memory(), table="products")
    assert subscription_of(watcher.wanted[0], None).transforms == ()
    assert full_name("products") == "public.products"
