"""What a run found: figures of both phases, the proof, and the verdict. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backend_watcher.demo.figures import percentile, summary
from backend_watcher.demo.measure import Delays
from backend_watcher.demo.proof import Proof


@dataclass(frozen=True, slots=True)
class PhaseReport:
    """One phase: what the customers saw, and what the proof found afterwards."""

    orders: int
    failed: int
    failure: str | None
    latencies_ms: Sequence[float]
    proof: Proof

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return summary(self.latencies_ms) | {
            "orders": self.orders,
            "failed": self.failed,
            "crossings": self.proof.crossings,
            "lost": len(self.proof.lost),
            "wrong": len(self.proof.wrong),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """Both phases."""

    rate: float
    seconds: float
    sellers_latency_ms: str
    inline: PhaseReport
    watched: PhaseReport
    cache: Delays
    handler: Delays
    revenue: Delays
    kills: int

    @property
    def outage_ms(self) -> float | None:
        """From SIGKILL until the cache was up to date again."""
        return self.cache.outage_ms

    def faults(self) -> list[str]:
        """Say what is wrong; nothing if all is well. Speed is a figure, not a fault."""
        found = self.watched.proof.complaints()
        for name, phase in (("inline", self.inline), ("watched", self.watched)):
            if phase.failed:
                found.append(f"{name}: {phase.failed} requests failed, the first with {phase.failure}")
            if not phase.orders or not phase.proof.crossings:
                found.append(f"{name}: there was nothing to compare")
        if self.inline.orders != self.watched.orders:
            found.append(f"the phases took {self.inline.orders} and {self.watched.orders} orders")
        if self.inline.proof.revenue_rupiah != self.watched.proof.revenue_rupiah:
            found.append("the phases sold for different amounts")
        if self.kills != 1:
            found.append(f"the watcher was killed {self.kills} times, not once")
        return found

    @property
    def ok(self) -> bool:
        """Nothing lost, nothing wrong, and the phases did the same."""
        return not self.faults()

    @property
    def verdict(self) -> str:
        """One line that ends in `ok`, or says what is wrong."""
        faults = self.faults()
        if faults:
            return "not ok: " + "; ".join(faults)
        before, after = percentile(self.inline.latencies_ms, 99), percentile(self.watched.latencies_ms, 99)
        return (
            f"{self.watched.proof.changes:,} changes delivered, none lost, none wrong, the watcher killed once; "
            f"p99 of an order {before:.0f} ms inline, {after:.0f} ms watched: ok"
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        proof = self.watched.proof
        return {
            "seconds": self.seconds,
            "rate": self.rate,
            "sellers_latency_ms": self.sellers_latency_ms,
            "inline": self.inline.to_json(),
            "watched": self.watched.to_json(),
            "changes": proof.changes,
            "commit_to_cache_ms": _delays(self.cache),
            "commit_to_handler_ms": _delays(self.handler),
            "commit_to_revenue_ms": _delays(self.revenue),
            "notified": proof.notified,
            "duplicates": proof.duplicates,
            "revenue_rupiah": proof.revenue_rupiah,
            "lost": len(proof.lost),
            "wrong": len(proof.wrong),
            "kills": self.kills,
            "outage_ms": self.outage_ms,
            "ok": self.ok,
            "verdict": self.verdict,
        }


def _delays(found: Delays) -> dict[str, float | int | None]:
    values = summary(found.values_ms)
    return {"p50": values["p50_ms"], "p99": values["p99_ms"], "samples": len(found.values_ms)}
