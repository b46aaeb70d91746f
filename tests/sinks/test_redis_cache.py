"""The cache against a real Valkey: guard, keys, hashes, large values, truncates, errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend_watcher.decode.tables import make_table
from backend_watcher.errors import ConfigError, PartlyWritten, SinkRejected, SinkUnavailable
from backend_watcher.events.change import INSERT, Change
from backend_watcher.events.row import UNCHANGED
from backend_watcher.events.table import Table
from backend_watcher.sinks.redis_cache import KEYS_MAX, TOMBSTONE_SECONDS, RedisCache
from backend_watcher.testing.builders import change, table, transaction, tuple_data
from backend_watcher.testing.conformance_sink import delete, insert, truncate, update
from backend_watcher.verifiable import Repairable

BLOBS = table("public.blobs", {"id": "int8", "name": "text", "blob": "text"})
FULL = table("public.blobs", {"id": "int8", "name": "text", "blob": "text"}, replica_identity="f")


@asynccontextmanager
async def cache(url: str, key: str = "product:{id}", **options: Any) -> AsyncIterator[RedisCache]:
    sink = RedisCache(key, url=url, **options)
    await sink.open()
    yield sink
    await sink.close()


def names(client: redis.Redis, prefix: str = "product:") -> dict[int, str]:
    found = client.keys(f"{prefix}*")
    return {json.loads(v)["id"]: json.loads(v)["name"] for v in map(client.get, found) if v}


def rejection(caught: pytest.ExceptionInfo[PartlyWritten]) -> str:
    assert isinstance(caught.value.cause, SinkRejected)
    return caught.value.cause.message


# --- the guard ---


@pytest.mark.parametrize("form", ["json", "hash"])
async def test_older_never_replaces_newer(url: str, valkey: redis.Redis, form: Any) -> None:
    async with cache(url, format=form) as sink:
        await sink.write([update(5, 1, "new")])
        await sink.write([update(4, 1, "old")])
        await sink.write([delete(3, 1)])
    seen = valkey.hget("product:1", "name") if form == "hash" else json.loads(valkey.get("product:1"))["name"].encode()
    assert seen == b"new"
    assert valkey.get("@product:1") == change(lsn=5).position.sort_key.encode()


@pytest.mark.parametrize("form", ["json", "hash"])
async def test_a_deleted_entry_stays_deleted(url: str, valkey: redis.Redis, form: Any) -> None:
    async with cache(url, format=form) as sink:
        await sink.write([insert(4, 1, "a")])
        await sink.write([delete(5, 1)])
        await sink.write([insert(4, 1, "a")])
        assert not valkey.exists("product:1")
        assert TOMBSTONE_SECONDS - 60 < valkey.ttl("@product:1") <= TOMBSTONE_SECONDS
        await sink.write([insert(6, 1, "b")])
    assert valkey.exists("product:1")
    assert valkey.ttl("@product:1") == -1


async def test_the_same_position_is_written_again(url: str, valkey: redis.Redis) -> None:
    async with cache(url) as sink:
        await sink.write([insert(4, 1, "a")])
        valkey.delete("product:1")
        await sink.write([insert(4, 1, "a")])
    assert names(valkey) == {1: "a"}


async def test_rows_of_one_transaction_have_an_order(url: str, valkey: redis.Redis) -> None:
    first, tenth = (
        change("insert", new={"id": 1, "name": n}, lsn=1, ordinal=o) for n, o in (("first", 9), ("10th", 10))
    )
    async with cache(url) as sink:
        await sink.write([tenth])
        await sink.write([first])
    assert names(valkey) == {1: "10th"}


async def test_a_late_older_row_in_a_large_batch_is_left_out_alone(url: str, valkey: redis.Redis) -> None:
    async with cache(url) as sink:
        await sink.write([update(9_999, 3, "newest")])
        await sink.write([insert(1 + n, n, "x") for n in range(2 * KEYS_MAX + 7)] + [delete(8_000, 5)])
    seen = names(valkey)
    assert len(seen) == 2 * KEYS_MAX + 6
    assert seen[3] == "newest"


async def test_without_the_guard_no_positions_are_kept(url: str, valkey: redis.Redis) -> None:
    async with cache(url, guard=False) as sink:
        await sink.write([update(5, 1, "new")])
        await sink.write([update(4, 1, "old"), insert(6, 2, "b"), delete(7, 2)])
    assert valkey.keys() == [b"product:1"]
    assert names(valkey) == {1: "old"}


def history(keys: Sequence[int], steps: Sequence[tuple[str, int, int]]) -> list[Change]:
    """Changes that a table could have seen: a row is inserted where there is none, changed where there is one."""
    alive: set[int] = set()
    changes: list[Change] = []
    for at, (wish, one, other) in enumerate(steps, 1):
        key, target = keys[one % len(keys)], keys[other % len(keys)]
        if wish == "truncate":
            changes.append(truncate(at))
            alive.clear()
        elif key not in alive:
            changes.append(insert(at, key, f"v{at}"))
            alive.add(key)
        elif wish == "delete":
            changes.append(delete(at, key))
            alive.discard(key)
        elif wish == "move" and target not in alive:
            changes.append(update(at, target, f"v{at}", before=key))
            alive.symmetric_difference_update({key, target})
        else:
            changes.append(update(at, key, f"v{at}"))
    return changes


def model(changes: Sequence[Change]) -> dict[int, str]:
    """The newest that was said about each key, whatever the order it was said in."""
    newest: dict[int, tuple[int, str | None]] = {}
    floor = max((c.position.commit_lsn for c in changes if c.operation == "truncate"), default=0)
    for it in changes:
        at = it.position.commit_lsn
        said = [] if it.operation == "truncate" else [(it.key[0], None if it.operation == "delete" else it.row["name"])]
        if it.key_before is not None:
            said.append((it.key_before[0], None))
        for key, name in said:
            if at > newest.get(key, (floor, None))[0]:
                newest[key] = (at, name)
    return {key: name for key, (_, name) in newest.items() if name is not None}


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "write", "delete", "move", "truncate"]), st.integers(0, 4), st.integers(0, 4)),
    max_size=25,
)


@pytest.mark.parametrize("form", ["json", "hash"])
@pytest.mark.parametrize("expire_seconds", [None, 600.0])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, cuts=st.lists(st.integers(0, 25), max_size=6), disorder=st.randoms(use_true_random=False))
def test_any_order_of_redelivery_ends_with_the_newest(
    url: str, valkey: redis.Redis, form: Any, expire_seconds: float | None, steps: Any, cuts: Any, disorder: Any
) -> None:
    changes = history([1, 2, 3, 4, 5], steps)
    edges = sorted({0, len(changes), *(min(cut, len(changes)) for cut in cuts)})
    batches = [changes[a:b] for a, b in pairwise(edges)]
    batches += disorder.choices(batches, k=len(batches)) if batches else []
    disorder.shuffle(batches)
    valkey.flushall()

    async def run() -> None:
        async with cache(url, format=form, expire_seconds=expire_seconds) as sink:
            for batch in batches:
                await sink.write(batch)

    asyncio.run(run())
    if form == "json":
        seen = names(valkey)
    else:
        rows = map(valkey.hgetall, valkey.keys("product:*"))
        seen = {int(row[b"id"]): row[b"name"].decode() for row in rows}
    assert seen == model(changes)


# --- what is written ---


async def test_json_of_the_chosen_columns(url: str, valkey: redis.Redis) -> None:
    async with cache(url, columns=["id", "stock"]) as sink:
        await sink.write([change("read", new={"id": 1, "name": "a", "stock": 5})])
    assert json.loads(valkey.get("product:1")) == {"id": 1, "stock": 5}


async def test_a_hash_has_a_field_for_each_value_and_none_for_null(url: str, valkey: redis.Redis) -> None:
    async with cache(url, format="hash") as sink:
        await sink.write([change("insert", new={"id": 1, "name": "a", "stock": 5}, lsn=1)])
        assert valkey.hgetall("product:1") == {b"id": b"1", b"name": b"a", b"stock": b"5"}
        await sink.write([change("update", new={"id": 1, "name": None, "stock": 6}, lsn=2)])
    assert valkey.hgetall("product:1") == {b"id": b"1", b"stock": b"6"}


@pytest.mark.parametrize("form", ["json", "hash"])
@pytest.mark.parametrize("guard", [True, False])
async def test_entries_and_positions_expire_together(url: str, valkey: redis.Redis, form: Any, guard: bool) -> None:
    async with cache(url, format=form, expire_seconds=90.5, guard=guard) as sink:
        await sink.write([insert(1, 1, "a")])
    assert 80_000 < valkey.pttl("product:1") <= 90_500
    if guard:
        assert abs(valkey.pttl("product:1") - valkey.pttl("@product:1")) < 5_000


async def test_the_old_key_goes_in_the_same_call_as_the_new_one_comes(url: str, valkey: redis.Redis) -> None:
    async with cache(url) as sink:
        await sink.write([insert(1, 1, "a")])
        valkey.config_resetstat()
        await sink.write([update(2, 2, "b", before=1)])
    assert valkey.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
    assert names(valkey) == {2: "b"}


async def test_a_key_of_another_column_follows_that_column(url: str, valkey: redis.Redis) -> None:
    before, after = {"id": 1, "name": "a", "blob": "x"}, {"id": 1, "name": "b", "blob": "x"}
    async with cache(url, "blob:{name}") as sink:
        await sink.write([change("insert", FULL, new=before, lsn=1)])
        await sink.write([change("update", FULL, new=after, old=before, lsn=2)])
        assert valkey.keys("blob:*") == [b"blob:b"]
        await sink.write([change("delete", FULL, old=after, lsn=3)])
    assert valkey.keys("blob:*") == []


@pytest.mark.parametrize("form", ["json", "hash"])
async def test_a_key_that_could_change_unseen_is_refused(url: str, valkey: redis.Redis, form: Any) -> None:
    batch = [
        change("insert", BLOBS, new={"id": 1, "name": "a"}, lsn=1),
        change("update", BLOBS, new={"id": 1, "name": "b"}, lsn=2),
    ]
    async with cache(url, "blob:{name}", format=form) as sink:
        with pytest.raises(PartlyWritten) as caught:
            await sink.write(batch)
    assert caught.value.settled == 1
    assert rejection(caught).startswith("key_unavailable: public.blobs.name")
    assert valkey.exists("blob:a")


async def test_lost_scripts_are_loaded_again(url: str, valkey: redis.Redis) -> None:
    async with cache(url) as sink:
        valkey.script_flush()
        await sink.write([insert(1, 1, "a")])
    assert names(valkey) == {1: "a"}


# --- large values that were not sent again ---


async def test_json_takes_an_unchanged_value_from_the_old_row(url: str, valkey: redis.Redis) -> None:
    old = {"id": 1, "name": "a", "blob": "long"}
    async with cache(url, "blob:{id}") as sink:
        await sink.write([change("update", FULL, new={"id": 1, "name": "b", "blob": UNCHANGED}, old=old)])
    assert json.loads(valkey.get("blob:1")) == {"id": 1, "name": "b", "blob": "long"}


async def test_json_without_the_value_is_rejected_and_what_came_before_is_written(
    url: str, valkey: redis.Redis
) -> None:
    batch = [
        change("insert", BLOBS, new={"id": 1, "name": "a", "blob": "x"}, lsn=1),
        change("insert", BLOBS, new={"id": 2, "name": "a", "blob": "x"}, lsn=2),
        change("update", BLOBS, new={"id": 1, "name": "b", "blob": UNCHANGED}, lsn=3),
        change("update", BLOBS, new={"id": 2, "name": "b", "blob": UNCHANGED}, lsn=4),
    ]
    async with cache(url, "blob:{id}") as sink:
        with pytest.raises(PartlyWritten) as caught:
            await sink.write(batch)
        assert caught.value.settled == 2
        assert rejection(caught).startswith("toast_unavailable: public.blobs.blob")
        assert "REPLICA IDENTITY FULL" in caught.value.cause.remedy
        assert names(valkey, "blob:") == {1: "a", 2: "a"}
    async with cache(url, "blob:{id}", columns=["id", "name"]) as sink:
        await sink.write(batch)
    assert names(valkey, "blob:") == {1: "b", 2: "b"}


async def test_an_unchanged_value_a_later_change_sends_is_not_missed(url: str, valkey: redis.Redis) -> None:
    batch = [
        change("update", BLOBS, new={"id": 1, "name": "b", "blob": UNCHANGED}, lsn=1),
        change("update", BLOBS, new={"id": 1, "name": "c", "blob": "new"}, lsn=2),
    ]
    async with cache(url, "blob:{id}") as sink:
        await sink.write(batch)
    assert names(valkey, "blob:") == {1: "c"}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("guard", [True, False])
async def test_a_hash_keeps_the_field_it_has(url: str, valkey: redis.Redis, together: bool, guard: bool) -> None:
    first = change("insert", BLOBS, new={"id": 1, "name": "a", "blob": "long"}, lsn=1)
    second = change("update", BLOBS, new={"id": 1, "name": None, "blob": UNCHANGED}, lsn=2)
    async with cache(url, "blob:{id}", format="hash", guard=guard) as sink:
        for batch in [[first, second]] if together else [[first], [second]]:
            await sink.write(batch)
    assert valkey.hgetall("blob:1") == {b"id": b"1", b"blob": b"long"}


async def test_a_part_of_a_row_never_becomes_a_hash(url: str, valkey: redis.Redis) -> None:
    async with cache(url, "blob:{id}", format="hash") as sink:
        await sink.write([change("update", BLOBS, new={"id": 1, "name": "a", "blob": UNCHANGED}, lsn=2)])
        assert not valkey.exists("blob:1")
        with pytest.raises(PartlyWritten) as caught:
            await sink.write([change("update", BLOBS, new={"id": 2, "blob": UNCHANGED}, old={"id": 1}, lsn=3)])
    assert rejection(caught).startswith("toast_unavailable: public.blobs.blob")


# --- reading back ---


@pytest.mark.parametrize("form", ["json", "hash"])
async def test_it_says_which_change_wrote_an_entry_last(url: str, valkey: redis.Redis, form: Any) -> None:
    shape = insert(1, 1, "a").table
    names = [b"product:1", b"product:2", b"product:9"]
    async with cache(url, format=form) as sink:
        await sink.write([insert(3, 1, "a"), insert(4, 2, "b"), update(5, 1, "c")])
        await sink.write([delete(6, 2)])
        assert await sink.written_by(shape, names) == [change(lsn=5).position, change(lsn=6).position, None]
        # Who writes by hand leaves the position as it was.
        valkey.delete("product:1")
        assert await sink.written_by(shape, names[:1]) == [change(lsn=5).position]
        await sink.write([truncate(8)])
        assert await sink.written_by(shape, names) == [change(lsn=8).position] * 3
        valkey.set("@product:9", "not a position")
        valkey.delete("@@product:{id}")
        assert await sink.written_by(shape, names[2:]) == [None]


async def test_without_the_guard_nobody_knows_which_change_wrote_an_entry(url: str) -> None:
    async with cache(url, guard=False) as sink:
        await sink.write([insert(3, 1, "a")])
        assert await sink.written_by(insert(1, 1, "a").table, [b"product:1"]) is None


# --- truncate ---


async def test_a_truncate_leaves_entries_of_another_template(url: str, valkey: redis.Redis) -> None:
    async with cache(url) as sink, cache(url, "product:{id}:{stock}") as other:
        for one in (sink, other):
            await one.write([insert(1, 1, "a")])
        await sink.write([truncate(2)])
    assert valkey.keys("product:*") == [b"product:1:0"]


@pytest.mark.parametrize("form", ["json", "hash"])
async def test_a_truncate_deletes_its_entries_and_nobody_elses(url: str, valkey: redis.Redis, form: Any) -> None:
    others = {"product:1:reviews": "theirs", "products": "theirs", "other:1": "theirs", "product:77": "theirs"}
    valkey.mset(others)
    async with cache(url, format=form) as sink:
        await sink.write([insert(1 + n, n, "a") for n in range(50)])
        await sink.write([insert(200, 60, "newer")])
        await sink.write([truncate(100)])
        await sink.write([insert(7, 6, "older")])
    assert {key.decode() for key in valkey.keys("*") if not key.startswith(b"@")} == {*others, "product:60"}
    assert set(valkey.keys("@*")) == {b"@@product:{id}", b"@product:60"}


async def test_a_truncate_of_more_than_one_scan_is_whole(url: str, valkey: redis.Redis) -> None:
    async with cache(url, "p:{id}", guard=False) as sink:
        await sink.write([insert(1 + n, n, "a") for n in range(3 * KEYS_MAX)])
        await sink.write([truncate(9_999)])
    assert valkey.dbsize() == 0


async def test_a_truncate_may_be_ignored(url: str, valkey: redis.Redis) -> None:
    async with cache(url, "{id}", on_truncate="ignore") as sink:
        await sink.write([insert(1, 1, "a"), truncate(2)])
    assert valkey.exists("1")


# --- errors ---


async def test_a_key_of_another_type_puts_aside_its_own_change_only(url: str, valkey: redis.Redis) -> None:
    valkey.set("product:2", "not a hash")
    async with cache(url, format="hash") as sink:
        with pytest.raises(PartlyWritten) as caught:
            await sink.write([insert(1, 1, "a"), insert(2, 2, "secret"), insert(3, 3, "c")])
    assert caught.value.settled == 1
    assert rejection(caught).startswith("wrong_type")
    assert "public.products" in rejection(caught)
    assert "secret" not in str(caught.value)
    assert valkey.hget("product:1", "name") == b"a"


async def test_of_a_refused_key_not_even_its_first_change_counts(url: str, valkey: redis.Redis) -> None:
    valkey.set("product:2", "not a hash")
    async with cache(url, format="hash") as sink:
        with pytest.raises(PartlyWritten) as caught:
            await sink.write([insert(1, 1, "a"), insert(2, 2, "b"), insert(3, 3, "c"), update(4, 2, "d")])
    assert caught.value.settled == 1


@pytest.mark.parametrize("form", ["json", "hash"])
async def test_no_memory_is_for_later(url: str, valkey: redis.Redis, form: Any) -> None:
    async with cache(url, format=form) as sink:
        valkey.config_set("maxmemory", "1")
        try:
            with pytest.raises(SinkUnavailable, match="does not take writes"):
                await sink.write([insert(1, 1, "a")])
        finally:
            valkey.config_set("maxmemory", "0")
        await sink.write([insert(1, 1, "a")])


async def test_a_missing_column_is_rejected(url: str) -> None:
    for options in ({"key": "p:{idd}"}, {"columns": ["idd"]}):
        async with cache(url, **options) as sink:
            with pytest.raises(PartlyWritten, match=r"column_missing: .*'idd'"):
                await sink.write([insert(1, 1, "a")])


async def test_bytes_that_are_no_text_are_rejected(url: str) -> None:
    shape: Table = table("public.t", {"id": "int8", "name": "text"})
    data = b"\0" + tuple_data(shape, {"id": 1, "name": "xx"}).replace(b"xx", b"\xff\xfe")
    bad = Change(INSERT, shape, transaction(), 0, data, 1, 0, False)
    async with cache(url) as sink:
        with pytest.raises(PartlyWritten, match="cannot be written as JSON"):
            await sink.write([bad])


async def test_a_server_that_is_away_is_named_and_a_password_is_not() -> None:
    sink = RedisCache("product:{id}", url="redis://me:hush@127.0.0.1:1/0")
    with pytest.raises(SinkUnavailable, match=r"127\.0\.0\.1:1/0") as caught:
        await sink.open()
    assert "127.0.0.1:1" in caught.value.remedy
    assert "hush" not in caught.value.message + caught.value.remedy + str(sink.describe())
    await sink.close()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"key": "product"}, "names no column"),
        ({"key": "{id}"}, "on_truncate='ignore'"),
        ({"format": "xml"}, "neither 'json' nor 'hash'"),
        ({"expire_seconds": 0}, "not more than 0"),
        ({"columns": "id"}, "a list of column names"),
        ({"columns": []}, "a list of column names"),
        ({"on_truncate": "drop"}, "neither 'delete' nor 'ignore'"),
        ({"url": "cache:6379"}, "not the address"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisCache(**{"key": "product:{id}", **options})
    assert fault in caught.value.message


def test_it_describes_itself() -> None:
    assert RedisCache("p:{id}", url="redis://me:hush@cache:7000/2", expire_seconds=5, columns=("id",)).describe() == {
        "kind": "redis_cache",
        "server": "cache:7000/2",
        "key": "p:{id}",
        "format": "json",
        "expire_seconds": 5,
        "columns": ["id"],
        "guard": True,
        "on_truncate": "delete",
    }


def test_it_says_which_row_an_entry_is_of() -> None:
    items = table("public.items", {"id": "int8", "note": "text"}, replica_identity="f")
    pairs = table("public.pairs", {"a": "text", "b": "text"}, ("a", "b"))
    assert isinstance(RedisCache("p:{id}"), Repairable)
    assert RedisCache("p:{id}").keys_of(items, [b"p:7", b"p:x"]) == [
        {"id": "7"},
        "more than one row may have this key, or none",
    ]
    for of, key in ((items, "p:{note}"), (items, "p:{id}:{note}"), (pairs, "p:{a}")):
        assert RedisCache(key).keys_of(of, [b"p:7:8"]) == [f"{key!r} is not made from the primary key"]
    # A delete of its row would be refused.
    insert_only = make_table(7, "public", "items", "n", [("id", 20, -1, False)], ["id"])
    (why,) = RedisCache("p:{id}").keys_of(insert_only, [b"p:7"])
    assert "key_unavailable" in str(why)
    assert RedisCache("p:{b}:{a}").keys_of(pairs, [b"p:1:2"]) == [{"b": "1", "a": "2"}]
