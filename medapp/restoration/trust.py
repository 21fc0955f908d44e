"""How far the answers of a restorer differ when the same image is turned and mirrored: the trust map.

A restorer should not mind how an image lies. Eight copies of it, turned by quarters and mirrored, are restored and
turned back; where their values differ, the restorer is unsure. Where they agree it may still be wrong: all eight
share its weights and what it was trained on.

Reference:
    Lim et al., "Enhanced deep residual networks for single image super-resolution", CVPR Workshops 2017, section 3.3
    (geometric self-ensemble: the eight ways); Wang et al., "Aleatoric uncertainty estimation with test-time
    augmentation for medical image segmentation with convolutional neural networks", Neurocomputing 2019 (the spread).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medapp.progress import Progress
from medapp.restoration.blending import as_seen
from medapp.restoration.restorer import NetworkRestorer, Restored, Restorer
from medapp.restoration.tiling import Maps

ANSWERS = 8
"""Four quarter turns, each as it is and mirrored; for volumes the eight ways of mirroring three axes."""


@dataclass(frozen=True)
class Trusted:
    """A restoration with how far eight answers differ.

    Attributes:
        restored: What the restorer gives without a trust map, to the bit.
        spread: ``(Y, X)`` or ``(Z, Y, X)`` float32 on the grid of the result, in native units: standard deviation of
            the eight answers, of colours the root of the mean over the channels; 0 where voxels pass unchanged.
        mean: Shaped like the restored values, float32: mean of the eight answers.
    """

    restored: Restored
    spread: NDArray[np.float32]
    mean: NDArray[np.float32]


def restore_with_trust(
    restorer: Restorer,
    values: NDArray,
    strength: float = 1.0,
    progress: Progress | None = None,
    maps: Maps | None = None,
    is_filled: bool = False,
    answered: Callable[[], None] | None = None,
) -> Trusted:
    """Restore one slice eight times; for the arguments see ``Restorer.restore_slice``.

    Args:
        answered: Called after each answer.

    Raises:
        UnsuitableModelError: The slice is not of the kind that the restorer takes, or something it needs is missing.
        ComputeError: Out of memory, or a result that is not finite.
        Cancelled: The user stopped it.
    """
    progress = progress or Progress()
    progress.check()
    given, there = restorer.prepared(as_seen(values), maps, is_filled)
    if strength <= 0.0:
        return _unchanged(restorer.finished(None, values, given, strength, is_filled))
    spread = _Spread()
    first: Restored | None = None
    for answer in range(ANSWERS):
        progress.check()
        quarters, is_mirrored = answer % 4, answer >= 4
        turned = {name: _turned(labels, quarters, is_mirrored) for name, labels in there.items()}
        made = restorer.restore(_turned(given, quarters, is_mirrored), turned, progress)
        first = first or made
        spread.add(_turned_back(made.values, quarters, is_mirrored))
        if answered is not None:
            answered()
    restored = restorer.finished(first, values, given, strength, is_filled)
    return Trusted(restored, spread.deviation(strength, is_colour=values.ndim == 3), spread.mean(restored, strength))


def restore_volume_with_trust(
    restorer: NetworkRestorer, values: NDArray, strength: float, progress: Progress, region: slice | None = None
) -> Trusted:
    """Restore a volume eight times, mirrored along its axes; voxels are rarely cubes, so nothing is turned.

    Args:
        values: ``(Z, Y, X)`` in the scan's unit.
        strength: 0..1, blend with the original.
        progress: Counts answers.
        region: Slices that are wanted; None = all.

    Raises:
        UnsuitableModelError: The model works slice by slice.
        ComputeError: Out of memory, or a result that is not finite.
        Cancelled: The user stopped it.
    """
    progress.start(ANSWERS, "answers", restorer.chip)
    spread = _Spread()
    first: Restored | None = None
    depth = values.shape[0]
    for answer in range(ANSWERS):
        axes = tuple(axis for axis in range(3) if answer >> axis & 1)
        wanted = region
        if region is not None and 0 in axes:
            wanted = slice(depth - region.stop, depth - region.start)
        mirrored = np.ascontiguousarray(np.flip(values, axes))
        made = restorer.restore_volume(mirrored, strength, progress.within(f"Answer {answer + 1}"), wanted)
        first = first or made
        spread.add(np.flip(made.values, axes))
        progress.step()
    assert first is not None
    return Trusted(first, spread.deviation(1.0, is_colour=False), spread.mean(first, 1.0))


class _Spread:
    """Mean and standard deviation of answers, kept as their distances from the first: two arrays, whatever many."""

    def __init__(self) -> None:
        self._first: NDArray[np.float32] | None = None
        self._count = 0

    def add(self, answer: NDArray) -> None:
        """Count one more."""
        self._count += 1
        if self._first is None:
            self._first = np.array(answer, dtype=np.float32)
            self._sum, self._squares = np.zeros_like(self._first), np.zeros_like(self._first)
            return
        distance = np.asarray(answer, np.float32) - self._first
        self._sum += distance
        self._squares += np.square(distance, out=distance)

    def deviation(self, strength: float, is_colour: bool) -> NDArray[np.float32]:
        """The standard deviation after blending; 0 where nothing can be said."""
        variance = self._squares / self._count - np.square(self._sum / self._count)
        if is_colour:
            variance = variance.mean(axis=2)
        spread = np.sqrt(np.maximum(variance, 0.0)) * np.float32(min(strength, 1.0))
        return np.where(np.isfinite(spread), spread, np.float32(0))

    def mean(self, restored: Restored, strength: float) -> NDArray[np.float32]:
        """The mean after blending: as far from the first answer as the mean of all is."""
        shift = np.nan_to_num(self._sum / np.float32(self._count)) * np.float32(min(strength, 1.0))
        return restored.values.astype(np.float32) + shift


def _unchanged(restored: Restored) -> Trusted:
    values = restored.values.astype(np.float32)
    return Trusted(restored, np.zeros(values.shape[:2], np.float32), values)


def _turned(values: NDArray, quarters: int, is_mirrored: bool) -> NDArray:
    made = np.rot90(values, quarters)
    return np.ascontiguousarray(np.flip(made, 1) if is_mirrored else made)


def _turned_back(values: NDArray, quarters: int, is_mirrored: bool) -> NDArray:
    return np.rot90(np.flip(values, 1) if is_mirrored else values, -quarters)
