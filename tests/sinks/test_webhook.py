"""The whole sink against a real receiver: what it sends, in which order, what it reports, what it never shows."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from standardwebhooks import Webhook as Judge

from backend_watcher.contracts import Receipt, Sink
from backend_watcher.errors import ConfigError, SinkFailed, SinkRejected, SinkUnavailable, SomeFailed
from backend_watcher.service.config import load_config
from backend_watcher.service.declared import wanted_of
from backend_watcher.sinks import Webhook
from backend_watcher.testing import builders
from sinks.receiver import OLDER, PRODUCTS, SECRET, Came, hook, hooked, receiving, row, rows


async def test_a_change_is_one_signed_request() -> None:
    async with receiving() as receiver, hooked(receiver.url, headers={"X-Shop": "one"}, token="t0ken") as sink:
        change = row(7, "Süß", 0x16B3748)
        assert await sink.write([change]) is Receipt.DURABLE
        (came,) = receiver.came
        read = Judge(SECRET).verify(came.body, came.headers)
    assert came.id == "7000000000000000001:test_slot:0-16B3748:0"
    assert abs(int(came.headers["webhook-timestamp"]) - time.time()) < 5
    assert (read["type"], read["data"]["event_id"]) == ("products.update", change.event_id)
    assert read["data"]["new"] == {"id": 7, "name": "Süß", "stock": 1}
    sent = {name: came.headers[name] for name in ("content-type", "x-shop", "authorization", "accept-encoding")}
    assert sent == {
        "content-type": "application/json",
        "x-shop": "one",
        "authorization": "Bearer t0ken",
        "accept-encoding": "identity",
    }


async def test_both_secrets_sign_during_a_rotation() -> None:
    async with receiving() as receiver, hooked(receiver.url, secret=[SECRET, OLDER]) as sink:
        await sink.write(rows((1, "a")))
        for secret in (SECRET, OLDER):
            Judge(secret).verify(receiver.came[0].body, receiver.came[0].headers)


async def test_a_retry_has_the_same_id_and_a_new_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail_twice(came: Came) -> int:
        return 500 if len(receiver.came) < 3 else 200

    now = time.time()
    async with receiving(fail_twice) as receiver:
        # Each attempt is by a sink of its own, as after a restart.
        for attempt in range(3):
            moment = now - 60 + 30 * attempt
            monkeypatch.setattr("backend_watcher.sinks.webhook.time", SimpleNamespace(time=lambda at=moment: at))
            async with hooked(receiver.url) as sink:
                if attempt < 2:
                    with pytest.raises(SomeFailed, match="answered 500"):
                        await sink.write(rows((1, "a")))
                else:
                    await sink.write(rows((1, "a")))
        for came in receiver.came:
            Judge(SECRET).verify(came.body, came.headers)
    assert len({came.id for came in receiver.came}) == 1
    assert len({came.body for came in receiver.came}) == 1
    assert len({came.headers["webhook-timestamp"] for came in receiver.came}) == 3
    assert len({came.headers["webhook-signature"] for came in receiver.came}) == 3


async def test_of_one_key_one_after_the_other_and_keys_at_once() -> None:
    under_way: Counter[int] = Counter()
    most, overlaps = 0, 0

    async def answer(came: Came) -> int:
        nonlocal most, overlaps
        key = came.json["data"]["key"]["id"]
        under_way[key] += 1
        overlaps += under_way[key] > 1
        most = max(most, under_way.total())
        for _ in range(hash(came.id) % 30):
            await asyncio.sleep(0)
        under_way[key] -= 1
        return 204

    wanted = [(n % 10, str(n)) for n in range(400)]
    async with receiving(answer) as receiver, hooked(receiver.url, connections=4) as sink:
        # Two batches at once, of different keys, share the connections.
        halves = [[row(k, n, 0x1000 + int(n)) for k, n in wanted if (k < 5) is first] for first in (True, False)]
        await asyncio.gather(*[sink.write(half) for half in halves])
    assert (overlaps, most) == (0, 4)
    for key in range(10):
        names = [came.name for came in receiver.came if came.json["data"]["key"]["id"] == key]
        assert names == [name for k, name in wanted if k == key]


async def test_waiting_for_a_connection_is_not_counted_as_the_receiver_s_time() -> None:
    async def answer(came: Came) -> int:
        await asyncio.wait([asyncio.Future()], timeout=0.3)
        return 204

    async with receiving(answer) as receiver, hooked(receiver.url, connections=1, timeout_seconds=1) as sink:
        # The last begins after 1.2 s.
        await asyncio.gather(*[sink.write([row(n, "a", n)]) for n in range(5)])
        assert len(receiver.came) == 5


async def test_what_failed_is_named_exactly() -> None:
    async def answer(came: Came) -> int:
        return {"bad": 500, "never": 413}.get(came.name, 200)

    batch = rows((1, "a"), (2, "bad"), (3, "c"), (2, "later"), (1, "d"), (4, "never"), (2, "last"))
    async with receiving(answer) as receiver, hooked(receiver.url) as sink:
        with pytest.raises(SomeFailed) as caught:
            await sink.write(batch)
    assert {index: type(error) for index, error in caught.value.failures.items()} == {
        1: SinkFailed,
        3: SinkFailed,
        5: SinkRejected,
        6: SinkFailed,
    }
    assert "earlier change of the same key" in str(caught.value.failures[3])
    assert sorted(came.name for came in receiver.came) == ["a", "bad", "c", "d", "never"]


async def test_a_receiver_that_is_busy_is_left_alone() -> None:
    async def answer(came: Came) -> int:
        return 200 if len(receiver.came) <= 10 else 503

    async with receiving(answer) as receiver, hooked(receiver.url, connections=2) as sink:
        with pytest.raises(SomeFailed) as caught:
            await sink.write(rows(*[(n, str(n)) for n in range(200)]))
        assert {type(error) for error in caught.value.failures.values()} == {SinkUnavailable}
        delivered = {int(came.name) for came in receiver.came[:10]}
        assert set(caught.value.failures) == set(range(200)) - delivered
        assert len(receiver.came) <= 12


async def test_a_change_that_is_too_large_is_not_sent() -> None:
    async with receiving() as receiver, hooked(receiver.url) as sink:
        with pytest.raises(SomeFailed) as caught:
            await sink.write(rows((1, "x" * 5_000_000), (2, "b")))
        failure = caught.value.failures[0]
        assert isinstance(failure, SinkRejected)
        assert "too_large" in str(failure)
        assert "max_bytes is 1000000" in str(failure)
        assert "5000" in str(failure)
        assert [came.name for came in receiver.came] == ["b"]


async def test_a_large_change_is_sent_where_that_is_allowed() -> None:
    async with receiving() as receiver, hooked(receiver.url, max_bytes=10_000_000) as sink:
        await sink.write(rows((1, "x" * 5_000_000)))
        Judge(SECRET).verify(receiver.came[0].body, receiver.came[0].headers)


async def test_opening_sends_nothing() -> None:
    async with receiving() as receiver, hooked(receiver.url):
        assert receiver.came == []


async def test_a_thousand_answers_that_are_lost_come_again_with_their_ids() -> None:
    async def lose(came: Came) -> int:
        # Taken, and the answer is another: half of the first attempts.
        first = sum(1 for other in receiver.came if other.id == came.id) == 1
        return 500 if first and int(came.name) % 2 else 200

    async with receiving(lose) as receiver, hooked(receiver.url) as sink:
        rest = rows(*[(n, str(n)) for n in range(1000)])
        with pytest.raises(SomeFailed) as caught:
            await sink.write(rest)
        assert set(caught.value.failures) == set(range(1, 1000, 2))
        await sink.write([rest[index] for index in sorted(caught.value.failures)])
    ids = Counter(came.id for came in receiver.came)
    assert (len(ids), ids.total()) == (1000, 1500)
    # A receiver that remembers ids has each change once.
    assert {came.name for came in receiver.came} == {str(n) for n in range(1000)}


def test_what_it_says_of_itself_holds_no_secret() -> None:
    sink = hook(
        "https://hooks.example.com:8443/T0/hunter2?key=hunter2",
        secret=[SECRET, OLDER],
        token="hunter2",
        headers={"X-Key": "hunter2"},
        exclude=["photo"],
    )
    assert isinstance(sink, Sink)
    described = sink.describe()
    assert described["receiver"] == "https://hooks.example.com:8443"
    assert (described["kind"], described["secrets"], described["headers"]) == ("webhook", 2, ["X-Key"])
    for text in (json.dumps(described), repr(sink)):
        assert "hunter2" not in text
        assert "whsec" not in text
        assert SECRET.removeprefix("whsec_") not in text


HEADERS = {"A\r\nB": "x", "A": "x\r\nB: y", "A:": "x", "Ä": "x", "B": "ä", "C": "x\x00", "D": "", "E": " x", "": "x"}
OURS = ["Host", "content-LENGTH", "Transfer-Encoding", "Webhook-Id", "webhook-anything", "Cookie", "Accept-Encoding"]


@pytest.mark.parametrize("headers", [{name: value} for name, value in HEADERS.items()] + [{name: "x"} for name in OURS])
def test_headers_that_say_something_else_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^headers: .*; right would be"):
        hook("https://example.com", headers=headers)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"headers": {"A": "x", "a": "y"}}, "headers: a name stands there twice"),
        ({"headers": {"Authorization": "x"}, "token": "y"}, "and token too"),
        ({"headers": ["A"]}, "headers: a table"),
        ({"token": "a b"}, "token: it cannot be sent"),
        ({"token": "a\r\nb"}, "token: it cannot be sent"),
        ({"connections": 0}, "connections: 0; right would be"),
        ({"connections": 1000}, "connections: 1000"),
        ({"timeout_seconds": 0}, "timeout_seconds: 0"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds: nan"),
        ({"max_bytes": 0}, "max_bytes: 0"),
        ({"type": "{id}"}, "type: "),
        ({"allow_networks": ["x"]}, "allow_networks: 'x' is no network"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        hook("https://example.com", **options)
    assert says in str(caught.value)


def test_every_fault_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Webhook("http://hunter2@10.0.0.1", secret="hunter2", type="{x}", connections=0, headers={"Host": "hunter2"})
    said = [fault.partition(":")[0] for fault in caught.value.faults]
    assert said == ["url", "url", "url", "secret", "type", "headers", "connections"]
    assert "hunter2" not in str(caught.value)


TOML = """
[[subscription]]
name = "partner"
sink = "webhook"
table = "products"
url = "https://hooks.example.com/shop"
secret = "env:HOOK_SECRET"
token = "file:{token}"
type = "shop.{{table}}.{{operation}}"
timeout_seconds = 7

[subscription.headers]
X-Shop = "one"
"""


def test_it_is_declared_in_a_file_with_its_secrets_elsewhere(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("hunter2\n")
    token.chmod(0o600)
    path = tmp_path / "watcher.toml"
    path.write_text('name = "shop"\n[source]\ndsn = "postgresql://127.0.0.1/shop"\n' + TOML.format(token=token))
    config = load_config(path, {"HOOK_SECRET": f"{SECRET} {OLDER}"}, watcher=None)
    (wanted,) = wanted_of(config, None)
    described = wanted.sink.describe()
    assert (described["secrets"], described["type"]) == (2, "shop.{table}.{operation}")
    # Delivery does not time it, so the limit of the subscription is that of each request.
    assert wanted.sink.times_itself
    assert described["timeout_seconds"] == wanted.options.timeout_seconds == 7
    with pytest.raises(ConfigError) as caught:
        load_config(path, {"HOOK_SECRET": "hunter2-hunter2"}, watcher=None)
    assert "secret" in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_a_truncate_and_a_delete_are_sent_too() -> None:
    batch = [
        builders.change("insert", PRODUCTS, new={"id": 1, "name": "a", "stock": 1}, lsn=1),
        builders.change("truncate", PRODUCTS, lsn=2),
        builders.change("delete", PRODUCTS, old={"id": 1}, lsn=3),
    ]
    async with receiving() as receiver, hooked(receiver.url) as sink:
        await sink.write(batch)
        types = [came.json["type"] for came in receiver.came]
    assert types == ["products.insert", "products.truncate", "products.delete"]


def test_its_page_names_every_setting() -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhook.md").read_text()
    described = {name for line in page.splitlines() if line.startswith("| `") for name in re.findall("`(.*?)`", line)}
    assert set(inspect.signature(Webhook).parameters) <= described
