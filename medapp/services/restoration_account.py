"""Runs the slices of a series, or its volume, and keeps count of what changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.errors import ComputeError
from medapp.networks.routing import RouterChoice, averaged
from medapp.progress import Progress
from medapp.restoration.classical import FilterRestorer, content_noise
from medapp.restoration.restorer import NetworkRestorer, Restored, Restorer
from medapp.restoration.tiling import Maps
from medapp.restoration.trust import ANSWERS, restore_volume_with_trust, restore_with_trust
from medapp.scan.scan import Scan, Window

_SAMPLED = 4096  # values of the spread a slice, for its median


@dataclass(frozen=True)
class Made:
    """A restored slice or volume in native units, with the spread of its answers where a trust map was wanted."""

    values: NDArray
    spread: NDArray[np.float32] | None = None


@dataclass
class Account:
    """Runs slices or the volume, and keeps count of what changed.

    Attributes:
        wants_trust: Eight answers instead of one.
        routing: What each router of the network chose, by slice; a volume's stands under its first slice.
    """

    restorer: Restorer
    strength: float
    wants_trust: bool = False
    shift_sum: float = 0.0
    voxels: int = 0
    outside: int = 0
    tile_px: int = 0
    noise: list[tuple[float, float]] = field(default_factory=list)
    routing: dict[int, tuple[RouterChoice, ...]] = field(default_factory=dict)
    spreads: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def device(self) -> str:
        """Where it runs."""
        return str(self.restorer.model.device) if isinstance(self.restorer, NetworkRestorer) else "cpu"

    def slice_of(
        self, scan: Scan, z: int, maps: Maps, progress: Progress, answered: Callable[[], None] | None = None
    ) -> Made:
        """One restored slice; padding takes no part and keeps its value."""
        original = np.asarray(scan.slice_values(z))
        padding = scan.padding[z] if scan.padding is not None else None
        given, spread = _without_padding(original, padding), None
        if self.wants_trust:
            trusted = restore_with_trust(self.restorer, given, self.strength, progress, maps, answered=answered)
            restored, spread = trusted.restored, trusted.spread
        else:
            restored = self.restorer.restore_slice(given, self.strength, progress, maps)
        self.routing[z] = restored.routing
        return self._count(original, restored, padding, spread)

    def volume_of(self, scan: Scan, region: slice | None, progress: Progress) -> Made:
        """The restored slices of a region, or of the whole volume."""
        assert isinstance(self.restorer, NetworkRestorer)
        original = np.stack([np.asarray(scan.slice_values(z), np.float32) for z in range(scan.shape[0])])
        given, spread = _without_padding(original, scan.padding), None
        if self.wants_trust:
            trusted = restore_volume_with_trust(self.restorer, given, self.strength, progress, region)
            restored, spread = trusted.restored, trusted.spread
        else:
            restored = self.restorer.restore_volume(given, self.strength, progress, region)
        self.routing[region.start if region else 0] = restored.routing
        chosen = region or slice(None)
        padding = None if scan.padding is None else scan.padding[chosen]
        return self._count(original[chosen], restored, padding, spread)

    def _count(
        self,
        original: NDArray,
        restored: Restored,
        padding: NDArray[np.bool_] | None,
        spread: NDArray[np.float32] | None,
    ) -> Made:
        before, values, padded = restored.before, restored.values, 0
        if before is None:
            before = original
        if padding is not None:
            kept = original
            if restored.before is not None:
                padding, kept = self.restorer.grid.nearest(padding), self.restorer.grid.nearest(original)
            values, before = np.where(padding, kept, values), np.where(padding, kept, before)
            padded = int(padding.sum())
        if not np.isfinite(values).all():
            raise ComputeError(
                "The restored slice holds numbers that are not finite; nothing was kept.", "Use the CPU."
            )
        self.shift_sum += float((values.astype(np.float64) - before).sum())
        self.voxels += values.size - padded
        self.outside += max(0, restored.outside_range - padded)
        self.tile_px = restored.tile_px
        pairs = zip(before, values, strict=True) if self.restorer.dims == 3 else [(before, values)]
        self.noise += [(content_noise(_grey(old)), content_noise(_grey(new))) for old, new in pairs]
        if spread is not None:
            self.spreads.append(spread.reshape(-1)[:: max(1, spread.size // _SAMPLED)].copy())
        return Made(values, spread)

    def provenance(self) -> dict[str, Any]:
        """Which model made it; what export and the header chip read."""
        if not isinstance(self.restorer, NetworkRestorer):
            assert isinstance(self.restorer, FilterRestorer)
            return {"task": "filter", "model_id": self.restorer.id, "model": self.restorer.name, "version": ""}
        card = self.restorer.model.card
        made_by = {
            "task": card.task,
            "model_id": card.id,
            "model": card.name,
            "version": card.version,
            "sha256": card.sha256,
        }
        chosen = {str(z): _plain(choices) for z, choices in sorted(self.routing.items()) if choices}
        return {**made_by, "routing_slices": chosen} if chosen else made_by

    def report(self, scan: Scan, since: float) -> dict[str, Any]:
        """What a person is told after the run, in plain numbers."""
        before, after = (sum(pair[side] for pair in self.noise) for side in (0, 1))
        told: dict[str, Any] = {
            "mean_shift": round(self.shift_sum / max(self.voxels, 1), 4),
            "voxels_outside_range": self.outside,
            "seconds": round(time.perf_counter() - since, 2),
            "device": self.device,
            "tile_px": self.tile_px,
            "model": self.provenance()["model"],
            "unit": "grey levels" if scan.is_colour else scan.unit,
            "strength": self.strength,
        }
        if scan.alpha is not None:
            told["alpha"] = "left out"
        grid = self.restorer.grid
        if grid.factor == 1:  # on a finer grid, what was added would count as noise
            told["noise_change_percent"] = round(100 * (after / before - 1), 1) if before > 0 else 0.0
        else:
            told["grid"] = {"factor": grid.factor, "keeps_centres": grid.keeps_centres}
        if self.spreads:
            median, high = (float(np.percentile(np.concatenate(self.spreads), share)) for share in (50, 99.5))
            told["trust"] = {"answers": ANSWERS, "median": float(f"{median:.4g}"), "high": float(f"{high:.4g}")}
        if isinstance(self.restorer, NetworkRestorer):
            if self.restorer.fills:
                told["keeps_measured"] = self.restorer.keeps_measured
            if self.restorer.enlarges_colours:
                told["keeps_light"] = self.restorer.keeps_light
            if self.tile_px and self.restorer.per_tile:
                told["per_tile"] = list(self.restorer.per_tile)
        routing = averaged(choice for choices in self.routing.values() for choice in choices)
        return {**told, "routing": _plain(routing)} if routing else told


def trust_scan(scan: Scan, stored: NDArray[np.float32], high: float) -> Scan:
    """A trust map as a scan on the grid of its restoration.

    Args:
        scan: The restoration.
        stored: ``(Z, Y, X)`` spread in its unit.
        high: The end of the display window.
    """
    window = Window(high / 2, high) if high > 0 else Window(0.5, 1.0)
    return replace(scan, stored=stored, slope=1.0, intercept=0.0, windows=(window,), is_inverted=False, padding=None)


def _plain(choices: Iterable[RouterChoice]) -> list[dict[str, Any]]:
    return [
        {"name": choice.name, "kind": choice.kind, "shares": [round(share, 4) for share in choice.shares]}
        for choice in choices
    ]


def _without_padding(values: NDArray, padding: NDArray[np.bool_] | None) -> NDArray:
    return values if padding is None else np.where(padding, np.float32(np.nan), values)


def _grey(values: NDArray) -> NDArray:
    return values.mean(axis=2, dtype=np.float32) if values.ndim == 3 else values
