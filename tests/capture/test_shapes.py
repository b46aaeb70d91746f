"""Each row with the key and the columns of its own moment, whatever the table is by now."""

from __future__ import annotations

from typing import Any

import pytest

from .street import App, Street

BY_INDEX = "ALTER TABLE t REPLICA IDENTITY USING INDEX t_b_key"


async def shapes(street: Street, count: int) -> list[dict[str, Any]]:
    return [change.row.to_dict() for change in await street.changes(count)]


async def test_columns_that_come_and_go_and_change_their_name(app: App, street: Street) -> None:
    async with street.listening():
        await app.run(
            "INSERT INTO products VALUES (1, 'pen', 5)",
            "ALTER TABLE products ADD COLUMN price numeric DEFAULT 2.50",
            "INSERT INTO products VALUES (2, 'ink', 6, 3.75)",
            "ALTER TABLE products RENAME COLUMN stock TO left_over",
            "INSERT INTO products VALUES (3, 'nib', 7, 1)",
            "ALTER TABLE products DROP COLUMN name",
            "INSERT INTO products VALUES (4, 8, 2)",
        )
        rows = await shapes(street, 4)
        assert [list(row) for row in rows] == [
            ["id", "name", "stock"],
            ["id", "name", "stock", "price"],
            ["id", "name", "left_over", "price"],
            ["id", "left_over", "price"],
        ]
        assert [str(value) for row in rows for value in row.values()] == [
            *("1", "pen", "5"),
            *("2", "ink", "6", "3.75"),
            *("3", "nib", "7", "1"),
            *("4", "8", "2"),
        ]
        assert len({change.table.version for change in await street.changes(4)}) == 4


async def test_two_shapes_in_one_transaction(app: App, street: Street) -> None:
    async with street.listening():
        await app.run(
            "BEGIN; INSERT INTO products VALUES (1, 'pen', 5); ALTER TABLE products ADD COLUMN price int;"
            "INSERT INTO products VALUES (2, 'ink', 6, 3); UPDATE products SET price = 9 WHERE id = 1; COMMIT"
        )
        rows = await shapes(street, 3)
    assert [list(row) for row in rows] == [["id", "name", "stock"], *[["id", "name", "stock", "price"]] * 2]
    assert [row["id"] for row in rows] == [1, 2, 1]


async def test_rows_of_yesterday_are_read_with_the_shape_of_yesterday(app: App, street: Street) -> None:
    async with street.listening():
        pass
    await app.run(
        "INSERT INTO products VALUES (1, 'pen', 5)",
        "ALTER TABLE products RENAME COLUMN id TO number",
        "INSERT INTO products VALUES (2, 'ink', 6)",
        "ALTER TABLE products ALTER COLUMN stock TYPE text USING stock || ' left'",
        "INSERT INTO products VALUES (3, 'nib', '7 left')",
    )
    async with street.listening():
        changes = await street.changes(3)
    assert [change.row["stock"] for change in changes] == [5, 6, "7 left"]
    old, middle, new = changes
    # Today's key has a name that yesterday's rows do not know; the replica identity still tells them apart.
    assert (old.table.primary_key, middle.table.primary_key, new.table.primary_key) == ((), ("number",), ("number",))
    assert old.key_bytes() == b"1"


async def test_the_key_is_looked_up_again_when_the_shape_changes(app: App, street: Street) -> None:
    async with street.listening():
        await app.run(
            "INSERT INTO products VALUES (1, 'pen', 5)",
            "ALTER TABLE products RENAME COLUMN id TO number",
            "INSERT INTO products VALUES (2, 'ink', 6)",
        )
        changes = await street.changes(2)
    assert [change.table.primary_key for change in changes] == [("id",), ("number",)]
    assert [change.key for change in changes] == [(1,), (2,)]


@pytest.mark.parametrize(
    ("create", "insert", "key"),
    [
        ("CREATE TABLE t (b int, a int, PRIMARY KEY (a, b))", "(2, 1)", (1, 2)),
        ('CREATE TABLE t (v int, "Odd Key" text PRIMARY KEY)', "(1, 'x')", ("x",)),
        ("CREATE TABLE t (a int); ALTER TABLE t REPLICA IDENTITY FULL", "(1)", ()),
        (
            f"CREATE TABLE t (a int, b int NOT NULL UNIQUE); {BY_INDEX}",
            "(1, 2)",
            (),
        ),
        ("CREATE TABLE t (a int PRIMARY KEY, b int); ALTER TABLE t REPLICA IDENTITY FULL", "(1, 2)", (1,)),
        # Old rows name the index's column only: by the primary key a delete could not be told.
        (
            f"CREATE TABLE t (a int PRIMARY KEY, b int NOT NULL UNIQUE); {BY_INDEX}",
            "(1, 2)",
            (2,),
        ),
        (
            "CREATE TABLE t (a int PRIMARY KEY) PARTITION BY LIST (a); CREATE TABLE p PARTITION OF t DEFAULT",
            "(7)",
            (7,),
        ),
    ],
)
async def test_keys_come_from_the_catalog(
    app: App, street: Street, create: str, insert: str, key: tuple[Any, ...]
) -> None:
    await app.run(create)
    street.change(tables=("t",))
    async with street.listening():
        await app.run(f"INSERT INTO t VALUES {insert}")
        [change] = await street.changes(1)
    assert change.table.full_name == "public.t"
    assert change.key == key
