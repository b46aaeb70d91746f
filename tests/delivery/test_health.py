"""An outage is many keys that fail and none that succeeds, and nothing else."""

from __future__ import annotations

import random

from backend_watcher.delivery.health import OUTAGE_KEYS, Health


def failing(keys: int) -> Health:
    health = Health()
    for number in range(keys):
        health.failed(number)
    return health


def test_it_takes_that_many_keys() -> None:
    assert not failing(0).outage
    assert not failing(OUTAGE_KEYS - 1).outage
    assert failing(OUTAGE_KEYS).outage


def test_one_key_is_no_outage_however_often_it_fails() -> None:
    health = Health()
    for _ in range(100):
        health.failed(7)
    assert not health.outage


def test_a_success_ends_it_and_says_so_once() -> None:
    health = failing(OUTAGE_KEYS)
    assert health.succeeded()
    assert not health.outage
    assert not health.succeeded()
    assert not failing(OUTAGE_KEYS - 1).succeeded()


def test_keys_that_are_no_more_do_not_count() -> None:
    health = failing(OUTAGE_KEYS)
    health.forget(3)
    health.forget(99)
    assert not health.outage
    health.failed(3)
    assert health.outage


def test_it_agrees_with_a_model_that_remembers_everything(dice: random.Random) -> None:
    for _ in range(300):
        health, log = Health(), list[tuple[str, int]]()
        for _ in range(60):
            what, key = dice.choice(["failed"] * 12 + ["forget", "succeeded"]), dice.randrange(14)
            log.append((what, key))
            if what == "succeeded":
                health.succeeded()
            else:
                getattr(health, what)(key)
            since = max((n + 1 for n, (what, _) in enumerate(log) if what == "succeeded"), default=0)
            last = {key: what for what, key in log[since:]}
            assert health.outage == (sum(what == "failed" for what in last.values()) >= OUTAGE_KEYS)
