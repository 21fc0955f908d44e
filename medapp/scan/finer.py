"""A grid that is finer in-plane than a scan's own: where its pixels lie, and what is brought onto it unchanged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medapp.scan.geometry import Geometry
from medapp.scan.scan import Scan


@dataclass(frozen=True)
class FinerGrid:
    """How the slices of a result lie on those of its source.

    Attributes:
        factor: So many pixels along each side of a source pixel; 1 = the same grid.
        keeps_centres: The first pixel keeps its centre, as when zeros are added around k-space; else pixels are
            divided and the image keeps its corners, as enlarging networks do.
    """

    factor: int = 1
    keeps_centres: bool = True

    def shape(self, shape_zyx: tuple[int, ...]) -> tuple[int, ...]:
        """Of a volume ``(Z, Y, X)`` or ``(Z, Y, X, 3)`` on the finer grid."""
        z, y, x = shape_zyx[:3]
        return (z, y * self.factor, x * self.factor, *shape_zyx[3:])

    def nearest(self, values: NDArray, axes: tuple[int, int] = (0, 1)) -> NDArray:
        """Each finer pixel takes the value of the source pixel whose centre is nearest; nothing is mixed."""
        if self.factor == 1:
            return values
        offset = self.factor // 2 if self.keeps_centres else 0
        for axis in axes:
            size = values.shape[axis]
            at = np.minimum((np.arange(size * self.factor) + offset) // self.factor, size - 1)
            values = values.take(at, axis=axis)
        return values

    def linear(self, values: NDArray) -> NDArray[np.float32]:
        """``(Y, X)`` or ``(Y, X, 3)`` interpolated linearly; the border is held."""
        made = np.asarray(values, np.float64)
        for axis in (0, 1):
            size = made.shape[axis]
            at = np.clip(self._source_index(np.arange(size * self.factor, dtype=np.float64)), 0, size - 1)
            low = np.minimum(at.astype(np.intp), max(size - 2, 0))
            share = (at - low).reshape(tuple(-1 if a == axis else 1 for a in range(made.ndim)))
            below, above = made.take(low, axis=axis), made.take(np.minimum(low + 1, size - 1), axis=axis)
            made = below + (above - below) * share
        return made.astype(np.float32)

    def index(self, index_zyx: tuple[int, int, int]) -> tuple[int, int, int]:
        """The finer voxel at the middle of a source voxel."""
        z, y, x = index_zyx
        offset = 0 if self.keeps_centres else self.factor // 2
        return z, y * self.factor + offset, x * self.factor + offset

    def geometry(self, geometry: Geometry) -> Geometry:
        """The finer grid in millimetres."""
        affine = geometry.affine_zyx.copy()
        first = self._source_index(np.zeros(1))[0]
        affine[:3, 3] = geometry.to_mm(np.array((0.0, first, first)))
        affine[:3, 1:3] /= self.factor
        return Geometry(affine)

    def scan(self, source: Scan, stored: NDArray, slope: float = 1.0, intercept: float = 0.0) -> Scan:
        """A scan of these voxels beside its source: same kind, unit and windows, finer grid.

        Args:
            stored: Shaped as ``shape`` says; ``value = stored * slope + intercept``.
        """
        factor, pixel, index = self.factor, source.pixel_spacing_mm, source.index_spacing_mm
        return Scan(
            stored=stored,
            geometry=self.geometry(source.geometry) if source.geometry is not None else None,
            modality=source.modality,
            unit=source.unit,
            kind=source.kind,
            slope=slope,
            intercept=intercept,
            pixel_spacing_mm=(pixel[0] / factor, pixel[1] / factor) if pixel is not None else None,
            windows=source.windows,
            is_inverted=source.is_inverted,
            padding=self.nearest(source.padding, (1, 2)) if source.padding is not None else None,
            source=source.source,
            index_spacing_mm=(index[0], index[1] / factor, index[2] / factor) if index is not None else None,
        )

    def _source_index(self, at: NDArray[np.float64]) -> NDArray[np.float64]:
        """Finer pixel numbers as fractional ones of the source."""
        if self.keeps_centres:
            return at / self.factor
        result: NDArray[np.float64] = (at + 0.5) / self.factor - 0.5
        return result
