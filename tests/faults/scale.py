"""How much a run does: the short form in every test run, the full form in `make faults`; and what repeats it."""

from __future__ import annotations

import os
import random
import secrets

FULL = os.environ.get("FAULTS_FULL") == "1"


def repeats(short: int, full: int) -> int:
    """How often something is done in this run."""
    return full if FULL else short


def dice(of: str) -> random.Random:
    """Random numbers that `FAULTS_SEED` repeats; the seed is printed."""
    seed = int(os.environ.get("FAULTS_SEED") or secrets.randbits(30))
    print(f"{of}: FAULTS_SEED={seed}")
    return random.Random(f"{seed} {of}")
