"""How benches measure memory: what a process held at its peak, from a moment on."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """The peak of this process from now on, and what it held already.

    Only Linux can start anew; elsewhere the peak is that of the whole life of the process, which is the same in a
    process that does one thing, and on Windows there is none (0).
    """

    def __init__(self) -> None:
        if _CLEAR.exists():
            _CLEAR.write_text("5")  # proc(5): the peak starts from what is held now
        self.before_mb = _held_mb("VmRSS")

    def process_mb(self) -> float:
        """Peak of the process, libraries included."""
        return _held_mb("VmHWM")

    def growth_mb(self) -> float:
        """Peak above what was held at the start."""
        return self.process_mb() - self.before_mb


def _held_mb(field: str) -> float:
    """A line of the process's status in MB (1e6 bytes)."""
    if _STATUS.exists():
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        return int(lines[field].split()[0]) * 1024 / 1e6
    if sys.platform == "win32":
        return 0.0
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
