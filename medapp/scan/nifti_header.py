"""The header of a NIfTI-1 or NIfTI-2 file: by nibabel's definition, checked by our rules."""

from __future__ import annotations

import logging
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medapp.errors import UnreadableFileError
from medapp.scan.geometry import Geometry, is_invertible

logger = logging.getLogger(__name__)

_COPY = "Copy the file again from its source."
_CHUNK = 1 << 20
_RATIO = 1100  # deflate cannot shrink more than 1032 times
_TO_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
_STORED = {"i8": "i4", "u8": "u4", "f8": "f4", "f2": "f4", "f16": "f4", "b1": "u1"}  # kept narrower, checked when read
_RGB, _RGBA = 128, 2304
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """One NIfTI file whose header is sound.

    Attributes:
        data_path: Where the voxels are: the file itself, or the ``.img`` beside a ``.hdr``.
        shape_xyz: Three sizes, then the number of volumes.
        item: dtype of one voxel as stored, with byte order; ``(3,)`` or ``(4,)`` uint8 for colours.
    """

    path: Path
    data_path: Path
    name: str
    shown: str
    stamp: tuple[int, int, int]
    is_gzip: bool
    offset: int
    shape_xyz: tuple[int, int, int]
    volumes: int
    item: np.dtype
    channels: int
    slope: float
    intercept: float
    geometry: Geometry | None
    spacing_zyx: tuple[float, float, float] | None
    notes: tuple[str, ...]

    @property
    def volume_bytes(self) -> int:
        """Bytes of one volume as stored."""
        x, y, z = self.shape_xyz
        return x * y * z * self.channels * self.item.itemsize

    @property
    def kept_dtype(self) -> np.dtype:
        """dtype of ``Scan.stored``: native byte order, at most 32 bits."""
        code = f"{self.item.kind}{self.item.itemsize}"
        return np.dtype(_STORED.get(code, code))


def sniff_nifti(start: bytes) -> bool:
    """True when these first bytes (540 are enough) are a NIfTI-1 or NIfTI-2 header."""
    if start[344:348] in (b"n+1\0", b"ni1\0"):
        return start[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c")
    return start[4:8] in (b"n+2\0", b"ni2\0") and start[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")


def gzip_start(path: Path, count: int = 540) -> bytes:
    """The first bytes inside a gzip file; fewer when it is damaged."""
    try:
        with path.open("rb") as file:
            return zlib.decompressobj(31).decompress(file.read(65536), count)
    except (OSError, zlib.error):
        return b""


def open_nifti(path: Path, shown: str = "") -> NiftiFile:
    """Read and check the header.

    Raises:
        UnreadableFileError: Damaged, unsupported or unsafe.

    Reference:
        https://nifti.nimh.nih.gov/nifti-1; formats.md 3.
    """
    name = Path(shown or path).name
    try:
        with path.open("rb") as file:
            raw = file.read(544)
    except OSError as error:
        raise UnreadableFileError(f"{name} cannot be read: {error.strerror}.", "Check that you may open it.") from error
    is_gzip = raw[:2] == b"\x1f\x8b"
    if is_gzip:
        raw = gzip_start(path, 544)
    kind = nib.Nifti2Header if raw[4:8] in (b"n+2\0", b"ni2\0") else nib.Nifti1Header
    try:
        header = kind(binaryblock=raw[: kind.template_dtype.itemsize], check=False)
    except Exception as error:
        raise UnreadableFileError(f"{name} is truncated: {len(raw)} bytes of header.", _COPY) from error
    data_path, is_data_gzip = path, is_gzip
    is_pair = bytes(header["magic"].tobytes())[:3] in (b"ni1", b"ni2")
    if is_pair:
        data_path, is_data_gzip = _pair(path, name)
    notes: list[str] = []
    shape, volumes = _shape(header, name, notes)
    code = int(header["datatype"])
    channels = {_RGB: 3, _RGBA: 4}.get(code, 1)
    if code not in _TYPES and channels == 1:
        raise UnreadableFileError(
            f"{name} holds {_type_name(code)} voxels, which medapp does not read.", "Convert it to integers or float32."
        )
    item = np.dtype(header.endianness + _TYPES[code]) if channels == 1 else np.dtype(np.uint8)
    if int(header["bitpix"]) != item.itemsize * 8 * channels:
        raise UnreadableFileError(
            f"{name} is damaged: {int(header['bitpix'])} bits per voxel do not fit its type.", _COPY
        )
    if channels > 1:
        notes.append("The voxels are colours." if channels == 3 else "The voxels are colours with transparency.")
    offset = float(header["vox_offset"])
    least = 0 if is_pair else (544 if kind is nib.Nifti2Header else 348)
    status = data_path.stat()
    if not (math.isfinite(offset) and offset >= least and offset == int(offset)):
        raise UnreadableFileError(f"{name} is damaged: its voxels are said to begin at byte {offset:g}.", _COPY)
    geometry, spacing = _geometry(header, name, notes)
    slope, intercept = _scaling(header, notes) if channels == 1 else (1.0, 0.0)
    found = NiftiFile(
        path=path, data_path=data_path, name=name, shown=shown or str(path),
        stamp=(status.st_size, status.st_mtime_ns, status.st_ino), is_gzip=is_data_gzip, offset=int(offset),
        shape_xyz=shape, volumes=volumes, item=item, channels=channels, slope=slope, intercept=intercept,
        geometry=geometry, spacing_zyx=spacing, notes=tuple(notes),
    )  # fmt: skip
    declared, size = found.volume_bytes * volumes, status.st_size
    if is_data_gzip:
        if declared > _RATIO * size:
            raise UnreadableFileError(
                f"{name} declares {declared} bytes of voxels, which {size} compressed bytes cannot hold.", _COPY
            )
    elif offset + declared > size:
        raise UnreadableFileError(
            f"{name} is truncated: {max(0, size - int(offset))} of {declared} voxel bytes are present.", _COPY
        )
    elif offset + declared < size:
        notes.append(f"{size - int(offset) - declared} bytes after the voxels were ignored.")
        return NiftiFile(**{**vars(found), "notes": tuple(notes)})
    return found


def _pair(path: Path, name: str) -> tuple[Path, bool]:
    stem = path.name.removesuffix(".gz").removesuffix(".hdr")
    for candidate in (f"{stem}.img", f"{stem}.img.gz"):
        image = path.with_name(candidate)
        if image.is_file() and not image.is_symlink():
            with image.open("rb") as file:
                return image, file.read(2) == b"\x1f\x8b"
    raise UnreadableFileError(
        f"{name} is half of a pair: {stem}.img is not beside it.", "Put both files in one folder."
    )


def _shape(header: nib.Nifti1Header, name: str, notes: list[str]) -> tuple[tuple[int, int, int], int]:
    dim = [int(n) for n in header["dim"]]
    if not 1 <= dim[0] <= 7 or any(n < 1 for n in dim[1 : dim[0] + 1]):
        raise UnreadableFileError(f"{name} is damaged: its dimensions are {dim[: max(1, min(8, dim[0] + 1))]}.", _COPY)
    sizes = dim[1 : dim[0] + 1]
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) == 5 and sizes[3] == 1:
        raise UnreadableFileError(
            f"{name} holds vectors: its shape is {' × '.join(map(str, sizes))}.", "Split it into scalar volumes."
        )
    kept = sizes[:3] + [n for n in sizes[3:] if n > 1]
    if len(kept) > 4:
        raise UnreadableFileError(
            f"{name} has {len(kept)} dimensions: {' × '.join(map(str, sizes))}.", "Split it into 3-D volumes."
        )
    kept += [1] * (3 - len(kept))
    volumes = kept[3] if len(kept) == 4 else 1
    if volumes > 1:
        notes.append(f"The file has four dimensions; each of its {volumes} volumes is a scan of its own.")
    return (kept[0], kept[1], kept[2]), volumes


def _type_name(code: int) -> str:
    return {32: "complex", 1792: "complex", 2048: "complex", 1: "1-bit", 1536: "128-bit"}.get(code, f"type {code}")


def _scaling(header: nib.Nifti1Header, notes: list[str]) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not math.isfinite(slope) or (slope != 0 and not math.isfinite(intercept)):
        notes.append("The scaling is not a finite number; values are as stored.")
        return 1.0, 0.0
    return (1.0, 0.0) if slope == 0 else (slope, intercept)


def _geometry(
    header: nib.Nifti1Header, name: str, notes: list[str]
) -> tuple[Geometry | None, tuple[float, float, float] | None]:
    """The affine by the rules of formats.md 3, or the spacing of an index space, or neither."""
    unit = int(header["xyzt_units"]) & 7
    scale = _TO_MM.get(unit, 1.0)
    if unit not in _TO_MM:
        notes.append("The unit of length is not given; millimetres are assumed.")
    pixdim = [float(v) for v in header["pixdim"][1:4]]
    has_spacing = all(math.isfinite(v) and v > 0 for v in pixdim)
    sform = _valid(header.get_sform(coded=False)) if int(header["sform_code"]) > 0 else None
    qform = None
    if int(header["qform_code"]) > 0:
        try:
            qform = _valid(header.get_qform(coded=False)) if has_spacing else None
        except Exception:  # nibabel refuses quaternions that are too long
            qform = None
    has_codes = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    affine = sform if sform is not None else qform
    if affine is None:
        if has_codes:
            notes.append("The stored orientation cannot be inverted or is not finite; left and right are unknown.")
        else:
            notes.append("The file has no orientation; left and right are unknown.")
        if not has_spacing:
            notes.append("The voxel size is not positive: lengths in px.")
            return None, None
        return None, (pixdim[2] * scale, pixdim[1] * scale, pixdim[0] * scale)
    if int(header["sform_code"]) > 0 and sform is None:
        notes.append("The sform is not usable; the qform was used.")
    if sform is not None and qform is not None and _differ(sform, qform):
        notes.append("The sform and the qform disagree; the sform was used.")
    if not has_spacing:
        notes.append("The voxel size of the header is not positive; it was taken from the affine.")
    affine = affine.copy()
    affine[:3] *= scale
    geometry = Geometry.from_xyz(affine)
    if geometry.is_sheared:
        notes.append("The axes are sheared; the affine keeps the shear.")
    return geometry, None


def _valid(affine: NDArray[np.float64]) -> NDArray[np.float64] | None:
    affine = np.asarray(affine, dtype=np.float64)
    return affine if is_invertible(affine) else None


def _differ(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """More than 0.1 voxel at the origin or along an axis, or more than 0.1 degree."""
    size = np.linalg.norm(a[:3, :3], axis=0)
    if np.linalg.norm(a[:3, 3] - b[:3, 3]) > 0.1 * size.min():
        return True
    other = np.linalg.norm(b[:3, :3], axis=0)
    if (np.abs(size - other) > 0.1 * size).any():
        return True
    cosines = ((a[:3, :3] / size) * (b[:3, :3] / other)).sum(axis=0)
    return bool((np.degrees(np.arccos(np.clip(cosines, -1, 1))) > 0.1).any())


def is_pair_data(path: Path) -> bool:
    """True for the ``.img`` half of a NIfTI pair, which is read by way of its ``.hdr``."""
    stem, dot, ending = path.name.removesuffix(".gz").rpartition(".")
    header = path.with_name(f"{stem}.hdr")
    if ending != "img" or not dot or not header.is_file():
        return False
    with header.open("rb") as file:
        return sniff_nifti(file.read(540))
