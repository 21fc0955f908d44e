"""How one plane of a volume is laid on the screen: radiological convention from the affine, for display only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from medapp.scan.geometry import Geometry
from medapp.scan.scan import Scan

_LETTERS = (("L", "R"), ("P", "A"), ("F", "H"))  # negative, positive RAS+ direction of each patient axis
_PLANE_NAMES = ("Sagittal", "Coronal", "Axial")  # by the patient axis that the slices are stacked along
# Per normal: (patient axis across the screen, sign towards the right), (patient axis down the screen, sign downwards).
# Radiological: patient right on viewer left, anterior at the top of axial slices, head up elsewhere.
_SCREEN = {0: ((1, -1), (2, -1)), 1: ((0, -1), (2, -1)), 2: ((0, -1), (1, -1))}

Box = tuple[int, int, int, int]
"""``u0, v0, u1, v1`` in display pixels, the upper ends exclusive."""


@dataclass(frozen=True)
class Plane:
    """One family of parallel slices and how they are shown.

    Display coordinates ``(u, v)`` count pixels to the right and downwards; pixel ``n`` covers ``n .. n + 1``. A *raw*
    slice is what indexing the volume gives: ``volume[z]``, ``volume[:, y]`` or ``volume[:, :, x]``.

    Attributes:
        axis: The index axis (0 = z, 1 = y, 2 = x) that the slices are stacked along.
        shape: ``(Z, Y, X)``.
        across, down: The index axes shown to the right and downwards.
        flip_u, flip_v: True when the index runs against the screen.
        pixel_mm: ``(u, v)`` size of a pixel in mm; ``(1, 1)`` where it is unknown.
        has_mm: Whether ``pixel_mm`` is measured.
        step_mm: Distance between slices, or None.
        letters: Patient letters at the left, right, top and bottom, or None where the orientation is unknown.
        name: ``Axial``, ``Coronal``, ``Sagittal`` or ``Slice``.
    """

    axis: int
    shape: tuple[int, int, int]
    across: int
    down: int
    flip_u: bool
    flip_v: bool
    pixel_mm: tuple[float, float]
    has_mm: bool
    step_mm: float | None
    letters: tuple[str, str, str, str] | None
    name: str

    @classmethod
    def of(cls, scan: Scan, axis: int) -> Plane:
        """The plane of a scan across an index axis."""
        shape = (scan.shape[0], scan.shape[1], scan.shape[2])
        low, high = (a for a in range(3) if a != axis)
        if scan.geometry is None:
            spacing = scan.in_plane_spacing_mm if axis == 0 else None
            v_mm, u_mm = spacing or (1.0, 1.0)
            return cls(axis, shape, high, low, False, False, (u_mm, v_mm), spacing is not None, None, None, "Slice")
        patient, sign = patient_axes(scan.geometry)
        (u_patient, u_sign), (v_patient, v_sign) = _SCREEN[patient[axis]]
        across, down = patient.index(u_patient), patient.index(v_patient)
        spacing_mm = scan.geometry.spacing_mm
        left, right = _LETTERS[u_patient] if u_sign > 0 else _LETTERS[u_patient][::-1]
        top, bottom = _LETTERS[v_patient] if v_sign > 0 else _LETTERS[v_patient][::-1]
        return cls(
            axis=axis,
            shape=shape,
            across=across,
            down=down,
            flip_u=sign[across] != u_sign,
            flip_v=sign[down] != v_sign,
            pixel_mm=(spacing_mm[across], spacing_mm[down]),
            has_mm=True,
            step_mm=spacing_mm[axis],
            letters=(left, right, top, bottom),
            name=_PLANE_NAMES[patient[axis]],
        )

    @property
    def width(self) -> int:
        """Display pixels across."""
        return self.shape[self.across]

    @property
    def height(self) -> int:
        """Display pixels down."""
        return self.shape[self.down]

    @property
    def count(self) -> int:
        """How many slices there are."""
        return self.shape[self.axis]

    @property
    def aspect(self) -> tuple[float, float]:
        """``(u, v)`` size of a display pixel relative to its shorter side."""
        shorter = min(self.pixel_mm)
        return self.pixel_mm[0] / shorter, self.pixel_mm[1] / shorter

    def raw(self, volume: NDArray, index: int) -> NDArray:
        """The raw slice of a volume (a view)."""
        return volume[(slice(None),) * self.axis + (index,)]

    def shown(self, raw: NDArray) -> NDArray:
        """A raw slice, or an array of its shape, in display orientation (a view)."""
        array = raw.swapaxes(0, 1) if self.down > self.across else raw
        return array[:: -1 if self.flip_v else 1, :: -1 if self.flip_u else 1]

    def unshown(self, display: NDArray) -> NDArray:
        """The inverse of ``shown``: a display array as a raw slice (a view)."""
        array = display[:: -1 if self.flip_v else 1, :: -1 if self.flip_u else 1]
        return array.swapaxes(0, 1) if self.down > self.across else array

    def to_display(self, index_zyx: Sequence[float] | NDArray) -> tuple[float, float]:
        """The display point of a voxel's centre; fractional indices are welcome."""
        u, v = float(index_zyx[self.across]), float(index_zyx[self.down])
        return (self.width - 1 - u if self.flip_u else u) + 0.5, (self.height - 1 - v if self.flip_v else v) + 0.5

    def to_index(self, u: float, v: float, slice_index: float) -> tuple[float, float, float]:
        """The fractional voxel index under a display point."""
        index = [0.0, 0.0, 0.0]
        index[self.axis] = float(slice_index)
        index[self.across] = self.width - 0.5 - u if self.flip_u else u - 0.5
        index[self.down] = self.height - 0.5 - v if self.flip_v else v - 0.5
        return index[0], index[1], index[2]

    def voxel_at(self, u: float, v: float, slice_index: int) -> tuple[int, int, int] | None:
        """The voxel under a display point, or None outside the image."""
        if not (0 <= u < self.width and 0 <= v < self.height):
            return None
        z, y, x = self.to_index(np.floor(u) + 0.5, np.floor(v) + 0.5, slice_index)
        return round(z), round(y), round(x)

    def to_raw_xy(self, u: float, v: float) -> tuple[float, float]:
        """A display point in the raw slice: ``(x, y)``, pixel centres at whole numbers."""
        index = self.to_index(u, v, 0)
        low, high = (a for a in range(3) if a != self.axis)
        return index[high], index[low]

    def from_raw_xy(self, x: float, y: float) -> tuple[float, float]:
        """The inverse of ``to_raw_xy``."""
        index = [0.0, 0.0, 0.0]
        low, high = (a for a in range(3) if a != self.axis)
        index[high], index[low] = x, y
        return self.to_display(index)

    def box_to_display(self, start_zyx: tuple[int, ...], shape_zyx: tuple[int, ...]) -> Box:
        """The display box of a voxel box."""
        u0, v0 = start_zyx[self.across], start_zyx[self.down]
        u1, v1 = u0 + shape_zyx[self.across], v0 + shape_zyx[self.down]
        if self.flip_u:
            u0, u1 = self.width - u1, self.width - u0
        if self.flip_v:
            v0, v1 = self.height - v1, self.height - v0
        return max(0, u0), max(0, v0), min(self.width, u1), min(self.height, v1)

    def box_to_voxels(self, box: Box, slice_index: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """The voxel box ``(start_zyx, shape_zyx)`` of a display box on one slice."""
        u0, v0, u1, v1 = box
        if self.flip_u:
            u0, u1 = self.width - u1, self.width - u0
        if self.flip_v:
            v0, v1 = self.height - v1, self.height - v0
        start, size = [0, 0, 0], [1, 1, 1]
        start[self.axis] = slice_index
        start[self.across], size[self.across] = u0, u1 - u0
        start[self.down], size[self.down] = v0, v1 - v0
        return (start[0], start[1], start[2]), (size[0], size[1], size[2])


def patient_axes(geometry: Geometry) -> tuple[list[int], list[int]]:
    """Which patient axis (0 = R, 1 = A, 2 = S) each index axis runs along, one each, and with which sign.

    Oblique volumes get the assignment with the largest overlap, so that two index axes never claim the same direction.
    """
    steps = geometry.affine_zyx[:3, :3] / np.array(geometry.spacing_mm)
    best = max(permutations(range(3)), key=lambda p: sum(abs(steps[p[a], a]) for a in range(3)))
    return list(best), [1 if steps[best[a], a] > 0 else -1 for a in range(3)]
