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
