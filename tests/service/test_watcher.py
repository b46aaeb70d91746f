"""What a user's program may declare, and what it is told when it may not."""

import pytest

from backend_watcher import Operation, Watcher
from backend_watcher.errors import ConfigError
from backend_watcher.sinks.memory import Memory
from backend_watcher.sinks.postgres_replica import PostgresReplica


async def nothing(change: object) -> None:
    pass


def test_a_handler_is_a_subscription_named_after_its_function() -> None:
    watcher = Watcher("shop")
    assert watcher.on("products", "sales.orders", concurrency=3)(nothing) is nothing
    (wanted,) = watcher.wanted
    assert (wanted.name, wanted.tables, wanted.options.concurrency) == ("nothing", ("products", "sales.orders"), 3)
    assert wanted.operations == frozenset(Operation)
    assert wanted.sink.describe()["kind"] == "handler"


def test_naming_operations_leaves_the_others_out() -> None:
    watcher = Watcher("shop")
    watcher.on("products", update=["stock", "price"], delete=True)(nothing)
    watcher.on("products", insert=True, name="created")(nothing)
    watcher.on("products", truncate=False, name="rows")(nothing)
    updated, created, rows = watcher.wanted
    assert updated.operations == {Operation.UPDATE, Operation.DELETE}
    assert updated.columns == {"stock", "price"}
    # A row that was there before is an insert for whoever wants inserts.
    assert created.operations == {Operation.INSERT, Operation.READ}
    assert rows.operations == frozenset(Operation) - {Operation.TRUNCATE}


def test_a_sink_is_named_by_kind_and_tables() -> None:
    watcher = Watcher("shop")
    watcher.to(Memory(), table=["products", "sales.orders"], batch=7, batch_seconds=0.5)
    (wanted,) = watcher.wanted
    assert wanted.name == "memory_products_orders"
    assert (wanted.options.batch.changes, wanted.options.batch.seconds) == (7, 0.5)


def test_a_batch_handler_is_fed_by_the_batch() -> None:
    watcher = Watcher("shop")
    watcher.on("products", batch=25)(nothing)
    assert watcher.wanted[0].options.batch.changes == 25
    assert watcher.wanted[0].sink.describe()["batch"] is True


@pytest.mark.parametrize("name", ["", "Shop", "my shop", "a" * 41, "shop;drop"])
def test_a_name_that_could_not_be_a_slots_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="1 to 40"):
        Watcher(name)


def test_every_fault_of_a_subscription_is_named_at_once() -> None:
    watcher = Watcher("shop")
    with pytest.raises(ConfigError) as caught:
        watcher.on(name="Not A Name", concurrency=0)(nothing)
    assert len(caught.value.faults) == 3


def test_two_subscriptions_cannot_share_a_cursor() -> None:
    watcher = Watcher("shop")
    watcher.on("products")(nothing)
    with pytest.raises(ConfigError, match="declared twice"):
        watcher.on("orders")(nothing)


def test_functions_for_schema_changes_are_kept_in_order() -> None:
    watcher = Watcher("shop")
    assert watcher.on_schema_change(nothing) is nothing
    watcher.on_schema_change(print)
    assert watcher.schema_functions == [nothing, print]


def test_a_transform_is_kept_with_its_tables() -> None:
    watcher = Watcher("shop")
    watcher.transform("products")(nothing)
    assert watcher.transforms == [(frozenset({"products"}), nothing)]


def test_a_sink_says_how_it_wants_to_be_fed_and_is_overruled() -> None:
    watcher = Watcher("shop")
    dsn = "postgresql://127.0.0.1/reports"
    watcher.to(PostgresReplica(dsn), table="products", name="wished")
    watcher.to(PostgresReplica(dsn), table="products", name="given", batch=7, timeout_seconds=5.0)
    wished, given = (one.options for one in watcher.wanted)
    assert (wished.concurrency, wished.batch.changes, wished.timeout_seconds) == (1, 10_000, 300.0)
    assert (given.concurrency, given.batch.changes, given.timeout_seconds) == (1, 7, 5.0)
    with pytest.raises(ConfigError, match="concurrency must be 1"):
        watcher.to(PostgresReplica(dsn), table="products", name="lanes", concurrency=4)
