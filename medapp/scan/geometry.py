"""Where a volume lies in the patient: affine, spacing, orientation, index <-> millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))  # negative, positive RAS+ direction of each patient axis


def is_invertible(affine: NDArray[np.float64]) -> bool:
    """True when an affine is finite and its axes span space, however small the voxels."""
    if not np.isfinite(affine).all():
        return False
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    volume = float(sizes.prod())
    return volume > 0 and abs(float(np.linalg.det(affine[:3, :3] / sizes))) > 1e-9


@dataclass(frozen=True, eq=False)
class Geometry:
    """Takes a voxel index ``(z, y, x)`` to millimetres, RAS+.

    Attributes:
        affine_zyx: ``(4, 4)`` float64; columns are the steps along z, y, x and the position of voxel (0, 0, 0).

    Reference:
        DICOM PS3.3 C.7.6.2.1.1 (LPS there; the first two rows are negated here).
    """

    affine_zyx: NDArray[np.float64]

    def __post_init__(self) -> None:
        affine = np.array(self.affine_zyx, dtype=np.float64)
        if affine.shape != (4, 4) or not is_invertible(affine):
            raise ValueError("an affine must be a finite, invertible 4 x 4 matrix")
        affine[3] = (0.0, 0.0, 0.0, 1.0)
        affine.setflags(write=False)
        object.__setattr__(self, "affine_zyx", affine)

    @classmethod
    def from_xyz(cls, affine_xyz: NDArray[np.float64]) -> Geometry:
        """From an affine whose columns are x, y, z, as in nibabel, JSON and manifests."""
        affine = np.asarray(affine_xyz, dtype=np.float64)
        return cls(affine[:, (2, 1, 0, 3)])

    @classmethod
    def from_spacing(
        cls, spacing_mm: tuple[float, float, float], origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ) -> Geometry:
        """An axial volume as CT scanners store it: x to the patient's left, y to the back, z to the head.

        Args:
            spacing_mm: ``(z, y, x)``.
            origin_mm: RAS+ position of voxel (0, 0, 0).
        """
        z, y, x = spacing_mm
        affine = np.eye(4)
        affine[:3, 0] = (0, 0, z)
        affine[:3, 1] = (0, -y, 0)
        affine[:3, 2] = (-x, 0, 0)
        affine[:3, 3] = origin_mm
        return cls(affine)

    @cached_property
    def affine_xyz(self) -> NDArray[np.float64]:
        """The affine with columns x, y, z, as nibabel's."""
        return self.affine_zyx[:, (2, 1, 0, 3)]

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size ``(z, y, x)``: length of one index step along each axis."""
        z, y, x = np.linalg.norm(self.affine_zyx[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @cached_property
    def is_sheared(self) -> bool:
        """True when the axes are not at right angles (gantry tilt)."""
        unit = self.affine_zyx[:3, :3] / np.array(self.spacing_mm)
        return bool(np.abs(unit.T @ unit - np.eye(3)).max() > 1e-3)

    @cached_property
    def _inverse(self) -> NDArray[np.float64]:
        return np.asarray(np.linalg.inv(self.affine_zyx), dtype=np.float64)

    def to_mm(self, index_zyx: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(..., 3)`` voxel indices to RAS+ millimetres."""
        index = np.asarray(index_zyx, dtype=np.float64)
        return index @ self.affine_zyx[:3, :3].T + self.affine_zyx[:3, 3]

    def to_index(self, point_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(..., 3)`` RAS+ millimetres to fractional voxel indices (z, y, x)."""
        point = np.asarray(point_mm, dtype=np.float64)
        return point @ self._inverse[:3, :3].T + self._inverse[:3, 3]

    def letters(self, axis: int) -> tuple[str, str]:
        """Patient letters at the low and the high end of an index axis (0 = z, 1 = y, 2 = x): ``("R", "L")``."""
        step = self.affine_zyx[:3, axis]
        patient_axis = int(np.argmax(np.abs(step)))
        negative, positive = _LETTERS[patient_axis]
        return (negative, positive) if step[patient_axis] > 0 else (positive, negative)

    def is_close(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """True when both map indices to the same millimetres, up to float32 storage."""
        scale = max(1.0, float(np.abs(self.affine_zyx[:3, 3]).max()))
        return bool(np.abs(self.affine_zyx - other.affine_zyx).max() <= tolerance_mm * max(1.0, scale * 1e-3))

    def shifted(self, index_zyx: tuple[int, int, int]) -> Geometry:
        """The geometry of a crop that starts at ``index_zyx``."""
        affine = self.affine_zyx.copy()
        affine[:3, 3] = self.to_mm(np.array(index_zyx, dtype=np.float64))
        return Geometry(affine)
