"""How benches measure: wall time per call, as a ratio to a peer in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np


def times_ms(action: Callable[[], Any], repeats: int, warm_up: int = 1) -> list[float]:
    """Milliseconds of each of ``repeats`` calls, after ``warm_up`` that do not count."""
    for _ in range(warm_up):
        action()
    taken = []
    for _ in range(repeats):
        since = time.perf_counter()
        action()
        taken.append((time.perf_counter() - since) * 1000)
    return taken


def row(name: str, ours_ms: list[float], peer: str = "", peer_ms: list[float] | None = None) -> dict[str, Any]:
    """One line of a bench: p50 and p95 of ours, p50 of the peer, and ours / peer."""
    p50 = float(np.percentile(ours_ms, 50))
    peer_p50 = float(np.percentile(peer_ms, 50)) if peer_ms else None
    return {
        "name": name,
        "p50_ms": round(p50, 3),
        "p95_ms": round(float(np.percentile(ours_ms, 95)), 3),
        "peer": peer or None,
        "peer_p50_ms": round(peer_p50, 3) if peer_p50 is not None else None,
        "ratio": round(p50 / peer_p50, 3) if peer_p50 else None,
    }
