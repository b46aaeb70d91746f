"""A receiver of webhooks that answers badly in every way: nothing is lost, and nothing of a row overtakes another."""

from __future__ import annotations

import ssl
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
import trustme

from backend_watcher.embedded import EmbeddedPostgres

from .hook_receiver import TAKEN, Answer, Receiver, Request
from .judge import judge
from .ledger import Ledger
from .results import Part
from .running import pause, until
from .sampler import Memory
from .scale import repeats
from .shell import RSS_MIB_MAX, SECRET, Scene

ROUNDS = repeats(1, 10)
KEYS = 6
BAD = 1
"""The key whose requests are answered badly."""
PATIENT_SECONDS = 1.0
PUSHED_MAX = 8 << 20
"""Of ten gigabytes: what the system takes off a sender before it notices that nobody reads."""

FAULTS: dict[str, tuple[int, Answer]] = {
    "500": (3, Answer(500, takes=False)),
    "429": (1, Answer(429, takes=False, headers={"Retry-After": "1"})),
    "302": (2, Answer(302, takes=False, headers={"Location": "/elsewhere"})),
    "no answer in time": (1, Answer(takes=False, after=2.0)),
    "a body that drips": (1, Answer(drips=20.0)),
    "200 too late": (2, Answer(after=1.5)),
    "reset after it was taken": (2, Answer(resets=True)),
    "a body that unpacks to 10 GB": (1, Answer(bomb=True)),
}
"""How often, and what."""
TAKEN_AGAIN = {"200 too late", "reset after it was taken"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(repeats(120, 600)),
    pytest.mark.scenario("43", "a webhook's receiver answers badly"),
]


def answers(answer: Answer, times: int) -> Callable[[Request], Answer]:
    """Answer the first requests of each change of the bad key in this way."""
    return lambda request: answer if request.seen.fact.key == BAD and request.number <= times else TAKEN


def write_some(connection: psycopg.Connection, version: int) -> None:
    """Change each row once, and the bad one three times."""
    put = "INSERT INTO items VALUES (%s, %s, '') ON CONFLICT (id) DO UPDATE SET version = excluded.version"
    for more in range(3):
        connection.execute(put, [BAD, version + more])
    for key in range(BAD + 1, KEYS + 1):
        connection.execute(put, [key, version])


def scene_of(folder: Path, postgres: EmbeddedPostgres, receiver: Receiver, **more: str) -> Scene:
    return Scene(folder, postgres, "webhook", FAULTS_URL=receiver.url, FAULTS_SECRET=SECRET, **more)


def test_whatever_a_receiver_answers(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, Receiver() as receiver:
        ledger = Ledger(connection)
        scene = scene_of(tmp_path, postgres, receiver)
        with scene.run() as running, Memory(lambda: running.process.pid) as memory:
            running.wait_for_streaming(connection)
            owed = 0
            for number, (name, (times, answer)) in enumerate([*FAULTS.items()] * ROUNDS):
                receiver.behave = answers(answer, times)
                before = len(receiver.requests)
                write_some(connection, 10 * number + 1)
                owed += KEYS + 2
                took = until(lambda owed=owed: receiver.distinct() == owed, name, 60.0)
                result.add(runs=1, fault_seconds_max=took)
                # What was taken and not answered is still to come again.
                until(partial(come_again, name, receiver, before), name, 30.0)
                check_tries(name, receiver, before)
                print(f"{name}: all delivered after {took:.2f} s, {len(receiver.requests) - before} requests")
            assert running.end() == 0
        facts = ledger.facts()
    repeated = len(receiver.taken) - len(facts)
    result.add(pushed_kib_max=receiver.pushed_max >> 10, rss_mib_max=memory.rss_max >> 20, taken_twice=repeated)
    assert repeated == ROUNDS * sum(3 * FAULTS[name][0] for name in TAKEN_AGAIN)
    assert not [one for one in receiver.requests if one.path != "/hooks"], "a redirect was followed"
    assert receiver.pushed_max <= PUSHED_MAX
    assert memory.rss_max >> 20 <= RSS_MIB_MAX
    judge(facts, receiver.taken).check(result)


def bad_ones(receiver: Receiver, begin: int) -> list[list[Request]]:
    """Return the requests of each change of the bad key."""
    groups: dict[object, list[Request]] = defaultdict(list)
    for request in receiver.requests[begin:]:
        if request.seen.fact.key == BAD:
            groups[request.seen.position].append(request)
    return list(groups.values())


def tries(name: str) -> int:
    """How often each change of the bad key comes: an answer's body decides nothing."""
    times, answer = FAULTS[name]
    return 1 if answer.drips or answer.bomb else times + 1


def come_again(name: str, receiver: Receiver, begin: int) -> bool:
    """Say whether all retries came."""
    return all(len(group) >= tries(name) for group in bad_ones(receiver, begin))


def check_tries(name: str, receiver: Receiver, begin: int) -> None:
    """Each change of the bad key came as often as it had to, under one id, and not at once; the others came once."""
    groups = bad_ones(receiver, begin)
    assert [len(group) for group in groups] == [tries(name)] * 3, (name, groups)
    for group in groups:
        assert len({request.id for request in group}) == 1, "a retry has another id"
        gaps = [after.at - before.at for before, after in pairwise(group)]
        assert all(gap >= 0.09 for gap in gaps), gaps
        if name == "429":
            assert gaps[0] >= PATIENT_SECONDS
    if name == "500":
        # Decorrelated: no two keys or tries wait equally long.
        assert len({round(after.at - before.at, 4) for group in groups for before, after in pairwise(group)}) > 2
    others = [request for request in receiver.requests[begin:] if request.seen.fact.key != BAD]
    assert len(others) == KEYS - 1, (name, others)


def test_410_pauses_until_a_person_resumes(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    gone = Answer(410, takes=False)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, Receiver(answers(gone, 1)) as receiver:
        ledger = Ledger(connection)
        scene = scene_of(tmp_path, postgres, receiver)
        with scene.run() as running:
            running.wait_for_streaming(connection)
            connection.execute(f"INSERT INTO items VALUES ({BAD}, 1, '')")
            took = until(lambda: scene.status_of("hook")["state"] == "paused", "pausing", 30.0)
            assert "410" in scene.status_of("hook")["detail"]
            assert "answered 410" in scene.shell("status")
            connection.execute("INSERT INTO items SELECT n, 1, '' FROM generate_series(2, 20) n")
            connection.execute(f"UPDATE items SET version = 2 WHERE id = {BAD}")
            pause(1.0)
            assert len(receiver.requests) == 1, "it went on by itself"
            receiver.behave = lambda _: TAKEN
            scene.shell("resume", "hook")
            facts = ledger.facts()
            until(lambda: receiver.distinct() == len(facts), "delivering what waited")
            assert scene.status_of("hook")["state"] in ("running", "idle")
            assert running.end() == 0
        result.add(runs=1, pause_seconds_max=took)
        judge(facts, receiver.taken).check(result)


def test_a_wrong_certificate_is_waited_out(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    right, wrong = trustme.CA(), trustme.CA()
    right.cert_pem.write_to_path(tmp_path / "ca.pem")
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, Receiver(tls=server_side(wrong)) as receiver:
        ledger = Ledger(connection)
        scene = scene_of(tmp_path, postgres, receiver, FAULTS_CA=str(tmp_path / "ca.pem"))
        with scene.run() as running:
            running.wait_for_streaming(connection)
            connection.execute("INSERT INTO items SELECT n, 1, '' FROM generate_series(1, 20) n")
            until(lambda: "certificate is not trusted" in (scene.status_of("hook")["error"] or ""), "saying so", 30.0)
            assert receiver.requests == [], "something was sent"
            mend_certificate(receiver, right)
            facts = ledger.facts()
            took = until(lambda: receiver.distinct() == len(facts), "delivering")
            assert running.end() == 0
        result.add(runs=1, recovery_seconds_max=took)
        judge(facts, receiver.taken).check(result)


def mend_certificate(receiver: Receiver, authority: trustme.CA) -> None:
    receiver.hang_up()
    receiver.tls = server_side(authority)
    receiver.listen()


def server_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context
