"""
Lanes: one key in order, many keys at once. Pure.

Changes of one key share a lane and keep their order. A change that concerns more than one key (a truncate, or
an update that gives a row another key) stands alone: every lane is empty before it and waits until it is done.
"""

from __future__ import annotations

from collections.abc import Sequence

from backend_watcher.events.change import Change


def spread(changes: Sequence[Change], lanes: int) -> list[list[Sequence[Change]]]:
    """
    Divide changes into steps to be delivered one after the other; each step has a run for each lane.

    A step with a single run is delivered alone. Runs of one step may be delivered at the same time.
    """
    if lanes == 1:
        return [[changes]]
    steps: list[list[Sequence[Change]]] = []
    runs: list[list[Change]] = [[] for _ in range(lanes)]
    for change in changes:
        lane = change.lane(lanes)
        if lane >= 0:
            runs[lane].append(change)
            continue
        if any(runs):
            steps.append([*runs])
            runs = [[] for _ in range(lanes)]
        steps.append([[change]])
    if any(runs):
        steps.append([*runs])
    return steps
