"""Writing NIfTI: values, alpha and label maps on the grid of the scan.

Reference:
    NIfTI-1.1, nifti1.h; formats.md 6. A fresh ``Nifti1Image`` says sform code 2, qform code 0 and unknown units.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medapp.errors import ExportError
from medapp.export.files import write_stream
from medapp.scan.geometry import Geometry

_LARGEST_NIFTI1 = 32767
_LEVEL = 3  # of zlib; float images hardly shrink further, and 9 takes four times as long


@dataclass(frozen=True)
class NiftiFile:
    """A written NIfTI: bytes, SHA-256 and the largest difference between what was given and what was read back."""

    size: int
    sha256: str
    largest_error: float


def write_nifti(
    path: Path, slices: Iterable[NDArray], shape_zyx: tuple[int, int, int], dtype: np.dtype, geometry: Geometry
) -> NiftiFile:
    """Write slices one after another as ``.nii.gz`` and read them back.

    Equal slices give equal bytes: the gzip time stamp is zero and no name is stored.

    Args:
        path: Ends in ``.nii.gz``.
        slices: ``(Y, X)`` each, first slice first; any numbers that ``dtype`` holds. Iterated twice: pass something
            that can be, such as ``SliceStream`` or a list.
        shape_zyx: ``(Z, Y, X)``.
        dtype: float32 for values and alpha, uint8 or uint16 for labels; stored without scaling.
        geometry: Affine in mm, RAS+.

    Raises:
        ExportError: A voxel is not finite, or the file reads back differently.
    """
    header = nifti_header(shape_zyx, dtype, geometry)
    kind = np.dtype(dtype).newbyteorder("<")

    def fill(stream: BinaryIO) -> None:
        with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=_LEVEL, mtime=0) as packed:
            packed.write(header.binaryblock)
            packed.write(bytes(int(header["vox_offset"]) - len(header.binaryblock)))  # no extensions
            count = 0
            for plane in slices:
                if not np.isfinite(plane).all():
                    raise ExportError(
                        "A voxel is not a finite number; nothing was exported.", "Restore the series again."
                    )
                packed.write(np.ascontiguousarray(plane, dtype=kind).tobytes())
                count += 1
            if count != shape_zyx[0]:
                raise ValueError(f"{count} slices for a volume of {shape_zyx[0]}")

    size, sha256 = write_stream(path, fill)
    return NiftiFile(size, sha256, _compare(path, slices, shape_zyx, kind, geometry))


def nifti_header(shape_zyx: tuple[int, int, int], dtype: np.dtype, geometry: Geometry) -> nib.Nifti1Header:
    """A single-file header: sform = affine with code 1, qform the same (code 0 when sheared), mm and s."""
    header = nib.Nifti2Header() if max(shape_zyx) > _LARGEST_NIFTI1 else nib.Nifti1Header()
    header.set_data_dtype(np.dtype(dtype).newbyteorder("<"))
    header.set_data_shape(shape_zyx[::-1])
    affine = geometry.affine_xyz
    header.set_zooms(geometry.spacing_mm[::-1])
    header.set_sform(affine, code=1)
    if not geometry.is_sheared:  # a quaternion cannot hold shear
        header.set_qform(affine, code=1)
    header.set_xyzt_units("mm", "sec")
    header["descrip"] = b"medapp"
    header["vox_offset"] = _offset(header)
    header["magic"] = header.single_magic
    return header


def _offset(header: nib.Nifti1Header) -> int:
    """Where the voxels begin: behind the header and four bytes that say that there are no extensions."""
    return 544 if isinstance(header, nib.Nifti2Header) else 352


class SliceStream:
    """Slices made one at a time, each time they are asked for, so that a volume is never held twice."""

    def __init__(self, count: int, make: object) -> None:
        self._count = count
        self._make = make

    def __iter__(self) -> Iterator[NDArray]:
        for z in range(self._count):
            yield self._make(z)  # type: ignore[operator]


def _compare(
    path: Path, slices: Iterable[NDArray], shape_zyx: tuple[int, int, int], kind: np.dtype, geometry: Geometry
) -> float:
    """Largest difference after reading back; also checks affine, type and that the stream ends sound."""
    broken = ExportError(
        f"{path.name} read back differently from what was written; nothing was exported.", "Try again."
    )
    image = cast(nib.Nifti1Image, nib.load(path))
    header = image.header
    is_same_place = np.allclose(image.affine, geometry.affine_xyz, rtol=1e-6, atol=1e-4)
    if image.shape != shape_zyx[::-1] or header.get_data_dtype() != kind or not is_same_place:
        raise broken
    largest = 0.0
    with gzip.open(path, "rb") as stream:
        stream.read(_offset(header))  # nibabel forgets the offset once loaded
        for plane in slices:
            raw = stream.read(shape_zyx[1] * shape_zyx[2] * kind.itemsize)
            if len(raw) != plane.size * kind.itemsize:
                raise broken
            again = np.frombuffer(raw, dtype=kind).reshape(plane.shape)
            if not np.array_equal(again, plane.astype(kind)):
                raise broken
            largest = max(largest, float(np.abs(again.astype(np.float64) - plane).max(initial=0.0)))
        if stream.read(1):  # reading to the end also checks the CRC
            raise broken
    return largest
